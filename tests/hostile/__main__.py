"""A process that reads files made to hurt their reader, one input after another.

    python -m tests.hostile KIND[,KIND...] FIRST COUNT

reads inputs FIRST to FIRST + COUNT - 1 of each kind (see `kinds`), each of which must be read or
refused with a `BratsError`, in a process whose memory and time are limited. The last line of a kind
says how many were read and refused, and the most memory that the process has taken. Anything else
that happens ends the process, and the last number it printed is that before the input at fault.
`test_hostile.py` runs a few, `scripts/soak fuzz` a hundred thousand.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from brats_cache.common.errors import BratsError
from tests.hostile.guard import Guard
from tests.hostile.kinds import Kind, load_kind

MEMORY = 1 << 30  # bytes beyond what the process has when it begins
# So much may be asked for: what is asked for beyond it is refused, which a reader could take for a
# damaged file, though it would have taken the memory of a larger machine.
ADDRESS_SPACE = 6 << 30
# For one input, which takes milliseconds: of the processor, and on a busy machine in all. The
# default action of both signals ends the process, in whatever library it is.
CPU_SECONDS, SECONDS = 20, 300


def read_all(kind: Kind, numbers: range) -> Iterator[tuple[int, bool]]:
    """(number, whether it was read) for each input. Anything but a `BratsError` is passed on."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        root = Path(name).resolve()
        elsewhere = root / "elsewhere"  # relative paths lead here
        elsewhere.mkdir()
        os.chdir(elsewhere)
        inner = root / "inner"
        guard = Guard(inner)
        for number in numbers:
            files = kind.make(np.random.default_rng([*kind.name.encode(), number]))
            _write(inner, files)
            message = ""
            signal.alarm(SECONDS)
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            try:
                with guard:
                    kind.read(inner)
            except BratsError as error:
                message = str(error) or "nothing said"
            finally:
                signal.alarm(0)
                signal.setitimer(signal.ITIMER_PROF, 0)
            assert all(line.isprintable() for line in message.split("\n")), repr(message)
            assert not guard.seen, guard.seen
            assert sorted(os.listdir(root)) == ["elsewhere", "inner"], "a file outside"
            assert not os.listdir(elsewhere), "a file in the working directory"
            assert set(os.listdir(inner)) <= {path.split("/")[0] for path in files}, "a file beside"
            yield number, not message


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Makes a folder that holds these files and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _memory(field: str) -> int:
    """VmRSS (memory now), VmHWM (the most so far) or VmSize (address space) in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) << 10


def main() -> None:
    kinds = [load_kind(name) for name in sys.argv[1].split(",")]
    first, count = int(sys.argv[2]), int(sys.argv[3])
    sys.dont_write_bytecode = True
    limit = _memory("VmSize") + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = _memory("VmHWM")
    for kind in kinds:
        num_read = 0
        for number, is_read in read_all(kind, range(first, first + count)):
            num_read += is_read
            taken = _memory("VmHWM") - before
            assert taken <= MEMORY, f"{taken >> 20} MiB"
            print(kind.name, number, flush=True)
        print(f"{kind.name}: {num_read} read, {count - num_read} refused, {taken >> 20} MiB")


if __name__ == "__main__":
    main()
