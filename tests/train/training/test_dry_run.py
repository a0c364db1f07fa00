"""A dry run says what would happen, and leaves nothing behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.commands import SMALL_ENCODER
from tests.train.runs import call

TRAINING = (
    *("--encoder-weights", "none", "--set", f"model.encoder={SMALL_ENCODER}", "--amp", "off"),
    *("--device", "cpu", "--batch-size", "8", "--epochs", "7"),
)


@pytest.mark.parametrize("fold", [None, "all"])
def test_a_dry_run_tells_memory_and_time(
    cache_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fold: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--fold", fold) if fold else ()
    call("train", "--cache", cache_path, *TRAINING, *words, "--dry-run")
    said = capsys.readouterr().out
    assert "A step of 8 slices takes" in said
    assert re.search(r"At most 7 epochs take \S+", said)
    assert re.search(r"Memory: \d+\.\d GiB of cpu", said)
    assert ("each of 3 folds" in said) is (fold == "all")
    assert not list(tmp_path.iterdir())


def test_a_dry_run_finds_what_a_run_would(
    cache_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(
        "train",
        "--cache",
        cache_path,
        *TRAINING,
        "--encoder-weights",
        "gone.pth",
        "--dry-run",
        code=1,
    )
    assert "gone.pth" in capsys.readouterr().err


def test_a_dry_run_needs_no_weights(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their values change neither memory nor time; that they are missing is said."""

    def is_gone(*args: object, **about: object) -> None:
        raise FileNotFoundError("no network")

    for name in ("hf_hub_download", "get_hf_file_metadata"):
        monkeypatch.setattr(f"huggingface_hub.{name}", is_gone)
    words = ("--encoder-weights", "imagenet", "--set", "model.encoder=resnet18", "--dry-run")
    call("train", "--cache", cache_path, *TRAINING, *words)
    said = capsys.readouterr().out
    assert "Note: a training would stop here: the ImageNet weights of resnet18" in said
    assert "Memory:" in said
