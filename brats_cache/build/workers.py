"""A pool of worker processes that names the task whose worker died.

The pools of the standard library either wait for ever on a dead worker or cannot tell which task it
had. Here each worker has at most one task, so a dead worker names its task at once and queues are
bounded. Tasks and results are small: voxels never pass between processes. A worker may keep some
for the next task of the same name instead, which it is the first to get.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Protocol, TypeVar

from brats_cache.common.errors import BratsError, first_line, printable
from brats_cache.common.memory import is_out_of_memory
from brats_cache.common.process import die_with, interrupts_held, keep_freed_memory

__all__ = ["InProcess", "Mapper", "Workers"]

Task = TypeVar("Task")
Result = TypeVar("Result")
# The processes are the parallelism; libraries that start threads of their own read these at import.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Mapper(Protocol):
    """Runs a function on tasks: in this process, in processes of this machine, or on a cluster."""

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        name_of: Callable[[Task], str],
    ) -> Iterator[tuple[int, Result]]:
        """Runs a function on every task, in any order.

        Args:
            function: A function of a module, or a `partial` of one.
            tasks: Its arguments, picklable.
            name_of: Returns the name of a task for error messages.

        Yields:
            The index of a task and its result, as tasks finish.

        Raises:
            BratsError: A process died or ran out of memory; the message names its task.
        """
        ...


class InProcess:
    """Runs functions in this process, one task after the other."""

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        name_of: Callable[[Task], str],
    ) -> Iterator[tuple[int, Result]]:
        """See `Mapper`."""
        for index, task in enumerate(tasks):
            yield index, function(task)


class Workers:
    """A fixed number of processes to run functions in; a context manager.

    The processes are spawned, not forked, because a fork copies locks that other threads hold.

    Args:
        num_workers: Number of processes, 1 or more.
    """

    def __init__(self, num_workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._workers: list[tuple[Any, Connection]] = []
        self._last: dict[str, Connection] = {}  # which worker had the last task of a name
        with _environment(_ONE_THREAD), interrupts_held():
            for _ in range(num_workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
                process.start()
                theirs.close()
                self._workers.append((process, ours))

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        name_of: Callable[[Task], str],
    ) -> Iterator[tuple[int, Result]]:
        """See `Mapper`. An exception has the worker's traceback as a note.

        A worker first does tasks of names that it had before, then those that nobody had, then
        those of others.
        """
        waiting: dict[Connection | None, deque[int]] = {None: deque()}
        for index, task in enumerate(tasks):
            waiting.setdefault(self._last.get(name_of(task)), deque()).append(index)
        busy: dict[Connection, tuple[int, Any]] = {}
        idle = list(self._workers)
        while True:
            while idle and any(waiting.values()):
                process, connection = idle.pop()
                index = _next_for(connection, waiting)
                task = tasks[index]
                busy[connection] = (index, process)
                self._last[name_of(task)] = connection
                try:
                    connection.send((function, task))
                except OSError:
                    raise _death(name_of(task), process) from None
            if not busy:
                return
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                index, process = busy.pop(ready)
                try:
                    result, error, trace = ready.recv()
                except (EOFError, OSError):
                    raise _death(name_of(tasks[index]), process) from None
                if error is not None and is_out_of_memory(error):
                    raise BratsError(
                        f"{printable(name_of(tasks[index]))}: the memory ran out at this case "
                        f"({first_line(error)}). Try fewer --workers."
                    ) from error
                if error is not None:
                    error.add_note(f"In a worker process, at {name_of(tasks[index])}:\n{trace}")
                    raise error
                idle.append((process, ready))
                yield index, result

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process, connection in self._workers:
            connection.close()  # an idle worker exits at the end of its pipe
            if error is not None:
                process.terminate()
        for process, _ in self._workers:
            process.join()


def _next_for(worker: Connection, waiting: dict[Connection | None, deque[int]]) -> int:
    """Takes the next task for a worker: its own, nobody's, or the last of whoever has most."""
    for queue in (waiting.get(worker), waiting[None]):
        if queue:
            return queue.popleft()
    return max(waiting.values(), key=len).pop()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for the processes that are started inside the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _serve(connection: Connection, parent: int) -> None:
    """Runs tasks in a worker process until the pipe closes or the parent dies."""
    die_with(parent, signal.SIGKILL)
    keep_freed_memory()
    while True:
        try:
            function, task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer: tuple[Any, Exception | None, str] = (function(task), None, "")
        except Exception as error:  # whatever it is, the parent raises it again
            answer = (None, _picklable(error), traceback.format_exc())
        try:
            connection.send(answer)
        except OSError:
            return


def _picklable(error: Exception) -> Exception:
    """Returns the error itself, or a RuntimeError with its text if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _death(name: str, process: Any) -> BratsError:
    """Makes the error for a worker that died at the task `name`."""
    process.join(timeout=5)
    code = process.exitcode
    reason = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    hint = " The system may have run out of memory; try fewer --workers." if code == -9 else ""
    return BratsError(f"{printable(name)}: the worker process died at this case ({reason}).{hint}")
