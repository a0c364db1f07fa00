"""Slices equal an independent float64 reference, masks exactly; nothing overflows in silence."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.imaging.preprocess import (
    FITS,
    Preparation,
    brain_of,
    fit_masks,
    measure,
    nearest_index,
    prepare_images,
    restore_masks,
)

HALF_ULP = 2.0**-11  # float16 keeps 11 bits
sizes = st.integers(1, 70)


def prepared(volumes: list[np.ndarray], preparation: Preparation) -> np.ndarray:
    brain = brain_of(volumes)
    normalizations = [measure(volume[brain], preparation.normalize) for volume in volumes]
    rows = range(len(brain))
    return prepare_images(volumes, brain, normalizations, preparation, rows)


def reference(volumes: list[np.ndarray], preparation: Preparation) -> np.ndarray:
    """The same in float64, in other words and with torch's interpolation."""
    doubles = np.stack([volume.astype(np.float64) for volume in volumes])
    brain = (doubles != 0).any(axis=0)
    for double in doubles:
        inside = double[brain]
        if preparation.normalize == "zscore":
            result = (double - inside.mean()) / np.sqrt(((inside - inside.mean()) ** 2).mean())
        elif preparation.normalize == "percentile":
            low, high = np.quantile(inside, [0.005, 0.995])
            result = ((double - low) / (high - low)).clip(0, 1)
        else:
            result = double.copy()
        double[...] = np.where(brain, result, 0)
    slices = torch.from_numpy(doubles).transpose(0, 1)
    size = (preparation.size, preparation.size)
    return torch.nn.functional.interpolate(
        slices, size, mode="bilinear", align_corners=False, antialias=False
    ).numpy()


def assert_within_rounding(images: np.ndarray, wanted: np.ndarray) -> None:
    assert images.dtype == np.float16
    assert np.isfinite(images).all()
    scale = np.abs(wanted).max()
    error = np.abs(images.astype(np.float64) - wanted)
    # float16's rounding, and float32's along the way.
    assert (error <= HALF_ULP * np.abs(wanted) + 4e-6 * scale + 2.0**-24).all(), error.max()


@given(
    st.tuples(st.integers(1, 3), sizes, sizes),
    st.integers(16, 64),
    st.sampled_from(["zscore", "percentile", "none"]),
    st.sampled_from([np.int16, np.uint16, np.uint8, np.float32]),
    st.integers(0, 2**31),
)
def test_images_agree_with_a_float64_reference(
    shape: tuple[int, int, int], size: int, normalize: str, dtype: type, seed: int
) -> None:
    random = np.random.default_rng(seed)
    volumes = [(random.random(shape) * 200).astype(dtype) for _ in range(2)]
    for volume in volumes:
        volume[random.random(shape) < 0.3] = 0
        volume[0, 0, 0] = 250  # some spread, whatever the draw
    if volumes[0].size < 3:
        return
    volumes[0][-1, -1, -1] = volumes[1][-1, -1, -1] = 3
    if dtype == np.int16:
        volumes[1] = volumes[1] - 90
    preparation = Preparation(modalities=("t1", "t2"), size=size, normalize=normalize)
    assert_within_rounding(prepared(volumes, preparation), reference(volumes, preparation))


@pytest.mark.parametrize("normalize", ["zscore", "percentile"])
@pytest.mark.parametrize(
    ("center", "spread", "dtype"),
    [(60000, 3, np.uint16), (-32000, 2, np.int16), (1e6, 5, np.float32), (0.002, 1e-5, np.float32)],
)
def test_a_small_spread_around_large_values_keeps_its_digits(
    center: float, spread: float, dtype: type, normalize: str
) -> None:
    values = np.random.default_rng(0).normal(center, spread, (2, 40, 40)).astype(dtype)
    values[:, :4] = 0
    preparation = Preparation(modalities=("t1",), size=40, normalize=normalize)
    assert_within_rounding(prepared([values], preparation), reference([values], preparation))


def test_percentiles_of_integers_that_lie_far_apart() -> None:
    values = np.array([-30000] * 198 + [30000] * 2, np.int16)
    found = measure(values, "percentile")
    low, high = np.quantile(values.astype(np.float64), [0.005, 0.995])
    assert (found.center, found.scale) == (low, 1 / (high - low))


def test_already_normalised_images_are_normalised_again_alike() -> None:
    values = np.random.default_rng(0).normal(0, 1, (2, 32, 32)).astype(np.float32)
    values[:, :8] = 0
    preparation = Preparation(modalities=("t1",), size=32)
    once = prepared([values * 300 + 40 * (values != 0)], preparation)
    assert np.allclose(prepared([values], preparation), once, atol=2e-3)


def test_brain_is_what_is_not_zero_in_any_modality() -> None:
    first, second = np.zeros((2, 3, 3), np.int16), np.zeros((2, 3, 3), np.float32)
    first[0, 0, 0], second[1, 2, 2], second[0, 1, 1] = -5, 1e-20, -0.0
    brain = brain_of([first, second])
    assert np.argwhere(brain).tolist() == [[0, 0, 0], [1, 2, 2]]
    first[1, 1, 1] = 7
    assert np.count_nonzero(brain) == 2  # a copy, not a view


def test_outside_the_brain_is_zero_whatever_the_statistics() -> None:
    volume = np.full((1, 20, 20), 0, np.int16)
    volume[0, 5:15, 5:15] = np.random.default_rng(0).integers(900, 999, (10, 10))
    for normalize in ("zscore", "percentile", "none"):
        preparation = Preparation(modalities=("t1",), size=20, fit="pad", normalize=normalize)
        images = prepared([volume], preparation)
        assert not images[0, 0][volume[0] == 0].any()


