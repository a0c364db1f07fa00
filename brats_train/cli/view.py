"""The command `brats view`."""

from __future__ import annotations

from pathlib import Path

import click

from brats_cache.common.errors import BratsError
from brats_train.cli.options import PATH

__all__ = ["view"]


@click.command("view")
@click.argument("case", type=PATH)
@click.option(
    "--mask",
    "masks",
    multiple=True,
    type=PATH,
    help="A further mask to show, such as one of predict; repeatable, to flip between them.",
)
@click.option(
    "--label-scheme",
    default="auto",
    show_default=True,
    help="What the values of masks mean, see brats build-cache --help.",
)
@click.option("--out", type=PATH, metavar="FILE.html", help="Write the page instead of opening it.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port.  [default: a free one]",
)
def view(
    case: Path, masks: tuple[Path, ...], label_scheme: str, out: Path | None, port: int
) -> None:
    """Show a scan in the browser: three planes linked by a crosshair, the brain, masks over them.

    CASE is a case folder; its own mask is shown where it has one. The page is served to this
    machine alone until Ctrl-C; --out makes it one file that needs no network.
    """
    from brats_cache.common.files import write_atomically
    from brats_train.report.page_server import serve
    from brats_train.report.view import make_view

    if out is not None and out.exists():
        raise BratsError(f"{out}: exists already. Name another file, or remove it.")
    page = make_view(
        case, masks, label_scheme, lambda text: click.echo(f"Warning: {text}", err=True)
    )
    if out is not None:
        write_atomically(out, page)
        click.echo(str(out))
    else:
        serve(page, port, click.echo)
