"""Boxes around masks of any number of axes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from brats_cache.imaging.bounding_box import bounding_box


@given(mask=arrays(bool, array_shapes(max_dims=4, max_side=6)), margin=st.integers(0, 3))
def test_a_box_holds_all_and_no_more_than_its_margin(mask: np.ndarray, margin: int) -> None:
    box = bounding_box(mask, margin)
    assert mask[box].sum() == mask.sum()
    tight = bounding_box(mask)
    for axis, (wide, narrow, size) in enumerate(zip(box, tight, mask.shape, strict=True)):
        if mask.any():
            assert wide == slice(max(narrow.start - margin, 0), min(narrow.stop + margin, size))
            assert mask[tight].take(0, axis).any()
            assert mask[tight].take(-1, axis).any()
    if not mask.any():
        assert mask[box].size == 0
