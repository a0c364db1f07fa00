"""The model card: README.md of an exported folder, as Hugging Face's hub shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brats_cache.common.errors import printable
from brats_cache.common.text import count_of
from brats_train.evaluation.results import Results
from brats_train.evaluation.summary import DEFINITIONS
from brats_train.models.description import Description

__all__ = ["make_card"]

_METRICS = (
    ("Dice", "dice", 3),
    ("HD95, mm", "hd95", 1),
    ("NSD at 1 mm", "nsd", 3),
    ("sensitivity", "sensitivity", 3),
    ("precision", "precision", 3),
    ("lesion-wise Dice", "lesion_dice", 3),
)
_REGIONS = {"wt": "whole tumour (WT)", "tc": "tumour core (TC)", "et": "enhancing tumour (ET)"}
_FITS = {
    "resize": "each slice stretched to {size} x {size} pixels, bilinear, half-pixel centres",
    "pad": "each slice centred in {size} x {size} pixels, no interpolation",
}
_NORMALIZATIONS = {
    "zscore": "brain voxels of each modality to mean 0 and standard deviation 1",
    "percentile": "brain voxels of each modality from percentiles 0.5 and 99.5 to 0 and 1, clipped",
    "none": "intensities as they are",
}
_CITATIONS = """\
- Menze et al. 2015, doi:10.1109/TMI.2014.2377694
- Bakas et al. 2017, doi:10.1038/sdata.2017.117
- from 2021 on, Baid et al. 2021, arXiv:2107.02314"""


def make_card(
    name: str, description: Description, evaluations: Sequence[Results], num_parameters: int
) -> str:
    """Writes the card.

    Args:
        name: Of the model.
        description: Of the model.
        evaluations: Of this very model; none is worth a sentence.
        num_parameters: Of all its networks.
    """
    sections = {
        printable(name): _introduction(description, num_parameters),
        "Use": _use(name),
        "Input and preprocessing": _preprocessing(description),
        "Output": _output(description),
        "Training data": _data(description),
        "Evaluation": _evaluation(description, evaluations),
        "Limits": _limits(description),
        "Licence and citations": _licence(),
    }
    parts = [_front_matter(name, description, evaluations)]
    for number, (heading, text) in enumerate(sections.items()):
        parts.append(f"{'#' if number == 0 else '##'} {heading}\n\n{text.strip()}\n")
    return "\n".join(parts)


def _front_matter(name: str, description: Description, evaluations: Sequence[Results]) -> str:
    """What the hub reads of a card: YAML between two lines of dashes."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type="private",
            dataset_name=f"split {results.summary['split']} of the training cache",
            metric_type=metric,
            metric_name=f"{region.upper()} {label}",
            metric_value=round(mean, digits),
        )
        for results in evaluations
        for region, scores in results.summary["regions"].items()
        for label, metric, digits in _METRICS[:2]
        if (mean := _score(scores, metric)["mean"]) is not None
    ]
    data = ModelCardData(
        model_name=name if results else None,
        eval_results=results or None,
        library_name="brats",
        pipeline_tag="image-segmentation",
        license="other",
        license_name="terms-of-the-training-data",
        tags=["medical", "mri", "brain-tumor", "glioma", "brats", *description.spec.regions],
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _introduction(description: Description, num_parameters: int) -> str:
    model, spec = description.spec.model, description.spec
    regions = ", ".join(_REGIONS[region] for region in spec.regions)
    num = len(description.members)
    many = f" The mean of {num} networks." if num > 1 else ""
    context = f" It sees {spec.context} neighbouring slices on each side." if spec.context else ""
    return (
        f"Segments {regions} in multi-modal MRI of brain tumours, slice by slice: "
        f"{model.architecture} with the encoder {model.encoder} (segmentation_models_pytorch), "
        f"{num_parameters / 1e6:.1f} million parameters.{many}{context} Made with brats.\n\n"
        "For research; not a medical device."
    )


def _use(name: str) -> str:
    return f"""\
```
brats predict path/to/case --run {name}
```

```python
import brats_train

result = brats_train.load_model("{name}").predict("path/to/case")
result.labels, result.affine
```

`{name}` is this folder, or hf://OWNER/NAME where it lies on the hub. `brats eval --run` scores it
on a cache, `brats train --init-from` goes on from it. Nothing in the folder is executed."""


def _preprocessing(description: Description) -> str:
    preparation = description.spec.preparation
    names = ", ".join(preparation.modalities)
    fit = _FITS[preparation.fit].format(size=preparation.size)
    missing = ", and so is a missing modality" if description.spec.accepts_missing else ""
    return f"""\
- modalities, in this order: {names}; on one grid, skull-stripped, about 1 mm
- intensities: {_NORMALIZATIONS[preparation.normalize]}
- the brain is where any modality is not 0; all else is 0{missing}
- axial slices: {fit}

`brats` does this by itself, in any orientation of the axes."""


def _output(description: Description) -> str:
    spec = description.spec
    rules = spec.postprocessing.describe(spec.regions)
    if spec.regions == ("wt",):
        labels = "The whole tumour is 1."
    else:
        labels = (
            "Labels are those of the case's own scheme, told by its name: 1, 2, 4 up to 2021 and "
            f"1, 2, 3 from 2023; else the scheme of the training masks, {spec.label_scheme}."
        )
    return f"{labels} From probabilities to masks: {rules}; regions are nested, ET in TC in WT."


def _data(description: Description) -> str:
    training = description.training
    if not training:
        return (
            "Not known: the model was exported from a checkpoint without its run, or from runs "
            "that were trained on different cases."
        )
    lines = [f"- label scheme of the masks: {description.spec.label_scheme}"]
    for key, what in (("num_cases", "cases"), ("num_rows", "slices")):
        if counts := training.get(key):
            of_splits = [f"{number} {split}" for split, number in counts.items()]
            lines.append(f"- {what}: {', '.join(of_splits)}")
    if training.get("fold") == "all":
        folds = sorted({member.fold for member in description.members if member.fold is not None})
        lines.append(f"- a cross-validation of {len(folds)} folds, a network each")
    if recipe := training.get("recipe"):
        lines.append(f"- recipe {printable(recipe)}, rows {training.get('rows')}")
    lines.append(f"- first weights of the encoder: {printable(description.spec.weights_from)}")
    lines.append(f"- caches, by fingerprint: {', '.join(training.get('caches', ()))}")
    if versions := training.get("versions"):
        lines.append(f"- {', '.join(f'{name} {one}' for name, one in versions.items())}")
    return "\n".join(lines)


def _evaluation(description: Description, evaluations: Sequence[Results]) -> str:
    if not evaluations:
        return "Not scored before it was exported."
    parts = []
    for results in evaluations:
        summary = results.summary
        regions = summary["regions"]
        counts = [
            count_of(summary[f"num_{noun}s"], noun)
            for noun in ("case", "patient")
            if summary.get(f"num_{noun}s") is not None
        ]
        lines = [
            f"Split {summary['split']}, {', '.join(counts)}: mean [95 % bootstrap interval over "
            "patients] of whole cases on the scan's own grid.",
            "",
            f"| | {' | '.join(region.upper() for region in regions)} |",
            f"|---|{'---|' * len(regions)}",
        ]
        for label, metric, digits in _METRICS:
            cells = [_cell(_score(scores, metric), digits) for scores in regions.values()]
            lines.append(f"| {label} | {' | '.join(cells)} |")
        rules = {model.postprocessing.describe(tuple(regions)): None for model in results.models}
        lines += ["", f"Scored with: {'; or '.join(rules)}."]
        parts.append("\n".join(lines))
    used = {metric: DEFINITIONS[metric] for _, metric, _ in _METRICS}
    parts.append("\n".join(f"- {name}: {text}" for name, text in used.items()))
    empty = evaluations[0].summary["empty"]
    parts.append(f"Empty masks: {DEFINITIONS[f'empty {empty}']}.")
    if any(member.fold is not None for member in description.members):
        parts.append(
            "Each case was scored by the network that had not seen it; the mean of all networks, "
            "which `predict` takes, was not scored."
        )
    elif any(results.summary["split"] == "val" for results in evaluations):
        parts.append(
            "The validation cases chose the best epoch, and where the recipe asks for it the "
            "thresholds, so these figures are a little too good."
        )
    return "\n\n".join(parts)


def _score(scores: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    """Mean and interval of a metric, undefined where an older version did not compute it."""
    return scores.get(metric) or {"mean": None}


def _cell(score: Mapping[str, Any], digits: int) -> str:
    if score["mean"] is None:
        return "undefined"
    mean = f"{score['mean']:.{digits}f}"
    if score.get("low") is None or score.get("high") is None:
        return mean
    return f"{mean} [{score['low']:.{digits}f}, {score['high']:.{digits}f}]"


def _limits(description: Description) -> str:
    missing = [name for name in ("wt", "tc", "et") if name not in description.spec.regions]
    regions = f"\n- It does not tell {', '.join(map(str.upper, missing))} apart." if missing else ""
    needed = (
        "Modalities may be missing, at a cost that no figure here tells."
        if description.spec.accepts_missing
        else "Every modality is needed."
    )
    return f"""\
- For research; not a medical device, and not for decisions about patients.
- Trained on adult brain tumours as the data above hold them. Other diseases, children, scans after
  surgery, other scanners and other preparation are not covered by any figure here.
- Scans that are not skull-stripped, not registered to each other or far from 1 mm give useless
  masks; `brats predict` warns of them.
- {needed}{regions}
- It segments slice by slice; a tumour of a few voxels is easily missed."""


def _licence() -> str:
    return f"""\
The weights are made of the training scans, whose terms apply to them: choose a licence that these
allow before you publish this folder, and put it into the first lines of this page. The code, brats,
is under the Apache License 2.0. BraTS asks to be cited:

{_CITATIONS}"""
