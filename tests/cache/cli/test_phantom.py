"""`brats phantom` says what an interruption has left behind, and what can be typed next."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from brats_cache.cli import phantom
from brats_train.cli.main import main
from tests.cache.scans import Commands


def test_an_interruption_says_that_the_folder_is_incomplete(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "write_phantom", interrupted)
    with pytest.raises(SystemExit, match="130"):
        main(["phantom", "scans"])
    assert "scans is incomplete" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--cases", "-1"), ("--shape", "1x1x1"), ("--seed", "-1")])
def test_what_no_phantom_can_be_is_wrong_usage(words: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["phantom", str(tmp_path / "scans"), *words])


def test_the_next_command_can_be_typed(brats: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phantom, "write_phantom", lambda *_, **__: None)
    said = brats("phantom", Path("my scans"), "--cases", 2, "--test-cases", 0).out
    assert shlex.split(said)[-4:] == ["Next:", "brats", "build-cache", "my scans"]
