"""The command `brats predict`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from brats_cache.common.errors import BratsError, print_message, print_wrapped, printable
from brats_cache.common.progress import show_progress
from brats_cache.common.text import count_of
from brats_train.cli.options import (
    PATH,
    FiniteRange,
    checkpoint_option,
    device_option,
    model_sources,
    run_option,
    say_loading,
    tta_option,
)

__all__ = ["predict"]

NUM_LOWEST = 3  # cases and regions that are named at the end


def scan_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds an option a modality, for the files of a single case."""
    for name, text in (
        ("flair", "its FLAIR"),
        ("t2", "its T2"),
        ("t1ce", "its T1 with contrast"),
        ("t1", "its T1"),
    ):
        command = click.option(
            f"--{name}", type=PATH, metavar="FILE", help=f"One case by its files: {text}."
        )(command)
    return command


@click.command("predict")
@click.argument("cases", nargs=-1, type=PATH)
@click.option(
    "--manifest", type=PATH, metavar="CSV", help="Table of cases, instead of CASE (docs/data.md)."
)
@scan_options
@run_option
@checkpoint_option
@click.option(
    "--out",
    "out_dir",
    type=PATH,
    default=Path("predictions"),
    show_default=True,
    help="Folder for the masks.",
)
@tta_option
@click.option("--threshold", type=FiniteRange(0, 1), help="Instead of the one chosen in training.")
@click.option("--probabilities", is_flag=True, help="Write CASE_prob.nii.gz as well.")
@click.option(
    "--uncertainty", is_flag=True, help="Write CASE_uncertainty.nii.gz as well, in bits a voxel."
)
@device_option
@click.option("--resume", is_flag=True, help="Keep masks that exist, make the others.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace masks that exist; with --resume those of other models or scans.",
)
def predict(
    cases: tuple[Path, ...],
    manifest: Path | None,
    t1: Path | None,
    t1ce: Path | None,
    t2: Path | None,
    flair: Path | None,
    run_dirs: tuple[Path, ...],
    checkpoint: str,
    out_dir: Path,
    tta: bool | None,
    threshold: float | None,
    probabilities: bool,
    uncertainty: bool,
    device: str,
    resume: bool,
    overwrite: bool,
) -> None:
    """Segment CASEs: case folders, or a folder of them.

    Writes one CASE.nii.gz each, on the scan's own grid, into --out, and CASE.json with the Dice
    that it can be expected to have.
    """
    named = {"t1": t1, "t1ce": t1ce, "t2": t2, "flair": flair}
    files = {name: path for name, path in named.items() if path is not None}
    if sum(map(bool, (cases, manifest, files))) != 1:
        raise click.UsageError(
            "name the scans in one way: CASE folders, --manifest, or --t1, --t1ce, --t2, --flair."
        )
    if run_dirs and checkpoint not in ("best", "last"):
        raise click.UsageError(
            "--checkpoint FILE is a model by itself; leave --run out, or name best or last of it."
        )
    if not (files or resume or overwrite) and "LOCAL_RANK" not in os.environ and out_dir.is_dir():
        _refuse_existing(cases, manifest, out_dir)
    say_loading()
    from brats_train.inference import predict as prediction
    from brats_train.inference.case_models import load_case_models
    from brats_train.runtime.distributed import process_group

    sources = model_sources(run_dirs, checkpoint)
    with process_group(device) as world:
        with world.errors_told_once():
            models = load_case_models(sources, world.device, checkpoint=checkpoint)
            ensemble = models.overruled(tta, threshold).whole
            findings = _find(cases, manifest, files, ensemble.spec)
        if world.is_main:
            print_message(printable(", ".join(map(str, ensemble.paths))), prefix="Model: ")
        job = prediction.PredictionJob(
            findings=findings,
            out_dir=out_dir,
            probabilities=probabilities,
            uncertainty=uncertainty,
            resume=resume,
            overwrite=overwrite,
        )
        for note in findings.notes if world.is_main else ():
            print_message(printable(note), prefix="Note: ")

        def alert(text: str) -> None:
            print_message(printable(text), prefix="Warning: ")

        def warn(text: str) -> None:
            if world.is_main:
                alert(text)

        progress = show_progress("Segmenting", "cases", is_shown=world.is_main)
        try:
            with progress as report:
                outcome = prediction.predict(job, ensemble, world, report, warn, alert)
        except KeyboardInterrupt:
            if world.is_main:
                options = "--resume --overwrite" if overwrite else "--resume"
                click.echo(
                    f"Interrupted. Masks in {out_dir} are kept; go on with {options}.", err=True
                )
            raise
        if not world.is_main:
            return
    num_new, num_kept = len(outcome.written), len(outcome.kept)
    kept = f": {num_new} new, {num_kept} kept" if num_kept else ""
    click.echo(f"{count_of(num_new + num_kept, 'mask')} in {out_dir}{kept}")
    if outcome.expected_dice:
        print_wrapped(_expected_dice(outcome.expected_dice))


def _refuse_existing(cases: tuple[Path, ...], manifest: Path | None, out_dir: Path) -> None:
    """Says at once that masks exist: torch and the model take seconds to load.

    What the scans alone do not tell, is told with the model.
    """
    from brats_cache.discovery.cases import find_cases
    from brats_cache.discovery.manifest import read_manifest
    from brats_train.inference.mask_files import mask_path, refuse_existing

    try:
        if manifest is not None:
            findings = read_manifest(manifest, with_masks=False, may_lack=True)
        else:
            findings = find_cases(cases, None, with_masks=False)
        files = [
            [mask_path(out_dir, case.id, suffix) for suffix in (".json", ".nii.gz")]
            for case in findings.cases
        ]
    except BratsError:
        return
    refuse_existing(files)


def _expected_dice(values: Mapping[tuple[str, str], float]) -> str:
    """A line: of one case all regions, of several the lowest values."""
    if len({case for case, _ in values}) == 1:
        told = [f"{region.upper()} {value:.2f}" for (_, region), value in values.items()]
        return f"Expected Dice: {', '.join(told)}"
    lowest = sorted(values, key=values.__getitem__)[:NUM_LOWEST]
    told = [f"{values[one]:.2f} ({printable(one[0])}, {one[1].upper()})" for one in lowest]
    return f"Lowest expected Dice: {', '.join(told)}"


def _find(
    cases: tuple[Path, ...],
    manifest: Path | None,
    files: Mapping[str, Path],
    spec: Any,
) -> Any:
    """The cases to segment, as `Findings`."""
    from brats_cache.discovery.manifest import read_manifest
    from brats_train.inference.case_sources import find_scans, findings_of_files

    if files:
        return findings_of_files(files, spec)
    if manifest is not None:
        modalities, may_lack = spec.preparation.modalities, spec.accepts_missing
        return read_manifest(manifest, modalities, with_masks=False, may_lack=may_lack)
    return find_scans(cases, spec)
