"""Writing a model as one ONNX file, or as a folder in the layout of Hugging Face's hub.

Both hold all networks of what is exported: a cross-validated run or several runs predict as they do
where they are, averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from brats_cache.common.errors import BratsError, printable, wrong_usage
from brats_cache.common.files import write_atomically
from brats_cache.format.reader import Cache
from brats_train.export.card import make_card
from brats_train.export.scores import scores_of
from brats_train.export.training_caches import caches_at_hand, count_cases, slices_to_check
from brats_train.inference.ensemble import average, make_ensemble
from brats_train.models.description import Description
from brats_train.models.exported_folder import (
    CARD,
    CONFIG,
    WEIGHTS,
    has_description,
    write_exported,
)
from brats_train.models.loaded_model import LoadedModel
from brats_train.models.onnx_file import OPSET, make_onnx, parse_onnx
from brats_train.models.sources import exported_folder_of, is_checkpoint, load_models
from brats_train.training.trained_on import TrainedOn, results_home, trained_on

__all__ = ["ExportJob", "export_hub", "export_onnx"]

MAX_DIFFERENCE = 1e-4
Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """What `brats export` was asked to do.

    Attributes:
        sources: What `sources.load_models` takes; the networks of all are averaged.
        out: The file or folder to write.
        overwrite: Replace what is there.
    """

    sources: Sequence[Path]
    out: Path
    overwrite: bool = False


def export_onnx(job: ExportJob, log: Log) -> None:
    """Writes an ONNX file, once onnxruntime has given what torch gives.

    Args:
        job: What to export.
        log: Takes lines of text for a person.

    Raises:
        BratsError: The file exists, a package is missing, the model cannot be expressed, or the two
            differ by more than `MAX_DIFFERENCE`.
    """
    if job.out.suffix.lower() != ".onnx":
        raise wrong_usage(
            BratsError(f"--out {printable(job.out)}: name a file that ends in .onnx.")
        )
    if job.out.exists() and not job.overwrite:
        raise _exists(job.out)
    models, caches, description = _load(job, log)
    content = make_onnx(models, description)
    difference, num_slices, are_real = _compare(models, parse_onnx(content, job.out), caches)
    what = f"{num_slices} {'real slices' if are_real else 'slices of noise'}"
    if not difference <= MAX_DIFFERENCE:  # NaN too
        raise BratsError(
            f"{printable(job.out)}: not written: on {what} onnxruntime's probabilities differ from "
            f"torch's by up to {difference:.2g}, expected at most {MAX_DIFFERENCE:g}. --format hub "
            "keeps the model as it is."
        )
    if not are_real:
        log("Note: no cache is at hand that has the slices of this training; noise was compared.")
    log(f"onnxruntime and torch on {what}: probabilities differ by at most {difference:.1e}")
    job.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(job.out, content)
    log(f"{job.out}: {_counted(len(models))}, opset {OPSET}, {len(content) / 2**20:.1f} MiB")


def export_hub(job: ExportJob, log: Log) -> None:
    """Writes a folder: weights, description and model card.

    Args:
        job: What to export.
        log: Takes lines of text for a person.

    Raises:
        BratsError: The folder holds a model, a run, or something else's config.json.
    """
    _check_folder(job)
    models, _, description = _load(job, log)
    if len({model.spec.model for model in models}) > 1:
        raise BratsError(
            "the runs have different networks, and a folder describes one. Export each by itself, "
            "or all of them as one file with --format onnx."
        )
    scores, of_others = scores_of(results_home(job.sources[0]), description)
    for split in of_others:
        log(f"Note: eval/{split} is of another model than this, so the card leaves it out.")
    if not scores:
        log("Note: not scored (brats eval), so the model card has no figures.")
    num_parameters = sum(
        parameter.numel() for model in models for parameter in model.network.parameters()
    )
    card = make_card(job.out.resolve().name, description, scores, num_parameters)
    write_exported(job.out, models, description, card)
    size = (job.out / WEIGHTS).stat().st_size
    log(
        f"{job.out}: {_counted(len(models))}, {WEIGHTS} of {size / 2**20:.1f} MiB, {CONFIG}, {CARD}"
    )


def _load(job: ExportJob, log: Log) -> tuple[list[LoadedModel], list[Cache], Description]:
    """The networks, those caches they were trained on that are at hand, and the description."""
    models = [model for source in job.sources for model in load_models(source)]
    if any(not list(model.network.parameters()) for model in models):
        raise BratsError(
            "an ONNX file cannot be exported again. Name the run or the folder that it was made of."
        )
    cpu = torch.device("cpu")
    average([make_ensemble(model, cpu) for model in models])  # says whether they fit together
    trained = _trained_alike(job.sources)
    if trained is None:
        log(
            "Note: the sources do not say what they were trained on, or differ in it. brats eval "
            "cannot tell which cases the exported model has seen."
        )
        return models, [], Description.of([replace(model, fold=None) for model in models], {})
    training, caches = trained.pack(), caches_at_hand(trained.caches)
    if len(caches) == len(trained.caches):
        training["num_cases"] = count_cases(caches, trained.fold)
    return models, caches, Description.of(models, training)


def _trained_alike(sources: Sequence[Path]) -> TrainedOn | None:
    """What all sources were trained on; None where one does not say, or two differ."""
    if any(is_checkpoint(source) and not exported_folder_of(source) for source in sources):
        return None
    told = [trained_on(source) for source in sources]
    cases = {(one.fold, frozenset(fingerprint for fingerprint, _ in one.caches)) for one in told}
    return told[0] if len(cases) == 1 and told[0].caches else None


def _compare(
    models: Sequence[LoadedModel], exported: LoadedModel, caches: Sequence[Cache]
) -> tuple[float, int, bool]:
    """The largest difference of probabilities, on how many slices, and whether these are real."""
    cpu = torch.device("cpu")
    torch_model = average([make_ensemble(model, cpu, "off") for model in models])
    onnx_model = make_ensemble(exported, cpu, "off")
    stacks = slices_to_check(caches, torch_model.spec.preparation)
    differences = []
    for stack in stacks:
        expected, found = (
            one.predict(stack.images, stack.z_indices) for one in (torch_model, onnx_model)
        )
        for ours, theirs in (expected.masks, found.masks), (expected.labels, found.labels):
            if ours.numel():  # there may be no labels
                differences.append(float((ours - theirs).abs().max()))
    return max(differences), sum(len(one.images) for one in stacks), stacks[0].is_real


def _check_folder(job: ExportJob) -> None:
    """Raises `BratsError` where the folder must not be written into."""
    present = [job.out / name for name in (CONFIG, WEIGHTS, CARD) if (job.out / name).exists()]
    if job.out.exists() and not job.out.is_dir():
        raise BratsError(f"--out {printable(job.out)}: a file; name a folder.")
    if present and not job.overwrite:
        raise _exists(present[0])
    if (job.out / CONFIG).exists() and not has_description(job.out):
        raise BratsError(
            f"{printable(job.out / CONFIG)}: not of brats export, and would be lost. Choose "
            "another --out."
        )


def _exists(path: Path) -> BratsError:
    return BratsError(
        f"{printable(path)}: exists already. Choose another --out, or replace it with --overwrite."
    )


def _counted(num_networks: int) -> str:
    return "one network" if num_networks == 1 else f"the mean of {num_networks} networks"
