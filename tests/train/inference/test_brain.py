"""The brain told by prepared slices, against the brain they were prepared from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from brats_cache.imaging.preprocess import Normalization, Preparation, prepare_images
from brats_train.inference.brain import brain_of_images

AS_IT_IS = Normalization(center=0.0, scale=1.0)


def prepared(brain: np.ndarray, size: int, fit: str) -> np.ndarray:
    """Slices of two modalities, of which one or the other is not 0 in the brain."""
    generator = np.random.default_rng(0)
    volume = generator.uniform(1, 2, brain.shape).astype(np.float32)
    is_first = generator.random(brain.shape) < 0.5
    preparation = Preparation(modalities=("t1ce", "flair"), size=size, fit=fit, normalize="none")
    return prepare_images(
        [np.where(brain & is_first, volume, 0), np.where(brain & ~is_first, volume, 0)],
        brain,
        [AS_IT_IS, AS_IT_IS],
        preparation,
        np.arange(len(brain)),
    )


def closed(brain: np.ndarray) -> np.ndarray:
    """The brain without gaps that are one pixel wide: outside is what a 2 x 2 block fits into."""
    outside = np.pad(~brain, ((0, 0), (1, 1), (1, 1)), mode="edge")
    blocks = outside[:, 1:, 1:] & outside[:, 1:, :-1] & outside[:, :-1, 1:] & outside[:, :-1, :-1]
    return ~(blocks[:, 1:, 1:] | blocks[:, 1:, :-1] | blocks[:, :-1, 1:] | blocks[:, :-1, :-1])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    height=st.integers(3, 31),
    width=st.integers(3, 31),
    density=st.floats(0, 1),
)
def test_all_but_gaps_of_one_pixel_comes_back(
    seed: int, height: int, width: int, density: float
) -> None:
    brain = np.random.default_rng(seed).random((2, height, width)) < density
    found = brain_of_images(prepared(brain, 32, "resize"), height, width, "resize")
    assert np.array_equal(found, closed(brain))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(20, 32))
def test_slices_that_were_padded_give_it_back_exactly(seed: int, size: int) -> None:
    brain = np.random.default_rng(seed).random((2, 20, 17)) < 0.5
    found = brain_of_images(prepared(brain, size, "pad"), 20, 17, "pad")
    assert np.array_equal(found, brain)


@pytest.mark.parametrize("size", [16, 32, 48, 64])
def test_a_head_is_found_within_a_pixel_of_what_slices_keep(size: int) -> None:
    """Slices that were made smaller cannot tell more."""
    z, y, x = np.indices((4, 48, 48))
    brain = (y - 23.5) ** 2 + (x - 23.5) ** 2 < (14 + z) ** 2
    found = brain_of_images(prepared(brain, size, "resize"), 48, 48, "resize")
    if size >= 48:
        assert np.array_equal(found, brain)
    else:
        square = np.ones((1, 7, 7), bool)  # a prepared pixel and its neighbours
        assert not (found & ~ndimage.binary_dilation(brain, square)).any()
        assert not (ndimage.binary_erosion(brain, square) & ~found).any()


def test_the_sign_of_a_zero_does_not_make_a_brain() -> None:
    images = np.zeros((1, 2, 8, 8), np.float16)
    images[0, 1] = -0.0
    assert not brain_of_images(images, 6, 5, "resize").any()
