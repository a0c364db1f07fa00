"""Writes checkpoints in a thread, from a snapshot, while training continues.

Their format is in `models.checkpoint`.
"""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brats_cache.common.files import write_atomically
from brats_train.models import checkpoint

__all__ = ["CheckpointWriter"]


class CheckpointWriter:
    """Writes packed checkpoints in a thread; a context manager that waits for the last of them.

    A newer checkpoint of a path replaces an older one that still waits. A failed write leaves the
    file before it intact and is raised, as `BratsError`, by the next call.
    """

    def __init__(self) -> None:
        self._waiting: dict[Path, tuple[dict[str, Any], torch.cuda.Event | None]] = {}
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._closing = self._writing = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="saver")
        self._thread.start()

    def submit(self, path: Path, content: dict[str, Any]) -> None:
        """Has `content`, which must not change any more, written to `path`."""
        ready = None
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            ready = torch.cuda.Event()
            ready.record()
        with self._changed:
            self._raise_failure()
            self._waiting[path] = (content, ready)
            self._changed.notify_all()

    def wait(self) -> None:
        """Returns when everything submitted is on the disk."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or not (self._waiting or self._writing))
            self._raise_failure()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            self._thread.join()

    def _raise_failure(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                path = next(iter(self._waiting))
                content, ready = self._waiting.pop(path)
                self._writing = True
            failure: BaseException | None = None
            try:
                # Under the same name, so that a snapshot on a GPU is freed before the disk is slow.
                content = _fetched(content, ready)
                write_atomically(path, partial(checkpoint.save, content))
            except BaseException as error:  # raised in the training thread
                failure = error
            del content, ready
            with self._changed:
                self._writing, self._error = False, self._error or failure
                if failure:
                    self._waiting.clear()  # a smaller file that fits could be newer than the others
                self._changed.notify_all()


def _fetched(content: dict[str, Any], ready: torch.cuda.Event | None) -> dict[str, Any]:
    """`content` in the host's memory, once the training thread's stream has made it."""
    if ready is None:
        return content
    stream = torch.cuda.Stream(device=ready.device)
    stream.wait_event(ready)
    with torch.cuda.stream(stream):
        fetched = checkpoint.map_tensors(content, Tensor.cpu)
    assert isinstance(fetched, dict)
    return fetched
