"""A trial's process: becomes `brats train`, and is interrupted when its parent ends.

python -m brats_train.tuning.child PARENT WORDS…
"""

from __future__ import annotations

import os
import signal
import sys

from brats_cache.common.process import die_with

if __name__ == "__main__":
    # The kernel's promise outlives exec.
    die_with(int(sys.argv[1]), signal.SIGTERM)
    os.execv(sys.executable, [sys.executable, "-m", "brats_train", *sys.argv[2:]])
