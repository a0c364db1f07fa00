"""Matplotlib figures as files: text stays text, and equal figures give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.figure import Figure

__all__ = ["DPI", "FORMATS", "render", "theme"]

DPI = 150
FORMATS = ("png", "svg", "pdf")
_SETTINGS: Any = {
    "svg.hashsalt": "brats",
    "svg.fonttype": "none",  # text that can be searched and edited
    "pdf.fonttype": 42,
}
_INK, _PAPER = "#e6e9ec", "#14181d"
_DARK: Any = {
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), _PAPER),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), _INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), _INK),
    "grid.color": "#8a939c",
}


@contextmanager
def theme(*, dark: bool) -> Iterator[None]:
    """Figures drawn within are for a white page or a dark one; `text.color` is the ink of both."""
    with matplotlib.rc_context(_DARK if dark else {}):
        yield


def render(
    figure: Figure, formats: Sequence[str] = ("png", "svg"), dpi: int = DPI
) -> dict[str, bytes]:
    """Renders a figure.

    Args:
        figure: What to render.
        formats: Of `FORMATS`.
        dpi: Pixels an inch of PNG, and of scans within the others.

    Returns:
        The files by format; equal figures give equal bytes.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # a second layout would move things a little
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    files = {}
    for kind in formats:
        buffer = io.BytesIO()
        metadata: dict[str, Any] = dates.get(kind, {})
        with matplotlib.rc_context(_SETTINGS):
            figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata, bbox_inches="tight")
        files[kind] = buffer.getvalue()
    return files
