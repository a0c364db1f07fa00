"""What a run needs before its first step, as far as a CPU can show it."""

from __future__ import annotations

import pytest
import torch

from brats_train.runtime.precision import cudnn_autotuning
from brats_train.training.micro_batch import is_out_of_memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_every_way_of_running_out_of_memory_is_known(error: RuntimeError, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_convolutions_are_tuned_within_the_context_alone() -> None:
    cudnn = torch.backends.cudnn
    assert not cudnn.benchmark
    with cudnn_autotuning(True):
        assert cudnn.benchmark
        with cudnn_autotuning(False):
            assert not cudnn.benchmark
        assert cudnn.benchmark
    assert not cudnn.benchmark


def test_equal_results_go_before_speed() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with cudnn_autotuning(True):
            assert not torch.backends.cudnn.benchmark
    finally:
        torch.use_deterministic_algorithms(False)