@pytest.mark.parametrize("normalize", ["zscore", "percentile"])
@pytest.mark.parametrize(
    "values",
    [
        np.full(100, 7, np.int16),
        np.full(100, 1e8, np.float32) + np.arange(100, dtype=np.float32),
        np.arange(1, 101, dtype=np.float32) * 1e-39,
        np.arange(1, 101, dtype=np.float32) * 1e33,
        np.ones(1, np.uint8),
    ],
)
def test_what_has_no_spread_or_overflows_is_refused(values: np.ndarray, normalize: str) -> None:
    with pytest.raises(ValueError, match=r"same value|overflow"):
        measure(values, normalize)


def test_unnormalised_values_beyond_float16_are_refused() -> None:
    assert measure(np.array([-65504.0, 65504.0]), "none").scale == 1
    for value in (65505, -65536, 1e9):
        with pytest.raises(ValueError, match="float16"):
            measure(np.array([1.0, value]), "none")


@given(st.integers(2, 3000), st.integers(0, 2**31))
def test_a_zscore_cannot_overflow(num: int, seed: int) -> None:
    values = np.random.default_rng(seed).pareto(0.3, num)
    values[0] = values.max() * 1e6
    values = np.minimum(values, 1e25).astype(np.float32)
    found = measure(values, "zscore")
    assert np.abs((values.astype(np.float64) - found.center) * found.scale).max() <= num**0.5 + 1e-6


def test_unknown_normalisation() -> None:
    with pytest.raises(ValueError, match="zscore"):
        measure(np.arange(5.0), "minmax")


# Masks


@given(st.integers(1, 300), st.integers(1, 300))
def test_nearest_index_is_the_pixel_that_holds_the_centre(source: int, target: int) -> None:
    index = nearest_index(source, target)
    for i in (0, target // 3, target - 1):
        assert index[i] == int(Fraction(2 * i + 1, 2 * target) * source)


@given(sizes, sizes, st.integers(16, 80))
def test_masks_agree_with_torch_on_the_grid_of_the_images(
    height: int, width: int, size: int
) -> None:
    masks = np.random.default_rng(height).integers(0, 5, (2, height, width)).astype(np.uint8)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(masks)[None].double(), (size, size), mode="nearest-exact"
    )
    fitted = fit_masks(masks, size, "resize")
    differs = fitted != wanted[0].numpy()
    # torch computes in floats: it may differ where a centre lies on the border of two pixels.
    rows = [(2 * i + 1) * height % (2 * size) == 0 for i in range(size)]
    columns = [(2 * i + 1) * width % (2 * size) == 0 for i in range(size)]
    on_border = np.logical_or.outer(rows, columns)
    assert not differs[:, ~on_border].any()


@given(sizes, sizes, st.integers(70, 90), st.sampled_from(FITS))
def test_what_was_not_made_smaller_comes_back_exactly(
    height: int, width: int, size: int, fit: str
) -> None:
    masks = np.random.default_rng(width).integers(0, 5, (2, height, width)).astype(np.uint8)
    fitted = fit_masks(masks, size, fit)
    assert fitted.shape == (2, size, size)
    assert np.array_equal(restore_masks(fitted, height, width, fit), masks)


def test_what_was_made_smaller_cannot_come_back() -> None:
    with pytest.raises(ValueError, match="cannot be recovered"):
        restore_masks(np.zeros((1, 16, 16), np.uint8), 17, 10, "resize")


# Fit


@given(st.integers(1, 40), st.integers(1, 40))
def test_padding_keeps_every_voxel_and_centres(height: int, width: int) -> None:
    volume = np.random.default_rng(height).integers(1, 2000, (2, height, width)).astype(np.int16)
    preparation = Preparation(modalities=("t1",), size=40, fit="pad", normalize="none")
    images = prepared([volume], preparation)
    top, left = (40 - height) // 2, (40 - width) // 2
    window = images[:, 0, top : top + height, left : left + width]
    assert np.array_equal(window, volume)
    assert np.count_nonzero(images) == volume.size
    assert np.array_equal(fit_masks(volume, 40, "pad"), images[:, 0])


def test_images_and_masks_lie_on_one_grid() -> None:
    block = np.zeros((1, 240, 200), np.uint8)
    block[0, 100:140, 40:100] = 1
    preparation = Preparation(modalities=("t1",), size=256, normalize="none")
    images = prepared([block], preparation)[0, 0].astype(np.float64)
    mask = fit_masks(block, 256, "resize")[0]
    grid = np.indices((256, 256))
    centres = [(grid * picture).sum(axis=(1, 2)) / picture.sum() for picture in (images, mask)]
    assert np.allclose(centres[0], centres[1], atol=0.3)
    assert np.array_equal(images > 0.5, mask == 1)


def test_any_rows_in_any_layout_of_memory() -> None:
    volume = np.random.default_rng(0).integers(0, 900, (7, 30, 20)).astype(np.int16)
    preparation = Preparation(modalities=("t1",), size=32)
    whole = prepared([volume], preparation)
    flipped = np.ascontiguousarray(volume[::-1, :, ::-1])[::-1, :, ::-1]
    brain = brain_of([flipped])
    normalization = measure(flipped[brain], "zscore")
    some = prepare_images([flipped], brain, [normalization], preparation, [5, 0, 5])
    assert np.array_equal(some, whole[[5, 0, 5]])
