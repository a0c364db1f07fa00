"""Figures of every kind of run, and slices made fit to be looked at."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from brats_cache.imaging.bounding_box import bounding_box
from brats_train.evaluation.calibration import probability_table
from brats_train.report.display import (
    choose_slices,
    choose_window,
    on_scan_grid,
    scale_bar_mm,
    to_grey,
    without_tumour,
)
from brats_train.report.figures import (
    draw_reliability,
    draw_scores,
    draw_sizes,
)
from brats_train.report.gallery import CaseSlices
from brats_train.report.palette import TISSUES
from brats_train.report.panels import draw_panels, draw_predictions
from brats_train.training.rendering import FORMATS, darken, render

NAN = math.nan
SVG = "{http://www.w3.org/2000/svg}"
FORMULA = r"$x_{1}$ \frac <b>&"


def slices_of(regions: tuple[str, ...] = ("wt",), case: str = "case") -> CaseSlices:
    """Four slices of a round head with a square tumour; the prediction lies three pixels aside."""
    rows, columns = np.mgrid[:40, :36]
    head = (rows - 20) ** 2 + (columns - 18) ** 2 < 15**2
    images = np.broadcast_to(head * np.uint8(120), (4, 2, 40, 36)).copy()
    truth = np.zeros((4, len(regions), 40, 36), bool)
    truth[2, :, 15:25, 12:20] = True
    return CaseSlices(
        case=case,
        modalities=("flair", "t1ce"),
        z_indices=np.array([3, 5, 7, 9]),
        depth=12,
        is_whole=False,
        images=images,
        windows=np.array([[0.0, 160.0], [0.0, 160.0]]),
        regions=regions,
        prediction=np.roll(truth, 3, axis=3),
        truth=truth,
        known=regions,
        pixel_mm=(2.0, 2.0),
    )


def drawn(figure: Figure, dpi: int = 100) -> np.ndarray:
    """The figure as pixels, made without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png = render(figure, ("png",), dpi)["png"]
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=60),
    st.integers(1, 20),
    st.integers(0, 59),
)
def test_chosen_slices_hold_something_and_the_peak(
    areas: list[int], limit: int, number: int
) -> None:
    z_indices = np.arange(len(areas)) * 2 + 7
    sizes = np.array(areas)
    peak = int(z_indices[sizes.argmax()])
    chosen = choose_slices(z_indices, sizes, peak, limit)
    held = z_indices[sizes > 0] if sizes.any() else z_indices
    assert len(chosen) == min(limit, len(held))
    assert (np.diff(chosen) > 0).all()
    assert set(chosen) <= set(held)
    assert peak in chosen


@pytest.mark.parametrize(
    ("side", "fit"), [(240, "resize"), (64, "resize"), (256, "resize"), (240, "pad")]
)
def test_the_head_has_no_rim_and_outside_is_black(side: int, fit: str) -> None:
    """Tissue of -1 and -2 in z-scored slices, where 0 outside the head would be the brightest."""
    rows, columns = np.mgrid[:side, :side]
    middle = side / 2
    distance = np.hypot(rows - middle, columns - middle) / side
    native = np.where(distance < 0.2, -1.0, -2.0) * (distance < 0.35)
    if fit == "pad":
        border = (256 - side) // 2
        fitted = np.pad(native, border)
    else:
        fitted = cv2.resize(native, (256, 256), interpolation=cv2.INTER_LINEAR)
    images = fitted.astype(np.float16)[None, None]
    back, brain = on_scan_grid(images, side, side, fit)
    assert back.shape == (1, 1, side, side)
    assert not brain[0][distance > 0.37].any()
    assert brain[0][distance < 0.33 - 2 / side].all()
    assert back[0, 0][brain[0]].max() <= -0.99
    grey = to_grey(back, brain)
    assert (grey[0, 0] > 0).tolist() == brain[0].tolist()
    assert grey[0, 0][distance < 0.15].min() > grey[0, 0][brain[0] & (distance > 0.25)].max()
    top, left = bounding_box(grey[0, 0])
    assert (grey[:, :, top, left] > 0).sum() == brain.sum()
    assert top.stop - top.start < side
    assert left.stop - left.start < side


