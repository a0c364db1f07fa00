"""The command line: options from the environment, and what BRATS_* variables do."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import click
import numpy as np
import pytest
import torch

from brats_train.cli.main import _OTHER_COMMANDS, _OTHER_WORDS, COMMANDS, cli, main
from tests.train.runs import call


def test_every_command_can_be_described(capsys: pytest.CaptureFixture[str]) -> None:
    call("--help")
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for command in COMMANDS:
        assert f"\n  {command} " in text
        call(command, "--help")


@pytest.mark.parametrize("variable", ["BRATS_TRAIN_CACHE", "BRATS_TRAIN_CACHES"])
def test_an_option_comes_from_the_variable_named_after_its_flag(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also by the name that click gives it, for runs that were started so."""
    monkeypatch.setenv(variable, "not-there.h5")
    call("train", "--device", "cpu", code=1)
    text = capsys.readouterr().err
    assert "not-there.h5: no such file" in text
    assert "Warning" not in text


def test_both_flags_of_an_option_have_a_variable() -> None:
    train = cli.get_command(None, "train")  # type: ignore[arg-type]
    assert train is not None
    (run,) = (option for option in train.params if option.name == "run_dir")
    assert run.envvar == ["BRATS_TRAIN_RUN", "BRATS_TRAIN_RUN_DIR"]


def test_a_variable_may_name_models_on_the_hub_beside_paths() -> None:
    predict = cli.get_command(None, "predict")  # type: ignore[arg-type]
    assert predict is not None
    (run,) = (option for option in predict.params if option.name == "run_dirs")
    split = run.type.split_envvar_value("runs/a:hf://owner/name@v1:/b/hf:hf://owner/other")
    assert split == ["runs/a", "hf://owner/name@v1", "/b/hf", "hf://owner/other"]


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("BRATS_INFO_JSN", "Did you mean BRATS_INFO_JSON?"),
        ("BRATS_TRAIN_EPOCH", "Did you mean BRATS_TRAIN_EPOCHS?"),
        ("BRATS_BUILD_CACHE_SLICE", "Did you mean BRATS_BUILD_CACHE_SLICES?"),
        ("BRATS_DEBUGGING", "Did you mean BRATS_DEBUG?"),
        ("BRATS_COLOUR", ""),
    ],
)
def test_a_variable_that_nothing_reads_is_named(
    variable: str, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "1")
    call("info", "not-there.h5", code=1)
    text = capsys.readouterr().err
    assert f"Warning: {variable}: no option reads this environment variable." in text
    assert hint in text
    assert ("Did you mean" in text) == bool(hint)


def test_known_variables_draw_no_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("REAL_DATA", "VENV", "PYTHON", "TRAIN_EPOCHS", "TRAIN_SET", "EVAL_TTA"):
        monkeypatch.setenv(f"BRATS_{name}", "1")
    call("info", "not-there.h5", code=1)
    assert "Warning" not in capsys.readouterr().err


@pytest.mark.parametrize(("value", "is_shown"), [("1", True), ("true", True), ("0", False)])
def test_brats_debug_shows_the_traceback(
    value: str, is_shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRATS_DEBUG", value)
    call("info", "not-there.h5", code=1)
    text = capsys.readouterr().err
    assert ("Traceback" in text) == is_shown
    assert "Error: not-there.h5: no such file" in text


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    call("info", "not-there.h5", "--debug", code=1)
    assert "Traceback" in capsys.readouterr().err


def test_memory_that_runs_out_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object, **__: object) -> None:
        np.ones(1 << 60, np.uint8)

    monkeypatch.setattr(cli, "main", run)
    call("info", "x.h5", code=1)
    text = capsys.readouterr().err
    assert text.startswith("Error: The memory ran out (Unable to allocate")
    assert "Traceback" not in text


def test_a_gpu_without_memory_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    monkeypatch.setattr(cli, "main", Mock(side_effect=error))
    call("predict", code=1)
    text = capsys.readouterr().err
    assert text.startswith("Error: The memory of the GPU ran out (CUDA out of memory.")
    assert "--device cpu" in text


def test_a_name_of_any_bytes_can_be_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder named in another encoding, which the terminal's cannot express."""
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(cli, "main", lambda *_, **__: print(tmp_path / "f\udcfc"))
    call("train")
    output.flush()
    assert output.buffer.getvalue().endswith(b"f\\udcfc\n")


@pytest.mark.parametrize(
    "words", [("verify",), ("report", "--run-dir"), ("scan",), ("predict", "x", "--run-dir")]
)
def test_a_path_that_the_system_refuses_is_one_message(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    name = 300 * "x"
    call(*words, name, code=1)
    text = capsys.readouterr().err
    assert f"Error: {name}" in text
    assert "File name too long" in text
    assert "Choose a shorter name." in text
    assert "Traceback" not in text


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    for defect in (KeyError("x"), BlockingIOError(11, "busy")):
        monkeypatch.setattr(cli, "main", Mock(side_effect=defect))
        with pytest.raises(type(defect)):
            main(["info"])


def test_a_death_that_cannot_be_caught_says_where_it_was() -> None:
    die = "lambda *_, **__: os.kill(os.getpid(), signal.SIGBUS)"
    code = f"import os, signal, brats_train.cli.main as m; m.cli.main = {die}; m.main([])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in done.stderr


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("trian",), "Did you mean brats train?"),
        (("build_cache",), "Did you mean brats build-cache?"),
        (("version",), "Did you mean brats --version?"),
        (("nothing",), "brats --help"),
        (("train", "--learning-rate", "3"), "Did you mean --lr?"),
        (("build-cache", "--num-workers", "3"), "Did you mean --workers?"),
    ],
)
def test_a_slip_gets_a_suggestion(
    words: tuple[str, ...], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    call(*words, code=2)
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [("train", "--num-workers", "3"), ("eval", "--gpus", "2"), ("info", "--bs", "2")]
)
def test_no_command_suggests_an_option_that_it_lacks(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    call(*words, code=2)
    text = capsys.readouterr().err
    assert "No such option" in text
    assert not {"--workers", "--nproc", "--batch-size"} & set(re.findall(r"--[a-z-]+", text))


def test_a_terminal_does_not_cut_the_words_of_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call("predict", code=2)
    plain = capsys.readouterr().err
    assert max(map(len, plain.splitlines())) > 80
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    call("predict", code=2)
    shown = capsys.readouterr().err
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.split() == plain.split()
    assert "\n\nError: name" in shown


def test_what_is_suggested_exists() -> None:
    options = {
        name
        for command in COMMANDS
        for parameter in cli.get_command(click.Context(cli), command).params  # type: ignore[union-attr]
        for name in parameter.opts
    }
    for meant in _OTHER_WORDS.values():
        assert meant.split()[0] in options
    assert set(_OTHER_COMMANDS.values()) <= {*COMMANDS, "--version"}
