"""A checkpoint is used only with the content it was written with."""

from __future__ import annotations

import io
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.common.errors import CheckpointError
from brats_cache.imaging.preprocess import Preparation
from brats_train.evaluation.tune_postprocessing import record_postprocessing
from brats_train.models import checkpoint
from brats_train.models.checkpoint import SegmenterSpec
from brats_train.models.content_digest import content_digest
from brats_train.models.network import ModelConfig
from brats_train.models.postprocessing import Postprocessing, RegionRule
from tests.commands import SMALL_ENCODER
from tests.train.runs import call

SPEC = SegmenterSpec(
    model=ModelConfig(in_channels=2, classes=1, encoder=SMALL_ENCODER),
    regions=("wt",),
    preparation=Preparation(modalities=("t1", "t2"), size=32),
    label_scheme="brats2017",
    weights_from="none",
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text("ab"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=5,
)


def some_content() -> dict[str, Any]:
    """The content of a small checkpoint, with tensors of several types and a state."""
    model = {
        "conv.weight": torch.randn(64, 33),
        "half": torch.ones(5, dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
    return checkpoint.pack(SPEC, model, position={"step": 3, "rates": (0.1, 0.2), "best": None})


def write(path: Path, content: dict[str, Any]) -> bytes:
    with path.open("wb") as file:
        checkpoint.save(content, file)
    return path.read_bytes()


def equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return one == other


def test_the_content_comes_back_without_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = some_content()
    write(tmp_path / "m.pt", content)
    assert equal(checkpoint.load(tmp_path / "m.pt"), content)
    assert capsys.readouterr().err == ""


def test_no_changed_byte_is_used(tmp_path: Path) -> None:
    """A changed byte of the archive is told, or in a part that holds nothing: content is equal."""
    path, content = tmp_path / "flipped.pt", some_content()
    raw = write(path, content)
    dice = random.Random(5)
    told = []
    for _ in range(400):
        byte = dice.randrange(len(raw))
        path.write_bytes(raw[:byte] + bytes([raw[byte] ^ 1 << dice.randrange(8)]) + raw[byte + 1 :])
        try:
            assert equal(checkpoint.load(path), content)
        except CheckpointError as error:
            told.append(str(error))
    assert all(str(path) in message for message in told)
    assert len(told) > 200


def test_every_changed_weight_is_told(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    raw = write(path, some_content())
    biggest = max(zipfile.ZipFile(io.BytesIO(raw)).infolist(), key=lambda info: info.file_size)
    start = raw.index(zipfile.ZipFile(io.BytesIO(raw)).read(biggest))
    for offset in range(0, biggest.file_size, 97):
        changed = bytearray(raw)
        changed[start + offset] ^= 1
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"weights\.pt: damaged"):
            checkpoint.load(path)


def test_a_file_of_an_older_version_is_read_with_one_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, content = tmp_path / "older.pt", {**some_content(), "format_version": 1}
    torch.save(content, path)
    assert equal(checkpoint.load(path), content)
    assert equal(checkpoint.load(path), content)
    told = capsys.readouterr().err
    assert told.count("older.pt: written by an older version without a digest") == 1


@pytest.mark.parametrize("version", [2, 3, "2", None])
def test_a_newer_file_without_a_digest_is_refused(tmp_path: Path, version: object) -> None:
    torch.save({**some_content(), "format_version": version}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"m\.pt"):
        checkpoint.load(tmp_path / "m.pt")


@pytest.mark.parametrize(
    "part",
    [
        {"regions": ("wt", "tc")},
        {"regions": ("head",)},
        {"regions": ("wt", "wt")},
        {"context": 1},
        {"context": "1"},
        {"label_scheme": "of my own"},
        {"preparation": {"modalities": ("t1", "t2"), "size": "32"}},
        {"preparation": {"modalities": ("t1", "t9"), "size": 32}},
        {"preparation": {"modalities": ("t1",), "size": 32}},
        {"preparation": {"modalities": ("t1", "t2"), "size": 32, "fit": "squeeze"}},
        {"model": {"in_channels": 1_000_000, "classes": 1}},
        {"postprocessing": {"tta": False, "rules": {"wt": {"threshold": "high"}}}},
    ],
)
def test_a_description_of_no_model_is_refused(tmp_path: Path, part: dict[str, Any]) -> None:
    """Before a network is built of it, which could take gigabytes."""
    content = some_content()
    write(tmp_path / "m.pt", {**content, "segmenter": {**content["segmenter"], **part}})
    with pytest.raises(CheckpointError, match=r"m\.pt: its parts do not fit this program"):
        checkpoint.load_network(tmp_path / "m.pt")


def test_recording_the_postprocessing_renews_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    write(path, some_content())
    rule = RegionRule(threshold=0.4, min_component_voxels=25, min_voxels=3)
    record_postprocessing(path, Postprocessing(tta=True, rules={"et": rule}))
    held = Postprocessing.unpack(checkpoint.load(path)["segmenter"]["postprocessing"])
    assert (held.tta, held.rule("et"), held.rule("wt")) == (True, rule, RegionRule())


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "link to a pipe"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.pt"
    if kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to("pipe")
    with pytest.raises(CheckpointError, match=r"m\.pt: no readable checkpoint \(.*not a regular"):
        checkpoint.load(path)


def test_the_command_reads_runs_and_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, single, older = tmp_path / "r", tmp_path / "single", tmp_path / "older.pt"
    run.mkdir()
    write(run / "best.pt", some_content())
    raw = write(run / "last.pt", some_content())
    write(single, some_content())
    torch.save({**some_content(), "format_version": 1}, older)
    call("verify", run, single, older)
    told = capsys.readouterr()
    assert "3 checkpoints: every value is as written." in told.out
    assert "1 checkpoint: readable, without a digest." in told.out
    (run / "last.pt").write_bytes(raw[: len(raw) // 2])
    (tmp_path / "empty").mkdir()
    call("verify", run, tmp_path / "empty", tmp_path / "none.pt", code=1)
    told = capsys.readouterr()
    assert "last.pt: no readable checkpoint" in told.err
    assert "empty: a folder without checkpoints" in told.err
    assert "none.pt: no such checkpoint" in told.err
    assert "best.pt" not in told.err.replace("no best.pt", "")


def test_the_digest_is_that_of_these_bytes() -> None:
    """Files of older versions have to fit theirs, so what is digested may never change."""
    content = {
        "none": None,
        "numbers": [True, -255, 2**70, 0.5],
        "text": ("ä\ud800", b"\0:"),
        "tensor": torch.tensor([[1.0, -2.0], [0.0, 0.0]]),
        "whole": torch.tensor(3),
    }
    expected = (
        b"dict 5:str 4:nonenone 0:"
        b"str 7:numberslist 4:bool 1:\1int 3:-ffint 18:400000000000000000"
        b"float 8:\0\0\0\0\0\0\xe0\x3f"
        b"str 4:texttuple 2:str 5:\xc3\xa4\xed\xa0\x80bytes 2:\0:"
        b"str 6:tensortensor torch.float32 (2, 2) 16:"
        b"\0\0\x80\x3f\0\0\0\xc0\0\0\0\0\0\0\0\0"
        b"str 5:wholetensor torch.int64 () 8:\3\0\0\0\0\0\0\0"
    )
    assert content_digest(content) == xxhash.xxh3_128_hexdigest(expected)


@given(PLAIN, PLAIN)
def test_different_values_have_different_digests(one: object, other: object) -> None:
    same = repr(one) == repr(other)
    assert (content_digest({"": one}) == content_digest({"": other})) == same


def test_tensors_count_with_type_shape_and_values() -> None:
    ones = torch.ones(2, 3)
    changed = [ones.double(), ones.reshape(3, 2), ones.int(), -ones, ones[0], [1.0] * 6]
    digests = {content_digest({"a": value}) for value in (ones, *changed)}
    assert len(digests) == 7
    assert content_digest({"a": ones.t().contiguous().t()}) == content_digest({"a": ones})
    with pytest.raises(ValueError, match=r"^a tensor has more values than memory$"):
        content_digest({"a": torch.zeros(1).expand(1 << 40)})
    with pytest.raises(TypeError, match=r"^a value of type set$"):
        content_digest({"a": {1, 2}})
