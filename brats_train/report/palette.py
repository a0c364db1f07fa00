"""The colours of all pictures, a meaning each.

Outlines are truth and prediction; areas over a scan are what was missed, a false alarm or found;
and each tissue has a hue, which the region that reaches as far shares. Within each of these groups
the colours differ by at least 22 (CIE 1976) in normal vision and with each colour blindness as
Machado et al. (2009) simulate it; hatches, line styles and markers differ as well.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "FALSE_ALARM",
    "FOUND",
    "MISSED",
    "PREDICTION",
    "REGION_COLORS",
    "REGION_NAMES",
    "TISSUES",
    "TRUTH",
    "page_colors",
]

TRUTH, PREDICTION = "#56B4E9", "#E69F00"
MISSED, FALSE_ALARM, FOUND = "#FF4D6D", "#FFF44F", "#2EDDB0"
# Name and colour of each canonical label.
TISSUES: Mapping[int, tuple[str, str]] = {
    1: ("necrosis, non-enhancing core", "#9C5212"),
    2: ("oedema", "#3467DB"),
    3: ("enhancing tumour", "#D94FAE"),
    4: ("resection cavity", "#B9BEC6"),
}
REGION_NAMES: Mapping[str, str] = {
    "wt": "whole tumour",
    "tc": "tumour core",
    "et": "enhancing tumour",
}
# The whole tumour reaches as far as the oedema, the core as far as the necrosis.
REGION_COLORS: Mapping[str, str] = {"wt": TISSUES[2][1], "tc": TISSUES[1][1], "et": TISSUES[3][1]}


def page_colors() -> dict[str, str]:
    """The colours of outlines and areas by name, for the scripts of a page."""
    return {
        "truth": TRUTH,
        "prediction": PREDICTION,
        "missed": MISSED,
        "alarm": FALSE_ALARM,
        "found": FOUND,
    }
