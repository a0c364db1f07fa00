"""Counts on the device: exact at any size, additive over batches, one rule for empty masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brats_train.evaluation.metrics import slice_iou
from brats_train.training.validation import iou_from_counts, overlap_counts


def masks(seed: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(shape, generator=generator) < 0.4 for _ in range(2))  # type: ignore[return-value]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), shape=st.tuples(*[st.integers(1, 5)] * 4))
def test_equal_to_counting_one_by_one(seed: int, shape: tuple[int, int, int, int]) -> None:
    predicted, target = masks(seed, shape)
    found = overlap_counts(predicted, target)
    for b, k in np.ndindex(shape[:2]):
        p, t = predicted[b, k].numpy(), target[b, k].numpy()
        assert [int(count[b, k]) for count in found] == [(p & t).sum(), p.sum(), t.sum()]


def test_uint8_targets_count_as_bool_ones() -> None:
    predicted, target = masks(1, (2, 3, 9, 7))
    for as_bool, as_uint8 in zip(
        overlap_counts(predicted, target), overlap_counts(predicted, target.byte()), strict=True
    ):
        assert as_uint8.dtype == torch.int64
        assert torch.equal(as_bool, as_uint8)


def test_counts_beyond_float32_are_exact() -> None:
    # 2^24 + 1 is the first integer float32 cannot hold.
    full = torch.ones(1, 1, 1, 2**24 + 1, dtype=torch.bool)
    assert [int(count) for count in overlap_counts(full, full)] == [2**24 + 1] * 3


def test_the_iou_of_the_loop_is_the_slice_iou_of_evaluation() -> None:
    predicted, target = masks(2, (6, 1, 8, 8))
    predicted[0], target[:2] = False, False
    counts = overlap_counts(predicted, target)
    ious = iou_from_counts(*counts)
    assert ious.dtype == torch.float64
    assert ious[:2].flatten().tolist() == [1, 0]
    assert ious.mean().item() == pytest.approx(
        slice_iou(*(count[:, 0].numpy() for count in counts)), abs=1e-15
    )


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_nothing_waits_for_the_device(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if device == "cpu":
        # Tensors without storage: whatever reads a value raises.
        predicted = torch.empty(2, 3, 4, 4, dtype=torch.bool, device="meta")
        assert iou_from_counts(*overlap_counts(predicted, predicted)).shape == (2, 3)
        return
    predicted = torch.ones(2, 3, 4, 4, dtype=torch.bool, device=device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        iou_from_counts(*overlap_counts(predicted, predicted))
    finally:
        torch.cuda.set_sync_debug_mode("default")
