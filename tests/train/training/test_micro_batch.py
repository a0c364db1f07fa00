"""What a run needs before its first step, as far as a CPU can show it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from brats_cache.common.errors import BratsError
from brats_train.runtime.distributed import World
from brats_train.runtime.precision import cudnn_autotuning
from brats_train.training import micro_batch
from brats_train.training.micro_batch import choose_micro_batch

GPU = World(rank=0, size=1, device=torch.device("cuda", 0))


def choose(wanted: str, world: World = GPU, resident_bytes: int = 0) -> tuple[int, int]:
    network = nn.Conv2d(4, 1, 3)
    shape = (4, 32, 32)
    return choose_micro_batch(
        wanted, network, 64, shape, "bf16", world, resident_bytes=resident_bytes
    )


@pytest.mark.parametrize(
    ("num_fitting", "wanted", "expected"),
    [(64, "auto", 64), (20, "auto", 16), (1, "auto", 1), (20, "12", 12), (64, "99", 64)],
)
def test_a_step_is_tried_out_and_what_it_takes_is_known(
    monkeypatch: pytest.MonkeyPatch, num_fitting: int, wanted: str, expected: int
) -> None:
    def bytes_of(trial: object, size: int) -> int | None:
        return 1000 * size if size <= num_fitting else None

    monkeypatch.setattr(micro_batch._Trial, "bytes_of", bytes_of)
    assert choose(wanted) == (expected, 1000 * expected)


def test_samples_that_do_not_fit_are_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batch._Trial, "bytes_of", lambda trial, size: None)
    with pytest.raises(BratsError, match="Not even one 32 x 32 sample fits"):
        choose("auto")
    with pytest.raises(BratsError, match=r"--micro-batch 8: .* do not fit .* choose auto"):
        choose("8")
    for wanted in ("auto", "8"):
        with pytest.raises(BratsError, match=r"beside 3\.0 GiB of rows.*--resident never"):
            choose(wanted, resident_bytes=3 << 30)


def test_a_cpu_computes_all_samples_at_once_and_tries_nothing() -> None:
    alone = World(rank=0, size=1, device=torch.device("cpu"))
    assert choose("auto", alone) == (64, 0)
    assert choose("8", alone) == (8, 0)
    for wrong in ("0", "some", "-1"):
        with pytest.raises(BratsError, match="expected auto or a number"):
            choose(wrong, alone)


def test_convolutions_are_tuned_within_the_context_alone() -> None:
    cudnn = torch.backends.cudnn
    torch.use_deterministic_algorithms(False)  # which a training before may have left on
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
