"""The figures of the report page, for a white and a dark page, with links to their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Picture", "figures_html"]

# Heading, text, whether it takes the whole width.
_CAPTIONS = {
    "curves": (
        "Training: the paper’s figures 14 to 17",
        "Combined loss, its two parts and the mean slice IoU by epoch, on training and validation "
        "slices; learning rate and speed. The dotted line marks the epoch whose weights were kept.",
        True,
    ),
    "panels": (
        "Validation cases: the paper’s figure 12",
        "Best, median and worst case, in the slice where the true tumour is largest. Then what was "
        "missed (red), a false alarm (yellow, hatched) and found (green line).",
        True,
    ),
    "tests": (
        "Test cases: the paper’s figure 13",
        "Predictions for cases without a mask, in the slice where the predicted tumour is largest.",
        True,
    ),
    "scores": (
        "Scores by case",
        "A dot is a case, a box reaches from quartile to quartile, whiskers hold 90 % of the "
        "cases, the diamond is the mean.",
        True,
    ),
    "sizes": ("Score and size", "Dice of each case against the true volume of the region.", False),
    "reliability": (
        "Reliability",
        "Share of voxels of a predicted probability that are tumour; on the diagonal the model is "
        "calibrated. Below, the number of voxels.",
        False,
    ),
}
_OF_PAPER = ("curves", "panels", "tests")
_DARK, _NARROW = "(prefers-color-scheme: dark)", "(max-width: 48rem)"  # of report.css


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure of the page.

    Attributes:
        name: One of `build.FIGURES`.
        uri: The image for a white page, as a data URI.
        dark_uri: The same for a dark page.
        narrow_uris: The same two for a phone, where the figure has a layout for one.
        files: Names of its files in the run's figures folder.
    """

    name: str
    uri: str
    dark_uri: str
    narrow_uris: tuple[str, str] | None
    files: tuple[str, ...]


def figures_html(pictures: Sequence[Picture], *, of_paper: bool) -> str:
    """The figures that the paper has too, or the others, as HTML."""
    shown = (_figure(one) for one in pictures if (one.name in _OF_PAPER) == of_paper)
    return f'<div class="figures">{"".join(shown)}</div>'


def _figure(picture: Picture) -> str:
    heading, text, is_wide = _CAPTIONS[picture.name]
    sources = [(_DARK, picture.dark_uri)]
    if picture.narrow_uris:
        light, dark = picture.narrow_uris
        sources = [(f"{_NARROW} and {_DARK}", dark), (_NARROW, light), *sources]
    others = "".join(f'<source media="{media}" srcset="{escape(uri)}">' for media, uri in sources)
    image = (
        f'<picture>{others}<img src="{escape(picture.uri)}" '
        f'alt="{escape(heading)}: {escape(text)}"></picture>'
    )
    links = []
    for name in picture.files:
        kind = name.rpartition(".")[2]
        # Charts can be saved from the page itself; scans lie in the run's folder alone.
        is_here = kind == "svg" and picture.uri.startswith("data:image/svg+xml")
        about = f'download="{name}" href="{picture.uri}"' if is_here else f'href="figures/{name}"'
        links.append(f"<a {about}>{kind.upper()}</a>")
    return (
        f"<figure{' class=wide' if is_wide else ''}><h3>{escape(heading)}</h3>{image}"
        f"<figcaption>{escape(text)} <span class=files>{' '.join(links)}</span></figcaption>"
        "</figure>"
    )
