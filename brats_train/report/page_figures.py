"""The figures of the report page, with links to their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from brats_train.report.pictures import Caption, Picture, figure_html

__all__ = ["RunFigure", "figures_html"]

_CAPTIONS = {
    "curves": Caption(
        "Training: the paper’s figures 14 to 17",
        "Combined loss, its two parts and the mean slice IoU by epoch, on training and validation "
        "slices; learning rate and speed. The dotted line marks the epoch whose weights were kept.",
        is_wide=True,
    ),
    "panels": Caption(
        "Validation cases: the paper’s figure 12",
        "Best, median and worst case, in the slice where the true tumour is largest. Then what was "
        "missed (red), a false alarm (yellow, hatched) and found (green line).",
        is_wide=True,
    ),
    "tests": Caption(
        "Test cases: the paper’s figure 13",
        "Predictions for cases without a mask, in the slice where the predicted tumour is largest.",
        is_wide=True,
    ),
    "scores": Caption(
        "Scores by case",
        "A dot is a case, a box reaches from quartile to quartile, whiskers hold 90 % of the "
        "cases, the diamond is the mean.",
        is_wide=True,
    ),
    "sizes": Caption(
        "Score and size", "Dice of each case against the true volume of the region.", is_wide=False
    ),
    "reliability": Caption(
        "Reliability",
        "Share of voxels of a predicted probability that are tumour; on the diagonal the model is "
        "calibrated. Below, the number of voxels.",
        is_wide=False,
    ),
}
_OF_PAPER = ("curves", "panels", "tests")


@dataclass(frozen=True, kw_only=True)
class RunFigure:
    """A figure of the page.

    Attributes:
        name: One of `build.FIGURES`.
        picture: Its images.
        files: Names of its files in the run's figures folder.
    """

    name: str
    picture: Picture
    files: tuple[str, ...]


def figures_html(figures: Sequence[RunFigure], *, of_paper: bool) -> str:
    """The figures that the paper has too, or the others, as HTML."""
    shown = (_figure(one) for one in figures if (one.name in _OF_PAPER) == of_paper)
    return f'<div class="figures">{"".join(shown)}</div>'


def _figure(figure: RunFigure) -> str:
    uri = figure.picture.uri
    links = []
    for name in figure.files:
        kind = name.rpartition(".")[2]
        # Charts can be saved from the page itself; scans lie in the run's folder alone.
        is_here = kind == "svg" and uri.startswith("data:image/svg+xml")
        about = f'download="{name}" href="{uri}"' if is_here else f'href="figures/{name}"'
        links.append(f"<a {about}>{kind.upper()}</a>")
    return figure_html(
        _CAPTIONS[figure.name],
        figure.picture,
        level=3,
        links=f" <span class=files>{' '.join(links)}</span>",
    )