@pytest.mark.parametrize(
    "dice",
    [{"wt": [0.9]}, {"wt": [0.5] * 9, "tc": [0.1, NAN, 0.3], "et": [NAN, NAN]}, {"et": [0.0, 1.0]}],
)
def test_scores_have_a_dot_a_case(dice: Mapping[str, list[float]]) -> None:
    distances = {region: [374 * (1 - value) for value in values] for region, values in dice.items()}
    figure = draw_scores({"dice": dice, "hd95": distances})
    drawn(figure)
    for axes, values in zip(figure.axes, (dice, distances), strict=True):
        known = [v for one in values.values() for v in one if not math.isnan(v)]
        dots = [line for line in axes.lines if line.get_marker() in ("o", "s", "^")]
        assert sorted(x for line in dots for x in line.get_xdata()) == pytest.approx(sorted(known))
        low, high = axes.get_xlim()
        assert all(low <= value <= high for value in known)


@pytest.mark.parametrize("volumes", [[12.0], [0.0, 3.0, 150.0], [0.0, 0.0]])
def test_every_case_stands_at_its_size(volumes: list[float]) -> None:
    scores = [1.0, 0.0, 0.5][: len(volumes)]
    figure = draw_sizes({"wt": (volumes, scores)})
    drawn(figure)
    (axes,) = figure.axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    shown = sorted(x for line in dots for x in line.get_xdata())
    held = sorted(volume for volume in volumes if volume)
    assert shown[len(shown) - len(held) :] == held
    assert len(shown) == len(volumes)
    assert all(x < min(held, default=math.inf) for x in shown[: len(shown) - len(held)])
    low, high = axes.get_xlim()
    assert low < shown[0]
    assert shown[-1] < high


def test_a_calibrated_model_lies_on_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(200_000).astype(np.float32)
    table = probability_table(probability, rng.random(200_000) < probability)
    figure = draw_reliability(
        {"wt": table, "et": probability_table(np.zeros(9), np.zeros(9, bool))}
    )
    drawn(figure)
    curve = figure.axes[0].lines[1]
    assert len(curve.get_xdata()) == 16
    assert np.allclose(curve.get_xdata(), curve.get_ydata(), atol=0.02)


@pytest.mark.parametrize("regions", [("wt",), ("wt", "tc", "et")])
def test_panels_show_misses_and_false_alarms_in_their_colours(regions: tuple[str, ...]) -> None:
    figure = draw_panels([("best", slices_of(regions)), ("worst", slices_of(regions))])
    pixels = drawn(figure)
    blue, green, red = (pixels[..., channel].astype(int) for channel in range(3))
    found = {
        "missed": ((red > blue + 40) & (red > green + 40)).sum(),
        "false alarm": ((red > blue + 60) & (green > blue + 60)).sum(),
    }
    assert all(count > 500 for count in found.values()), found
    assert pixels[..., 0].size * 0.2 < (pixels.max(axis=2) < 10).sum()  # black around the heads
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    tissues = {name for label, (name, _) in TISSUES.items() if label < 4}
    roles = {"truth", "prediction", "missed (FN)", "false alarm (FP)", "found (TP)"}
    assert named - {""} == roles | (tissues if len(regions) == 3 else set())


def test_every_slice_tells_modality_sides_and_scale() -> None:
    plain = slices_of()
    for figure in (draw_panels([("best", plain)]), draw_predictions([plain, plain])):
        drawn(figure)
        for axes in figure.axes:
            places = {text.get_text(): text.get_position() for text in axes.texts}
            assert places["R"][0] < 0.1 < 0.9 < places["L"][0]
            assert {"FLAIR", "T1ce"} & set(places)
            # A line of so many pixels of 2 mm as the words beside it say.
            (bar,) = (line for line in axes.lines if line.get_transform() == axes.transAxes)
            shown = 2 * np.ptp(axes.get_xlim()) * np.ptp(bar.get_xdata())
            (length,) = (float(text.split()[0]) for text in places if text.endswith(" cm"))
            assert shown == pytest.approx(10 * length)
    assert [scale_bar_mm(width) for width in (12, 64, 145, 400)] == [10, 20, 50, 100]


