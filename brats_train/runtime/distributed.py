"""The process group, collectives and the share of each rank.

The only module that calls torch.distributed. With one process every collective is the identity, so
callers need no special case.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_functional
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from brats_cache.common.errors import BratsError, print_message, wrong_usage
from brats_cache.common.process import die_with, keep_freed_memory
from brats_train.runtime.environment import why_gpu_is_unused
from brats_train.runtime.gpu_memory import keep_to_free_memory

__all__ = ["World", "process_group"]

T = TypeVar("T")
E = TypeVar("E", bound=IntEnum)
TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class World:
    """This process and its process group.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        device: The device that this process computes on.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True on rank 0, which alone prints and writes files."""
        return self.rank == 0

    def local_slice(self, total: int) -> slice:
        """This rank's contiguous part of `total` items; parts differ by at most one item."""
        return slice(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def sum_over_ranks(self, tensor: Tensor) -> Tensor:
        """Sums a tensor over ranks, in place (all-reduce)."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    @property
    def differentiable_sum(self) -> Callable[[Tensor], Tensor] | None:
        """A sum over ranks that gradients flow through, summed as well; None with one process."""
        return dist_functional.all_reduce if self.size > 1 else None

    def max_over_ranks(self, value: E) -> E:
        """The greatest value of all ranks. Exchanged in host memory, so no GPU is synchronised."""
        if self.size == 1:
            return value
        greatest = torch.tensor(int(value))
        dist.all_reduce(greatest, dist.ReduceOp.MAX)
        return type(value)(int(greatest))

    def min_over_ranks(self, number: int) -> int:
        """The least number of all ranks."""
        return min(self.all_gather(number))

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        """A context in which backward passes do not exchange gradients (DDP's no_sync)."""
        if isinstance(model, nn.parallel.DistributedDataParallel):
            return model.no_sync()
        return nullcontext()

    def broadcast(self, value: T) -> T:
        """Sends rank 0's `value`, any object that can be pickled, to every rank."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def decide_on_main(self, decide: Callable[[], T]) -> T:
        """Calls `decide` on rank 0 and gives its result to every rank.

        Raises:
            BratsError: That of rank 0, on every rank; rank 0 alone prints it.
        """
        found: T | BratsError | None = None
        if self.is_main:
            try:
                found = decide()
            except BratsError as error:
                found = error
        found = self.broadcast(found)
        if isinstance(found, BratsError):
            found.is_shared = True
            raise found
        return cast(T, found)

    def wait_for_main(self) -> None:
        """Returns once rank 0 has come here as well."""
        self.broadcast(None)

    def all_gather(self, value: T) -> list[T]:
        """Collects the values of all ranks, in rank order, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    @contextmanager
    def errors_told_once(self) -> Iterator[None]:
        """A context for work that all ranks do alike; they leave it together.

        A `BratsError` that all of them meet is printed by rank 0 alone. One that some meet, such as
        a file that another machine lacks, is printed by these.
        """
        error: BratsError | None = None
        try:
            yield
        except BratsError as met:
            error = met
        texts = self.all_gather(None if error is None else str(error))
        if error is not None:
            error.is_shared = len(set(texts)) == 1
            raise error

    def wrap(self, model: nn.Module, *, has_unused: bool = False) -> nn.Module:
        """Wraps a model in DistributedDataParallel, which averages gradients over ranks.

        Buffers, the running statistics of batch normalisation, are not copied from rank 0 at every
        forward pass: training does not read them. Rank 0's are saved, and `broadcast_buffers`
        copies them before the model is validated.

        Args:
            model: The network.
            has_unused: Whether some of its parameters get no gradient.
        """
        if self.size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            model,
            device_ids=devices,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            find_unused_parameters=has_unused,
        )

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Copies rank 0's buffers, the running statistics of batch normalisation, to every rank."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)


@contextmanager
def process_group(device: str = "auto") -> Iterator[World]:
    """Joins the process group that torchrun started, or makes a `World` of one process.

    An error on one rank ends that rank at once, so that torchrun can end the others: the process
    group is aborted, because leaving it properly would wait for collectives that are under way. No
    collective waits longer than ten minutes.

    Args:
        device: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda" or "cuda:N".

    Yields:
        The `World` of this process.

    Raises:
        BratsError: The device does not exist or is another process's, or a process was lost.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    size = int(os.environ.get("WORLD_SIZE", 1))
    keep_freed_memory()
    chosen = _choose_device(device, local_rank)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        keep_to_free_memory(chosen)
    if "TORCHELASTIC_RUN_ID" in os.environ:  # a torchrun that is killed leaves its processes behind
        die_with(os.getppid(), signal.SIGTERM)
    if size == 1:
        yield World(rank=0, size=1, device=chosen)
        return
    rank = _join(chosen, size)
    is_failing = True
    try:
        world = World(rank=rank, size=size, device=chosen)
        _check_own_gpu(world)
        yield world
        is_failing = False
    except SystemExit:  # all ranks leave
        is_failing = False
        raise
    except BratsError as error:
        if not error.is_shared:
            error.rank = rank
        raise
    except RuntimeError as error:
        if not _is_about_peers(error):
            raise
        lost = BratsError(f"lost the other processes ({str(error).splitlines()[0]})")
        lost.rank = rank
        raise lost from error
    finally:
        if is_failing:
            dist.distributed_c10d._abort_process_group()
        else:
            dist.destroy_process_group()


def _join(device: torch.device, size: int) -> int:
    """Joins the process group of `size` processes; returns the rank of this one."""
    if device.type == "cpu":
        # torchrun gives each rank one thread; divide the cores among the ranks of this machine.
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_size))
    # Step actions and objects go through gloo, in host memory, whatever backend tensors use.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, rank, _ = next(rendezvous("env://", timeout=TIMEOUT))
    # After a failure torchrun may offer the same store, with the addresses of dead processes in it.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    return dist.get_rank()


def _is_about_peers(error: RuntimeError) -> bool:
    """Whether a collective failed because another rank did; gloo tells by its message alone."""
    return isinstance(error, dist.DistBackendError) or "gloo" in str(error).lower()


def _check_own_gpu(world: World) -> None:
    """Raises `BratsError`, on every rank, where two ranks compute on one GPU, as NCCL cannot."""
    if world.device.type != "cuda":
        return
    gpu = str(torch.cuda.get_device_properties(world.device).uuid)
    first: dict[str, int] = {}
    for rank, (host, number, one) in enumerate(
        world.all_gather((socket.gethostname(), world.device.index, gpu))
    ):
        if one in first:
            error = BratsError(
                f"Ranks {first[one]} and {rank} both compute on GPU {number} of {host}. Expected "
                "one each: leave --device out, or start fewer processes."
            )
            error.is_shared = True
            raise error
        first[one] = rank


def _choose_device(device: str, local_rank: int) -> torch.device:
    name = device
    if device == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")  # on purpose
        if name == "cpu" and not is_hidden and os.environ.get("RANK", "0") == "0":
            _warn_of_unused_gpu()
    try:
        chosen: torch.device | None = torch.device(name)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise wrong_usage(BratsError(f"--device {device}: expected auto, cpu, cuda or cuda:N."))
    if chosen.type == "cpu":
        return chosen
    if not torch.cuda.is_available():
        raise BratsError(f"--device {device}: this machine has no CUDA device that torch can use.")
    index = local_rank if chosen.index is None else chosen.index
    if index >= torch.cuda.device_count():
        raise BratsError(
            f"--device {device}: rank {local_rank} needs GPU {index}, this machine has "
            f"{torch.cuda.device_count()}. Start fewer processes."
        )
    return torch.device("cuda", index)


def _warn_of_unused_gpu() -> None:
    if reason := why_gpu_is_unused():
        print_message(
            f"computes on the CPU, for torch cannot use this machine's GPU. {reason}",
            prefix="Warning: ",
        )
