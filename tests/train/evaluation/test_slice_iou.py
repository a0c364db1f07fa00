"""IoU of slices: exact at any size, of arrays and tensors alike, one rule for empty masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brats_train.evaluation.slice_iou import slice_ious


def masks(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    density = generator.random((*shape[:-2], 1, 1)) ** 3  # some slices are empty
    return generator.random(shape) < density, generator.random(shape) < density


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), shape=st.tuples(*[st.integers(1, 5)] * 4))
def test_equal_to_counting_one_by_one(seed: int, shape: tuple[int, int, int, int]) -> None:
    predicted, target = masks(seed, shape)
    found = slice_ious(predicted, target)
    assert found.dtype == np.float64
    assert found.shape == shape[:2]
    for b, k in np.ndindex(shape[:2]):
        p, t = predicted[b, k], target[b, k]
        union = (p | t).sum()
        assert found[b, k] == ((p & t).sum() / union if union else 1.0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), shape=st.tuples(*[st.integers(1, 5)] * 4))
def test_the_iou_of_the_loop_is_the_slice_iou_of_evaluation(
    seed: int, shape: tuple[int, int, int, int]
) -> None:
    predicted, target = masks(seed, shape)
    of_tensors = slice_ious(torch.from_numpy(predicted), torch.from_numpy(target))
    assert of_tensors.dtype == torch.float64
    assert np.array_equal(of_tensors.numpy(), slice_ious(predicted, target))


def test_an_empty_prediction_of_an_empty_truth_counts_one() -> None:
    predicted, target = np.zeros((3, 4, 4), bool), np.zeros((3, 4, 4), bool)
    predicted[1, 0, 0] = target[2, 0, 0] = True
    assert slice_ious(predicted, target).tolist() == [1, 0, 0]


def test_counts_beyond_float32_are_exact() -> None:
    # 2^24 + 1 is the first integer float32 cannot hold.
    full = torch.ones(1, 2**24 + 1, dtype=torch.bool)
    all_but_one = full.clone()
    all_but_one[0, 0] = False
    assert slice_ious(all_but_one, full).item() == 2**24 / (2**24 + 1)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_nothing_waits_for_the_device(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if device == "cpu":
        # Tensors without storage: whatever reads a value raises.
        predicted = torch.empty(2, 3, 4, 4, dtype=torch.bool, device="meta")
        assert slice_ious(predicted, predicted).shape == (2, 3)
        return
    predicted = torch.ones(2, 3, 4, 4, dtype=torch.bool, device=device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        slice_ious(predicted, predicted)
    finally:
        torch.cuda.set_sync_debug_mode("default")
