"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from brats_cache.common.errors import CacheNotFoundError
from brats_train.cli.options import check_still_there


def test_a_cache_that_was_moved_can_be_named(tmp_path: Path) -> None:
    here = tmp_path / "here.h5"
    here.touch()
    check_still_there([here])
    with pytest.raises(CacheNotFoundError, match=r"gone\.h5: .* new place with --cache"):
        check_still_there([here, tmp_path / "gone.h5"])
