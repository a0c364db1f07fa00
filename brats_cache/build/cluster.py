"""The workers of a dask.distributed cluster, as processes to run functions in.

It is imported only when a build asks for a cluster: the package is optional. Only small things pass
between processes, tasks and results; files are read and written where the workers run, on a disk
that all machines share.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from brats_cache import __version__
from brats_cache.common.errors import BratsError, first_line, print_message, printable
from brats_cache.common.process import interrupts_held, keep_freed_memory

try:
    import dask
    from distributed import (
        Client,
        Event,
        Future,
        KilledWorker,
        LocalCluster,
        as_completed,
        get_worker,
    )
except ImportError as error:
    raise BratsError(
        f"--scheduler: {error.name} is not installed. Install it: pip install -e '.[cluster]' in "
        "the checkout."
    ) from error

__all__ = ["Cluster", "Place", "connect"]

Task = TypeVar("Task")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]

LOCAL = "local"  # instead of an address
MAX_TASKS_AT_ONCE = 32  # a task of dask costs about a millisecond, one header hardly more
SECONDS_BETWEEN_REPORTS = 0.2
CONNECT_TIMEOUT = 10  # seconds
# Errors reach the command itself. Dask logs some at the highest level too: "Failed to deserialize"
# was seen, with a traceback, when a worker was killed in a build that went on and ended well.
SILENT = logging.CRITICAL + 1


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a worker must have in common with the command that it works for.

    Attributes:
        folder: The working folder that paths are relative to; None where all are absolute.
        witness: A file that this command holds where it writes; None where nothing is written.
        version: Version of this program.
    """

    folder: Path | None
    witness: Path | None
    version: str = __version__

    def check(self) -> None:
        """Raises `BratsError` in a worker that does not see what the command sees."""
        name = f"worker {get_worker().address}"
        if self.version != __version__:
            raise BratsError(
                f"{name}: has brats-unet {__version__}, this command is {self.version}. Install "
                "one version on all machines."
            )
        if self.folder is not None and Path.cwd() != self.folder:
            raise BratsError(
                f"{name}: runs in {printable(Path.cwd())}, this command in "
                f"{printable(self.folder)}. Start the workers here, or give DATA, --out and "
                "--manifest as absolute paths."
            )
        if self.witness is not None and not self.witness.exists():
            raise BratsError(
                f"{name}: does not see {printable(self.witness)}. Choose an --out on a disk that "
                "all machines share."
            )


