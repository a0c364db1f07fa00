"""Watches, by an audit hook of Python, what a reader does besides reading."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Events with the number of paths that they change, at the beginning of their arguments.
_CHANGES = {
    "os.chmod": 1, "os.link": 2, "os.mkdir": 1, "os.remove": 1, "os.rename": 2, "os.rmdir": 1,
    "os.symlink": 2, "os.truncate": 1, "shutil.rmtree": 1,
}  # fmt: skip
_OTHERS = ("os.exec", "os.posix_spawn", "os.system", "subprocess.Popen", "socket.connect")
_HARMLESS = ("/dev/null", "/proc/self/")


class Guard:
    """A context in which nothing is written outside of a folder, run or connected to.

    A hook stays for the life of its process, so that one guard serves all inputs.

    Attributes:
        seen: What happened all the same, in words.
    """

    def __init__(self, folder: Path) -> None:
        self.seen: list[str] = []
        self._folder = str(folder)
        self._is_on = False
        sys.addaudithook(self._look)

    def __enter__(self) -> None:
        self._is_on = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_on = False

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        # No exception from here: a reader could take it for one of its own.
        if not self._is_on:
            return
        if event == "open":
            path, _, flags = arguments
            if flags & _WRITING and not self._is_inside(path):
                self.seen.append(f"opened for writing: {path!r}")
        elif event in _CHANGES:
            for path in arguments[: _CHANGES[event]]:
                if not self._is_inside(path):
                    self.seen.append(f"{event}: {arguments!r}")
        elif event in _OTHERS:
            self.seen.append(f"{event}: {arguments!r}")

    def _is_inside(self, path: Any) -> bool:
        if isinstance(path, int):  # open already
            return True
        name = os.path.realpath(os.path.dirname(os.path.abspath(os.fsdecode(path))))
        whole = os.path.join(name, os.path.basename(os.fsdecode(path)))
        return f"{whole}/".startswith(f"{self._folder}/") or whole.startswith(_HARMLESS)
