"""Options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from brats_cache.common.errors import CacheNotFoundError
from brats_train.cli.options import check_still_there, say_loading
from tests.train.runs import call


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


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--max-minutes", "nan"),
        ("train", "--save-minutes", "inf"),
        ("train", "--nproc", "100000"),
        ("eval", "--threshold", "nan"),
        ("predict", "case", "--threshold", "nan"),
        ("demo", "--minutes", "nan"),
    ],
)
def test_numbers_beyond_reason_are_wrong_usage(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    call(*words, code=2)
    assert words[-2] in capsys.readouterr().err


def test_the_home_folder_is_meant_behind_an_equals_sign_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bash leaves the tilde of `--out=~/x` as it is, and `rm -r ~` would follow."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    scans = tmp_path / "scans"
    call("phantom", scans, "--shape", "16x16x8", "--cases", 1, "--test-cases", 0, "--workers", 1)
    call("scan", scans, "--out=~/cases.csv")
    assert (tmp_path / "cases.csv").is_file()
    assert not (tmp_path / "~").exists()