@given(st.floats(0.5, 50), st.floats(0.01, 0.8))
def test_a_window_shows_the_brain_alike_whatever_the_tumour(
    brightness: float, share: float
) -> None:
    beside = np.linspace(1, 2, 1001)
    tumour = np.full(int(share / (1 - share) * beside.size), 2 + brightness)
    low, high = choose_window(np.concatenate([beside, tumour]), beside)
    assert low == pytest.approx(1.01)
    median = (1.5 - low) / (high - low)
    assert median >= 0.3 - 1e-9  # a huge or very bright tumour does not darken the brain
    assert high > 2  # the brain itself is never cut off by a brighter tumour
    alone = choose_window(beside, beside)
    assert alone == pytest.approx((1.01, 1.995), abs=0.01)


def test_a_mask_of_the_whole_brain_leaves_a_window() -> None:
    brain = np.ones((2, 5, 5), bool)
    assert without_tumour(brain, brain).all()
    small = np.zeros_like(brain)
    small[0, 0, 0] = True
    assert (without_tumour(brain, small) == ~small).all()
    low, high = choose_window(np.zeros(0), np.zeros(0))
    assert low < high
    low, high = choose_window(np.ones(9), np.ones(9))
    assert low < high


def test_panels_of_an_empty_truth_and_an_empty_prediction_can_be_drawn() -> None:
    plain = slices_of()
    nothing = np.zeros_like(plain.prediction)
    drawn(draw_panels([("miss", replace(plain, prediction=nothing))]))
    drawn(draw_panels([("nothing there", replace(plain, prediction=nothing, truth=nothing))]))
    drawn(draw_predictions([replace(plain, truth=None), replace(plain, prediction=nothing)]))


def test_one_modality_takes_four_columns() -> None:
    plain = slices_of()
    alone = replace(
        plain, modalities=("flair",), images=plain.images[:, :1], windows=plain.windows[:1]
    )
    assert len(draw_panels([("best", alone)]).axes) == 4
    assert len(draw_panels([("best", plain)]).axes) == 5
    # For a phone, two columns: the sixth cell of a case stays empty.
    narrow = draw_panels([("best", plain), ("worst", plain)], is_narrow=True)
    assert [axes.get_visible() for axes in narrow.axes] == 2 * [True, True, True, True, True, False]
    assert narrow.get_figwidth() < 5 < narrow.get_figheight()
    assert len(draw_predictions([plain] * 3, is_narrow=True).axes) == 6


def test_a_name_is_shown_as_it_is() -> None:
    for figure in (
        draw_panels([("best", slices_of(case=FORMULA))]),
        draw_predictions([slices_of(case=FORMULA)]),
    ):
        drawn(figure)
        assert FORMULA in figure.axes[0].get_title(loc="left")


def test_equal_figures_give_equal_files_whose_text_is_text() -> None:
    """Editors of papers change labels, and find them by searching."""
    files = [render(draw_predictions([slices_of(case=FORMULA)]), FORMATS, 40) for _ in range(2)]
    assert files[0] == files[1]
    svg = files[0]["svg"].decode()
    told = {element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")}
    assert {FORMULA, "FLAIR", "R", "L", "2 cm", "prediction"} <= told
    assert files[0]["pdf"].startswith(b"%PDF")
    assert b"/Subtype /Type3" not in files[0]["pdf"]  # glyphs as drawings, no text
    large = render(draw_predictions([slices_of()]), ("png",), 80)["png"]
    widths = [
        cv2.imdecode(np.frombuffer(png, np.uint8), 0).shape[1] for png in (files[0]["png"], large)
    ]
    assert widths[1] == pytest.approx(2 * widths[0], abs=2)


def test_a_dark_figure_is_dark_but_for_its_ink() -> None:
    figure = draw_scores({"dice": {"wt": [0.2, 0.9]}, "hd95": {"wt": [3.0, 12.0]}})
    light = drawn(figure)
    darken(figure)
    dark = drawn(figure)
    assert dark.shape == light.shape
    assert np.median(dark) < 40
    assert np.median(light) > 250
    assert (dark.min(axis=2) > 200).sum() > 100
