"""What every test shares: an environment of known content, and the real cases where they exist."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# Every option of `brats` can come from the environment: the caller's must not decide a test.
for _name in [name for name in os.environ if name.startswith("BRATS_")]:
    if _name != "BRATS_REAL_DATA":
        del os.environ[_name]

# Set before torch is first imported, which is when it reads them; child processes inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "agg"

# A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that:
# commands that a test interrupts would go on. A handler here is the default again in a child.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A loaded machine is slow, not wrong: no example is timed. Half of the usual number keeps the suite
# short; what needs more says so.
settings.register_profile(
    "brats", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("brats")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real cases: BRATS_REAL_DATA, else `../shared/data` beside the checkout."""
    folder = Path(os.environ.get("BRATS_REAL_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real cases: {folder} is not there (BRATS_REAL_DATA names another folder)")
    return folder.resolve()
