"""The command `brats phantom`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from brats_cache.common.errors import print_message
from brats_cache.common.progress import show_progress
from brats_cache.synthetic.write_phantom import write_phantom

__all__ = ["phantom"]


@click.command("phantom")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--cases", default=24, show_default=True, help="Cases with masks.")
@click.option("--test-cases", default=4, show_default=True, help="Cases without masks.")
@click.option("--seed", default=0, show_default=True, help="The same seed makes the same bytes.")
@click.option("--gz/--no-gz", default=False, show_default=True, help="Write .nii.gz.")
@click.option("--shape", default="240x240x155", show_default=True, help="Voxels along X, Y and Z.")
@click.option("--workers", type=click.IntRange(1), help="Processes; as many as cores by default.")
def phantom(
    out: Path, cases: int, test_cases: int, seed: int, gz: bool, shape: str, workers: int | None
) -> None:
    """Make synthetic cases shaped and named like BraTS 2020 in folder OUT."""
    name = shlex.quote(str(out))
    try:
        with show_progress("Making", "cases") as report:
            write_phantom(
                out,
                num_cases=cases,
                num_test_cases=test_cases,
                seed=seed,
                gz=gz,
                shape=_parse_shape(shape),
                workers=workers,
                progress=report,
            )
    except KeyboardInterrupt:
        print_message(f"Interrupted. {out} is incomplete: remove it, or name another folder.")
        raise
    click.echo(f"{cases + test_cases} cases in {out}. Next: brats build-cache {name}")


def _parse_shape(text: str) -> tuple[int, int, int]:
    parts = text.replace(",", "x").split("x")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise click.BadParameter(f"{text!r}: expected X x Y x Z, such as 240x240x155.")
    x, y, z = (int(part) for part in parts)
    return x, y, z