class Cluster:
    """The workers of a cluster; see `connect`.

    Args:
        client: Connected to the scheduler.
        place: What the workers must have in common with this command.
    """

    def __init__(self, client: Client, place: Place) -> None:
        self._client = client
        self._place = place

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        name_of: Callable[[Task], str],
    ) -> Iterator[tuple[int, Result]]:
        """See `build.workers.Mapper`. Tasks of a lost worker are given to others."""
        num_threads = max(1, sum(self._client.nthreads().values()))
        size = max(1, min(MAX_TASKS_AT_ONCE, len(tasks) // (4 * num_threads)))
        starts = range(0, len(tasks), size)
        calls = [(_run_tasks, function, tasks[start : start + size]) for start in starts]
        names = [name_of(tasks[start]) for start in starts]
        for number, results in self._results(calls, names):
            yield from enumerate(results, starts[number])

    def run(
        self,
        function: Callable[[Task, Progress], None],
        tasks: Sequence[Task],
        names: Sequence[str],
        progress: Callable[[int, int], None],
    ) -> None:
        """Runs long tasks, each in one thread of a worker.

        A task of a lost worker is started again by another. When this returns, by an exception
        too, every task has been told to stop at its next report.

        Args:
            function: Receives a task, and a function to call with the numbers done and of all.
            tasks: Its arguments, picklable.
            names: A name for each, for messages.
            progress: Called with the index of a task and the number it has done.

        Raises:
            BratsError: What the function raised; or workers died at a task, or the cluster is gone.
        """
        topic = f"brats-{uuid.uuid4().hex}"
        holders: dict[int, str] = {}

        def take(event: tuple[float, Any]) -> None:
            index, num_done, worker = event[1]
            if holders.setdefault(index, worker) != worker:
                holders[index] = worker
                print_message(f"{names[index]}: taken over from a lost worker.", prefix="Note: ")
            progress(index, num_done)

        self._client.subscribe_topic(topic, take)
        try:
            calls = [
                (_run_reporting, topic, index, function, one) for index, one in enumerate(tasks)
            ]
            for _ in self._results(calls, names):
                pass
        finally:
            Event(topic, self._client).set()
            self._client.unsubscribe_topic(topic)

    def _results(
        self, calls: Sequence[tuple[Any, ...]], names: Sequence[str]
    ) -> Iterator[tuple[int, Any]]:
        """Runs calls in workers; yields the index of a call and its result, as they finish."""
        futures: dict[Future[Any], int] = {}
        try:
            for index, call in enumerate(calls):
                futures[self._client.submit(_run_in_place, self._place, *call, pure=False)] = index
            for future in as_completed(list(futures)):
                index = futures.pop(future)
                yield index, self._result_of(future, names[index])
        finally:
            self._client.cancel(list(futures))

    def _result_of(self, future: Future[Any], name: str) -> Any:
        try:
            outcome = future.result()
        except KilledWorker as error:
            raise BratsError(
                f"{printable(name)}: {error.allowed_failures + 1} workers died at it, one after "
                "the other. The system may have run out of memory; try fewer workers on a machine."
            ) from error
        except CancelledError as error:
            raise BratsError(
                f"{printable(name)}: the scheduler is gone, or has lost it ({first_line(error)})."
            ) from error
        except (ModuleNotFoundError, RuntimeError) as error:
            cause = error.__cause__ or error
            if not isinstance(cause, ModuleNotFoundError):
                raise
            raise BratsError(
                f"the cluster cannot run brats-unet ({first_line(cause)}). Install version "
                f"{__version__} where its scheduler and its workers run."
            ) from error
        if isinstance(outcome, BratsError):
            raise outcome
        return outcome


@contextmanager
def connect(address: str, num_workers: int, place: Place) -> Iterator[Cluster]:
    """Connects to a scheduler.

    Args:
        address: Such as "tcp://node1:8786"; "local" starts a scheduler and worker processes of this
            machine, which nobody else can reach.
        num_workers: Number of processes of a local cluster.
        place: What the workers must have in common with this command.

    Yields:
        The cluster. A local one has ended afterwards.

    Raises:
        BratsError: No scheduler answers.
    """
    logging.getLogger("distributed").setLevel(SILENT)
    settings = {
        "distributed.admin.large-graph-warning-threshold": "1TB",
        "distributed.comm.timeouts.connect": CONNECT_TIMEOUT,
        "distributed.scheduler.http.routes": [],  # a local cluster has pages for nobody
        "distributed.worker.http.routes": [],
    }
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        with interrupts_held():  # neither the threads started here nor the workers see Ctrl-C
            if address == LOCAL:
                server: Any = stack.enter_context(_local_cluster(num_workers))
            else:
                server = address
            try:
                client = stack.enter_context(Client(server, timeout=CONNECT_TIMEOUT))
            except (OSError, ValueError, TypeError) as error:
                raise BratsError(
                    f"--scheduler {printable(address)}: no scheduler answers "
                    f"({first_line(error).rstrip('.')}). Expected an address such as "
                    "tcp://node1:8786, or local."
                ) from error
        if not client.nthreads():
            print_message(f"Waiting for the first worker of {printable(address)}.", prefix="Note: ")
        yield Cluster(client, place)


def _local_cluster(num_workers: int) -> LocalCluster:
    """Starts a cluster on this machine: no dashboard, the loopback address, encrypted, so that no
    other user of the machine can run code in it."""
    return LocalCluster(
        n_workers=num_workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        security=True,
        memory_limit=0,  # none: a worker near one would be paused, then killed
        silence_logs=SILENT,
    )


class _StoppedError(BratsError):
    """The command that a task worked for has ended."""


def _run_in_place(place: Place, function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a function in a worker; returns an error of the user's instead of raising it, because
    dask logs what is raised."""
    keep_freed_memory()
    try:
        place.check()
        return function(*arguments)
    except BratsError as error:
        return error


def _run_tasks(function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    return [function(task) for task in tasks]


def _run_reporting(
    topic: str, index: int, function: Callable[[Task, Progress], None], task: Task
) -> None:
    """Runs a long task in a worker, reports its progress, and stops it after the command."""
    worker, stop = get_worker(), Event(topic)
    last = -SECONDS_BETWEEN_REPORTS

    def report(num_done: int, num_all: int) -> None:
        nonlocal last
        now = time.monotonic()
        if num_done < num_all and now - last < SECONDS_BETWEEN_REPORTS:
            return
        last = now
        worker.log_event(topic, [index, num_done, worker.address])
        if stop.is_set():
            raise _StoppedError("stopped")

    function(task, report)
