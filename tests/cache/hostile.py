"""A process that reads files made to hurt their reader, one after another.

    python -m tests.cache.hostile scans|caches FIRST COUNT

reads inputs FIRST to FIRST + COUNT - 1 of a kind, each of which must be read or refused with a
`BratsError`, in a process whose memory and time are limited. The last line says how many were read
and refused; anything else that happens ends the process, and the last number it printed is that of
the input at fault. `tests/cache/format/test_hostile.py` runs a few, `scripts/soak fuzz` thousands.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from brats_cache.common.errors import BratsError
from tests.cache.hostile_caches import hostile_cache, read_cache
from tests.cache.hostile_scans import compressed_zeros, hostile_scan, read_scan

MEMORY = 1 << 30  # bytes beyond what the process has when it begins
SECONDS = 20  # for one input; they take milliseconds

KINDS: dict[str, tuple[Callable[[int], bytes], Callable[[Path], None]]] = {
    "scans": (hostile_scan, read_scan),
    "caches": (hostile_cache, read_cache),
}


def read_all(kind: str, numbers: range) -> Iterator[tuple[int, bool]]:
    """(number, whether it was read) for each input. Anything but a `BratsError` is passed on."""
    make, read = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        inner = Path(folder) / "inner"
        inner.mkdir()
        before = sorted(os.listdir(folder))
        path = inner / "input"
        for number in numbers:
            path.write_bytes(make(number))
            signal.alarm(SECONDS)  # its default action ends the process, in whatever library it is
            message = ""
            try:
                read(path)
            except BratsError as error:
                message = str(error) or "nothing said"
            finally:
                signal.alarm(0)
            assert all(line.isprintable() for line in message.split("\n")), message
            yield number, not message
            assert sorted(os.listdir(folder)) == before, "a file outside"
            assert os.listdir(inner) == ["input"], "a file beside"


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> None:
    kind, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    make, _ = KINDS[kind]
    make(0)
    compressed_zeros()
    _limit_memory()
    num_read = 0
    for number, is_read in read_all(kind, range(first, first + count)):
        num_read += is_read
        print(number, flush=True)
    print(f"{num_read} read, {count - num_read} refused")


if __name__ == "__main__":
    main()
