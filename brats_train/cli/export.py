"""The command `brats export`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from brats_cache.common.errors import printable
from brats_train.cli.options import PATH, model_sources, run_option, say_loading

__all__ = ["export"]


@click.command("export")
@run_option
@click.option(
    "--format",
    "kind",
    type=click.Choice(["onnx", "hub"]),
    required=True,
    help="One ONNX file, or a folder in Hugging Face's layout.",
)
@click.option("--out", type=PATH, required=True, help="The file, FILE.onnx, or the folder.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
def export(run_dirs: tuple[Path, ...], kind: str, out: Path, overwrite: bool) -> None:
    """Write a model to share: all that predicting needs, in one file or folder.

    Several runs and the folds of a cross-validated run stay together and are averaged.
    """
    say_loading()
    from brats_train.export.export import ExportJob, export_hub, export_onnx

    job = ExportJob(sources=model_sources(run_dirs, "best"), out=out, overwrite=overwrite)
    write = export_onnx if kind == "onnx" else export_hub
    write(job, lambda text: click.echo(printable(text)))
    click.echo(f"Next: brats predict CASE --run {shlex.quote(printable(out))}")
