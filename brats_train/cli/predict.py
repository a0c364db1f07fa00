"""The command `brats predict`."""

from __future__ import annotations

from pathlib import Path

import click

from brats_cache.common.errors import printable, tell
from brats_cache.common.progress import show_progress
from brats_train.cli.options import (
    PATH,
    checkpoint_option,
    checkpoint_paths,
    device_option,
    no_progress,
    run_option,
    tta_option,
)

__all__ = ["predict"]


@click.command("predict")
@click.argument("cases", nargs=-1, required=True, type=PATH)
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
@click.option("--probabilities", is_flag=True, help="Write CASE_prob.nii.gz as well.")
@device_option
@click.option("--resume", is_flag=True, help="Keep masks that exist, make the others.")
@click.option("--overwrite", is_flag=True, help="Replace masks that exist.")
def predict(
    cases: tuple[Path, ...],
    run_dirs: tuple[Path, ...],
    checkpoint: str,
    out_dir: Path,
    tta: bool | None,
    probabilities: bool,
    device: str,
    resume: bool,
    overwrite: bool,
) -> None:
    """Segment CASEs: case folders, or a folder of them.

    Writes one CASE.nii.gz each, on the scan's own grid, into --out.
    """
    if resume and overwrite:
        raise click.UsageError("--resume keeps masks and --overwrite replaces them: choose one.")
    from brats_train.inference import predict as prediction
    from brats_train.inference.ensemble import load_ensemble
    from brats_train.runtime.distributed import process_group, same_error_on_all_ranks
    from brats_train.training.run_dir import RunDir

    needs_run = run_dirs or checkpoint in ("best", "last")
    runs = [RunDir.existing(path) for path in run_dirs or (None,)] if needs_run else []
    job = prediction.PredictionJob(
        data=cases,
        out_dir=out_dir,
        tta=tta,
        probabilities=probabilities,
        resume=resume,
        overwrite=overwrite,
    )
    with process_group(device) as world:
        with same_error_on_all_ranks():
            ensemble = load_ensemble(checkpoint_paths(runs, checkpoint), world.device)
        progress = show_progress("Segmenting", "cases") if world.is_main else no_progress()
        try:
            with progress as report:
                outcome = prediction.predict(job, ensemble, world, report)
        except KeyboardInterrupt:
            if world.is_main:
                click.echo(
                    f"Interrupted. Masks in {out_dir} are kept; go on with --resume.", err=True
                )
            raise
        if not world.is_main:
            return
    for note in outcome.notes:
        tell(printable(note), prefix="Note: ")
    kept = f" ({len(outcome.kept)} more were there)" if outcome.kept else ""
    click.echo(f"{len(outcome.written)} masks in {out_dir}{kept}")
