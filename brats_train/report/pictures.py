"""Figures as images of a page: for a white and a dark page, for a desk and a phone.

The browser chooses among them, so a page needs no script for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from brats_train.report.html import data_uri
from brats_train.training.rendering import DPI, darken, render

__all__ = ["Caption", "Drawing", "Picture", "draw_both", "figure_html", "picture_of"]

_WEBP_QUALITY = 85
_DARK, _NARROW = "(prefers-color-scheme: dark)", "(max-width: 48rem)"  # of report.css


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure, and the same for a phone where it is wide."""

    figure: Figure
    narrow: Figure | None = None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as images.

    Attributes:
        uri: For a white page, as a data URI.
        dark_uri: For a dark page.
        narrow_uris: The same two for a phone, where the figure has a layout for one.
    """

    uri: str
    dark_uri: str
    narrow_uris: tuple[str, str] | None


@dataclass(frozen=True)
class Caption:
    """The text at a figure.

    Attributes:
        heading: Above it.
        text: Below it, a sentence or two.
        is_wide: It takes the whole width of the page.
    """

    heading: str
    text: str
    is_wide: bool


def draw_both(draw: Callable[..., Figure], *values: Any) -> Drawing:
    """Draws a figure for a desk and for a phone; `draw` takes the keyword `is_narrow`."""
    return Drawing(figure=draw(*values), narrow=draw(*values, is_narrow=True))


def picture_of(
    drawing: Drawing, kind: str = "svg", content: bytes | None = None, dpi: int = DPI
) -> Picture:
    """Turns a figure into the images of a page. It is dark afterwards.

    Args:
        drawing: The figure.
        kind: "svg", or "png" for scans, which the page holds as WebP.
        content: The figure as a file of this kind, where there is one.
        dpi: Pixels an inch of that file.
    """
    light = content if content is not None else render(drawing.figure, {kind}, dpi)[kind]
    return Picture(
        uri=_image_uri(light, kind, dpi),
        dark_uri=_dark_uri(drawing.figure, kind, dpi),
        narrow_uris=_both_uris(drawing.narrow, kind) if drawing.narrow else None,
    )


def figure_html(caption: Caption, picture: Picture, *, level: int = 2, links: str = "") -> str:
    """Writes a figure as HTML.

    Args:
        caption: What stands at it.
        picture: Its images.
        level: Of the heading, from 1 to 6.
        links: HTML after the text.
    """
    heading, text = escape(caption.heading), escape(caption.text)
    sources = [(_DARK, picture.dark_uri)]
    if picture.narrow_uris:
        light, dark = picture.narrow_uris
        sources = [(f"{_NARROW} and {_DARK}", dark), (_NARROW, light), *sources]
    others = "".join(f'<source media="{media}" srcset="{escape(uri)}">' for media, uri in sources)
    image = f'<img src="{escape(picture.uri)}" alt="{heading}: {text}">'
    return (
        f"<figure{' class=wide' if caption.is_wide else ''}><h{level}>{heading}</h{level}>"
        f"<picture>{others}{image}</picture><figcaption>{text}{links}</figcaption></figure>"
    )


def _both_uris(figure: Figure, kind: str) -> tuple[str, str]:
    return _image_uri(render(figure, {kind})[kind], kind, DPI), _dark_uri(figure, kind, DPI)


def _dark_uri(figure: Figure, kind: str, dpi: int) -> str:
    """A figure that was rendered, darkened and rendered again, as a data URI."""
    darken(figure)
    return _image_uri(render(figure, {kind}, dpi)[kind], kind, dpi)


def _image_uri(content: bytes, kind: str, dpi: int) -> str:
    """A figure as a data URI: SVG, or WebP of at most `DPI`, a tenth of the size of PNG."""
    if kind == "svg":
        return data_uri(content, "image/svg+xml")
    png: Any = np.frombuffer(content, np.uint8)
    pixels = cv2.imdecode(png, cv2.IMREAD_COLOR)
    assert pixels is not None, "matplotlib writes whole PNG files"
    if dpi > DPI:
        share = DPI / dpi
        pixels = cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    _, webp = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY])
    return data_uri(webp.tobytes(), "image/webp")
