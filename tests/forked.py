"""`brats` in a fork of this process, which has imported everything: a start without imports.

Importing numpy or torch takes most of a short command's time, which kills by the hundred cannot
afford. Nothing else differs: the launcher runs as `__main__` in a process and a session of its own.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.commands import LAUNCHER

_SECONDS_BETWEEN_LOOKS = 0.002


class ForkedBrats:
    """A running `brats WORDS`, with what is needed of `subprocess.Popen`.

    This process may have no other threads.
    """

    def __init__(self, *words: object, cwd: Path | None = None) -> None:
        self.returncode: int | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            for descriptor in (1, 2):
                os.dup2(self._output.fileno(), descriptor)
            _become_brats([str(word) for word in words], cwd)

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal, or None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Waits for the end and returns the exit code.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("brats", timeout)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return code

    def communicate(self, timeout: float) -> tuple[str, None]:
        """Waits for the end and returns what it printed."""
        self.wait(timeout)
        self._output.seek(0)
        return self._output.read().decode(errors="replace"), None


def _become_brats(words: list[str], cwd: Path | None) -> None:
    """Runs the launcher in this process and ends it."""
    code: object = 1
    try:
        os.chdir(cwd or ".")
        sys.argv = [str(LAUNCHER), *words]
        runpy.run_path(str(LAUNCHER), run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
