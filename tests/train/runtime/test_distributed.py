"""Two processes of one group: batch norm's buffers, failures, and GPUs that are not their own."""

from __future__ import annotations

import multiprocessing
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from brats_cache.common.errors import BratsError
from brats_train.runtime import distributed, environment
from brats_train.runtime.distributed import World, process_group
from tests.commands import PATIENCE

GPU = torch.device("cuda", 0)


def take_part(rank: int, port: int, results: Any) -> None:
    """A rank of two: trains batch norm for two steps, then rank 1 fails while rank 0 waits."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    found: dict[str, Any] = {}
    try:
        with process_group("cpu") as world:
            torch.manual_seed(0)
            model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
            wrapped = world.wrap(model)
            for step in range(2):
                torch.manual_seed(10 * step + rank)
                wrapped(torch.randn(3, 1, 8, 8)).square().mean().backward()
            found["own"] = [buffer.tolist() for buffer in model.buffers()]
            found["gradient"] = [parameter.grad.tolist() for parameter in model.parameters()]
            world.broadcast_buffers(model)
            found["shared"] = [buffer.tolist() for buffer in model.buffers()]
            world.broadcast(None)
            if rank == 1:
                raise ValueError("a fault of this rank alone")
            world.all_gather(0)
    except Exception as error:
        found["error"] = str(error)
    results.put((rank, found))


def test_buffers_are_rank_0s_and_a_failure_ends_the_other_rank() -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [context.Process(target=take_part, args=(rank, port, results)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    found = dict(results.get(timeout=PATIENCE) for _ in ranks)
    for rank in ranks:
        rank.join()
    zero, one = found[0], found[1]
    assert zero["gradient"] == one["gradient"]
    assert zero["own"] != one["own"]  # nothing is exchanged for them in a step
    assert zero["shared"] == one["shared"] == zero["own"]
    assert "a fault of this rank alone" in one["error"]
    assert "lost the other processes" in zero["error"]


def test_an_error_that_all_ranks_meet_is_told_once_and_another_by_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(rank=1, size=2, device=torch.device("cpu"))
    for others, is_shared in (("no such file", True), (None, False), ("damaged", False)):
        monkeypatch.setattr(World, "all_gather", lambda self, own, other=others: [other, own])
        with pytest.raises(BratsError) as caught, world.errors_told_once():
            raise BratsError("no such file")
        assert caught.value.is_shared is is_shared
    with world.errors_told_once():
        pass  # rank 0 tells what it has met


def world_of(gathered: list[tuple[str, int, str]]) -> Any:
    return SimpleNamespace(device=GPU, all_gather=lambda own: gathered)


def test_two_ranks_on_one_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="one")
    )
    own = [("a", 0, "one"), ("a", 1, "two"), ("b", 0, "three")]
    distributed._check_own_gpu(world_of(own))
    with pytest.raises(BratsError, match=r"Ranks 1 and 3 both compute on GPU 1 of a\.") as caught:
        distributed._check_own_gpu(world_of([*own, ("a", 1, "two")]))
    assert caught.value.is_shared  # one message, rank 0's
    distributed._check_own_gpu(World(rank=0, size=2, device=torch.device("cpu")))


@pytest.mark.parametrize(
    ("devices", "built_for", "visible", "expected"),
    [
        ([], "13.2", None, ""),
        (["nvidia0"], "13.2", None, "Update the driver for CUDA 13.2"),
        (["nvidia0"], None, None, "install one with CUDA"),
        (["nvidiactl"], "13.2", None, ""),
        (["nvidia0"], "13.2", "", ""),
        (["nvidia0"], "13.2", "-1", ""),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    devices: list[str],
    built_for: str | None,
    visible: str | None,
    expected: str,
) -> None:
    for name in devices:
        (tmp_path / name).touch()
    monkeypatch.setattr(environment, "GPU_DEVICES", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with process_group("auto") as world:
        assert world.device.type == "cpu"
    said = capsys.readouterr().err
    assert ("Warning: computes on the CPU" in said) == bool(expected)
    assert expected in said
    with process_group("cpu"):  # as asked for
        pass
    assert not capsys.readouterr().err
