"""What takes too long for every change: run by hand, by `scripts/soak PART [OPTIONS]`.

A part is a module of this folder with a docstring, whose first line describes it, and a function
`soak(arguments)` that takes the words behind its name and raises where something is wrong.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

PARTS = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


def main() -> None:
    wanted, arguments = sys.argv[1:2], sys.argv[2:]
    if wanted not in ([], ["all"], *([part] for part in PARTS)):
        sys.exit(f"No part {wanted[0]!r}. Parts: {', '.join(PARTS)}, or all.")
    if not wanted:
        for part in PARTS:
            summary = (importlib.import_module(f"tests.soak.{part}").__doc__ or "").splitlines()[0]
            print(f"{part:<10} {summary}")
        return
    for part in PARTS if wanted == ["all"] else wanted:
        started = time.monotonic()
        importlib.import_module(f"tests.soak.{part}").soak(arguments)
        print(f"{part}: sound, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
