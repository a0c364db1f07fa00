"""The colours: told apart by everyone, one source for all pages."""

from __future__ import annotations

import re
from itertools import combinations

import cv2
import numpy as np
import pytest

from brats_train.report.html import asset
from brats_train.report.palette import (
    FALSE_ALARM,
    FOUND,
    MISSED,
    PREDICTION,
    REGION_COLORS,
    TISSUES,
    TRUTH,
)

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
GROUPS = {
    "outlines": [TRUTH, PREDICTION],
    "errors": [MISSED, FALSE_ALARM, FOUND],
    "tissues": [color for _, color in TISSUES.values()],
}


def linear(color: str) -> np.ndarray:
    parts = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(color: str, vision: str) -> np.ndarray:
    seen = np.clip(np.array(VISIONS[vision]) @ linear(color), 0, 1)
    return cv2.cvtColor(seen.astype(np.float32)[None, None], cv2.COLOR_LRGB2Lab)[0, 0]


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("group", GROUPS)
def test_colours_of_a_group_differ_for_everyone(group: str, vision: str) -> None:
    for one, other in combinations(GROUPS[group], 2):
        assert np.linalg.norm(lab(one, vision) - lab(other, vision)) > 21, (one, other)


def test_no_colour_has_two_meanings() -> None:
    colors = [color for group in GROUPS.values() for color in group]
    for one, other in combinations(colors, 2):
        assert np.linalg.norm(lab(one, "normal") - lab(other, "normal")) > 30, (one, other)
    assert set(REGION_COLORS.values()) < set(GROUPS["tissues"])


@pytest.mark.parametrize("page", ["report.css", "report.js", "view.css", "view.js", "picture.js"])
def test_pages_take_their_colours_from_the_palette(page: str) -> None:
    written = re.findall(r"#[0-9a-fA-F]{6}\b", asset(page).decode())
    colors = {color.lower() for group in GROUPS.values() for color in group}
    assert not colors & {color.lower() for color in written}
