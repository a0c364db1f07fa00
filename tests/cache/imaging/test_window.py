"""A window loses nothing: rows made from it are those of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from brats_cache.imaging.preprocess import (
    FITS,
    NORMALIZATIONS,
    Preparation,
    brain_of,
    measure,
    prepare_images,
)
from brats_cache.imaging.window import Window

sides = st.integers(1, 30)


@st.composite
def sparse(draw: st.DrawFn) -> np.ndarray:
    """(Z, Y, X) values, 0 outside a box somewhere and here and there within."""
    shape = (draw(st.integers(1, 12)), draw(sides), draw(sides))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    volume = np.zeros(shape, draw(st.sampled_from([np.int16, np.uint8, np.float32])))
    box = tuple(slice(*sorted(random.integers(0, side + 1, 2))) for side in shape)
    volume[box] = random.integers(0, 200, volume[box].shape)
    return volume


@given(sparse())
def test_the_box_is_the_smallest_that_holds_everything(volume: np.ndarray) -> None:
    window = Window.around(volume != 0)
    again = np.zeros_like(volume)
    again[window.box] = window.cut(volume)
    assert np.array_equal(again, volume)
    if volume.any():
        found = window.cut(volume) != 0
        for axis in range(3):
            others = tuple(other for other in range(3) if other != axis)
            ends = found.any(axis=others)
            assert ends[0]
            assert ends[-1]
    for z in range(len(volume)):
        index = window.index(z)
        assert volume[z].any() == (index is not None and volume[z].any())
        if index is not None:
            assert np.array_equal(window.cut(volume)[index], volume[(z, *window.box[1:])])


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("fit", FITS)
@given(volume=sparse(), offset=st.integers(0, 2))
def test_rows_are_the_same_to_the_last_bit(
    fit: str, normalize: str, volume: np.ndarray, offset: int
) -> None:
    """The sign of a zero included, which every voxel without a brain has."""
    volumes = [volume, np.where(volume, volume * 3 + 1, 0).astype(np.float32)]
    brain = brain_of(volumes)
    assume(brain.any())
    preparation = Preparation(modalities=("a", "b"), size=32, fit=fit, normalize=normalize)
    try:
        normalizations = [measure(one[brain], normalize) for one in volumes]
    except ValueError:  # no spread
        return
    window = Window.around(brain)
    cut = [window.cut(one) for one in volumes]
    rows = range(offset, len(volume))
    whole = prepare_images(volumes, brain, normalizations, preparation, rows)
    from_window = prepare_images(cut, window.cut(brain), normalizations, preparation, rows, window)
    assert np.array_equal(whole.view(np.uint16), from_window.view(np.uint16))
