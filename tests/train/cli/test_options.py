"""Options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from brats_cache.common.errors import CacheNotFoundError
from brats_train.cli.options import check_still_there, say_loading


def test_a_cache_that_was_moved_can_be_named(tmp_path: Path) -> None:
    here = tmp_path / "here.h5"
    here.touch()
    check_still_there([here])
    with pytest.raises(CacheNotFoundError, match=r"gone\.h5: .* new place with --cache"):
        check_still_there([here, tmp_path / "gone.h5"])


def test_a_terminal_alone_is_told_that_torch_loads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    say_loading()
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    say_loading()
    assert capsys.readouterr() == ("", "Loading PyTorch ...\n")
    monkeypatch.setenv("RANK", "1")
    say_loading()
    monkeypatch.delenv("RANK")
    monkeypatch.setitem(sys.modules, "torch", sys)  # has been loaded before
    say_loading()
    assert capsys.readouterr() == ("", "")
