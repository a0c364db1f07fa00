"""Matplotlib figures as files: text stays text, and equal figures give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Collection
from typing import Any

import matplotlib
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.spines import Spine
from matplotlib.text import Text

__all__ = ["DPI", "FORMATS", "INK", "darken", "render"]

DPI = 150
FORMATS = ("png", "svg", "pdf")
_SETTINGS: Any = {
    "svg.hashsalt": "brats",
    "svg.fonttype": "none",  # text that can be searched and edited
    "pdf.fonttype": 42,
}
INK = "#000000"  # of text and axes on a white page
_DARK_INK, _DARK_PAPER = "#e6e9ec", "#14181d"


def render(
    figure: Figure, formats: Collection[str] = ("png", "svg"), dpi: int = DPI
) -> dict[str, bytes]:
    """Renders a figure.

    Args:
        figure: What to render.
        formats: Of `FORMATS`.
        dpi: Pixels an inch of PNG, and of scans within the others.

    Returns:
        The files by format; equal figures give equal bytes.
    """
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")  # a second layout would move things a little
    box = figure.get_tightbbox().padded(0.1)  # "tight" would draw each figure a second time
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    files = {}
    for kind in sorted(formats):
        buffer = io.BytesIO()
        metadata: dict[str, Any] = dates.get(kind, {})
        with matplotlib.rc_context(_SETTINGS):
            figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata, bbox_inches=box)
        files[kind] = buffer.getvalue()
    return files


def darken(figure: Figure) -> None:
    """Turns a figure that was rendered, so that its ticks exist, into one for a dark page.

    What is black ink becomes light, and white paper dark; all other colours keep their meaning.
    """

    texts: list[Any] = figure.findobj(Text)
    lines: list[Any] = figure.findobj(Line2D)
    for artist in (*texts, *lines):
        if _is(artist.get_color(), INK):
            artist.set_color(_DARK_INK)
    spines: list[Any] = figure.findobj(Spine)
    for spine in spines:
        spine.set_edgecolor(_DARK_INK)
    boxes = [box for text in texts if (box := text.get_bbox_patch()) is not None]
    for patch in (figure.patch, *(axes.patch for axes in figure.axes), *boxes):
        if _is(patch.get_facecolor(), "#ffffff"):
            patch.set_facecolor(_DARK_PAPER)


def _is(color: Any, wanted: str) -> bool:
    is_none = isinstance(color, str) and color == "none"
    return not is_none and to_rgb(color) == to_rgb(wanted)
