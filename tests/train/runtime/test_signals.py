"""Ctrl-C and SIGTERM ask once, and end the process the second time."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

ASKED = """
import signal, sys
from brats_train.runtime.signals import InterruptHandler
first, second = int(sys.argv[1]), int(sys.argv[2])
with InterruptHandler() as interrupts:
    assert not interrupts.requested
    signal.raise_signal(first)
    print(interrupts.requested, flush=True)
    if second:
        signal.raise_signal(second)
print(signal.getsignal(first) is not signal.SIG_DFL or first == signal.SIGTERM, flush=True)
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [0, signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_and_a_second_one_ends_at_once(first: int, second: int) -> None:
    words = [sys.executable, "-c", ASKED, str(int(first)), str(int(second))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == -second
    assert done.stdout == ("True\n" if second else "True\nTrue\n"), done.stderr
