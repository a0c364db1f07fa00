"""Nothing is predicted twice, and nothing stale is shown: what is stored counts forward passes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_train.evaluation.case_masks import CaseMasks, MaskRules, decode_masks, encode_masks
from brats_train.evaluation.mask_store import MaskStore, seal
from brats_train.inference.ensemble import Ensemble
from brats_train.models.postprocessing import Postprocessing
from brats_train.report import scored_cases
from tests.train.runs import call, contents, ids, index_of, make_run

RULES = MaskRules(regions=("wt",), slice_rows="all", postprocessing=Postprocessing())
LABELLED = replace(RULES, num_labels=2)
KEY = b"k" * 16


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of slices that models were given, a pass of an ensemble each."""
    seen: list[int] = []
    plain = Ensemble.predict

    def counted(self: Ensemble, images: np.ndarray, *rest: Any, **named: Any) -> Any:
        seen.append(len(images))
        return plain(self, images, *rest, **named)

    monkeypatch.setattr(Ensemble, "predict", counted)
    return seen


@pytest.fixture
def masked(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose report shows no test cases, which eval does not score."""
    monkeypatch.setattr(scored_cases, "NUM_TESTS", 0)
    return make_run(tmp_path / "r", cache, target="regions")


def evaluate(run: Path, *words: object, code: int = 0) -> dict[str, bytes]:
    call("eval", "--run", run, "--device", "cpu", *words, code=code)
    return {name: (run / "eval/val" / name).read_bytes() for name in ("summary.json", "cases.csv")}


def report(run: Path) -> dict[str, bytes]:
    call("report", "--run", run, "--device", "cpu")
    return {**contents(run / "figures"), "page": (run / "report.html").read_bytes()}


def test_a_report_after_an_evaluation_runs_no_model(
    masked: Path, cache: Cache, passes: list[int]
) -> None:
    evaluate(masked)
    assert len(passes) == len(ids(cache, "val"))
    with_store = report(masked)
    assert len(passes) == len(ids(cache, "val"))
    shutil.rmtree(masked / "eval_store")
    assert report(masked) == with_store
    assert len(passes) == 2 * len(ids(cache, "val"))


@pytest.mark.slow
def test_a_report_runs_the_model_for_its_test_cases_once(
    tmp_path: Path, cache: Cache, passes: list[int]
) -> None:
    run = make_run(tmp_path / "r", cache)
    evaluate(run)
    passes.clear()
    first = report(run)
    assert len(passes) == 1  # the phantom has one case without a mask
    assert report(run) == first
    assert len(passes) == 1


def test_a_second_evaluation_runs_no_model_and_writes_the_same(
    masked: Path, passes: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    first = evaluate(masked)
    stored = contents(masked / "eval_store/val")
    assert "did not run" not in capsys.readouterr().err
    passes.clear()
    assert evaluate(masked) == first
    assert "did not run for 2 of 2 cases" in capsys.readouterr().err
    assert contents(masked / "eval_store/val") == stored
    # The rule for empty masks and the masks themselves follow from what is stored.
    evaluate(masked, "--empty", "nan", "--save-masks")
    assert not passes
    masks = contents(masked / "eval/val/masks")
    shutil.rmtree(masked / "eval_store")
    evaluate(masked, "--empty", "nan", "--save-masks")
    assert contents(masked / "eval/val/masks") == masks


def other_weights(run: Path, cache: Cache) -> list[object]:
    make_run(run, cache, target="regions", seed=1)
    return []


@pytest.mark.parametrize(
    "change",
    [
        other_weights,
        lambda *_: ["--threshold", 0.4],
        lambda *_: ["--tta"],
        lambda run, _: ["--checkpoint", shutil.copy(run / "best.pt", run / "last.pt")],
    ],
    ids=["weights", "threshold", "flips", "the same file by another name"],
)
def test_what_another_model_or_option_made_is_not_used(
    masked: Path, cache: Cache, passes: list[int], change: Callable[[Path, Cache], list[object]]
) -> None:
    evaluate(masked)
    passes.clear()
    words = change(masked, cache)
    found = evaluate(masked, *words)
    is_same = "--checkpoint" in words  # by its bytes, not by its name
    assert len(passes) == (0 if is_same else 2)
    shutil.rmtree(masked / "eval_store")
    assert evaluate(masked, *words) == found


def test_what_another_cache_gave_is_not_used(
    masked: Path, cache: Cache, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(masked)
    passes.clear()
    other = replace(cache, fingerprint="0" * 32)
    monkeypatch.setattr("brats_cache.format.cache_set.open_cache", lambda path: other)
    evaluate(masked)
    assert len(passes) == 2


def test_other_slices_counted_are_other_results(
    masked: Path, cache: Cache, passes: list[int]
) -> None:
    evaluate(masked)
    passes.clear()
    config = json.loads((masked / "config.json").read_text())
    config["recipe"]["rows"] = "middle"
    (masked / "config.json").write_text(json.dumps(config))
    evaluate(masked)
    assert len(passes) == 2


def test_each_case_of_a_cross_validation_is_stored_under_its_folds_model(
    tmp_path: Path, cache: Cache, passes: list[int]
) -> None:
    run = make_run(tmp_path / "r", cache)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "fold": "all"}))
    for fold in range(3):
        make_run(run / f"fold{fold}", cache, seed=fold)
    evaluate(run)
    passes.clear()
    evaluate(run)
    assert not passes
    make_run(run / "fold1", cache, seed=7)
    found = evaluate(run)
    assert len(passes) == np.count_nonzero(cache.cases["fold"] == 1)
    shutil.rmtree(run / "eval_store")
    assert evaluate(run) == found


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "folder"])
def test_a_damaged_file_is_named_and_its_case_predicted_again(
    masked: Path,
    cache: Cache,
    passes: list[int],
    damage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = evaluate(masked)
    passes.clear()
    path = masked / "eval_store/val" / f"{ids(cache, 'val')[0]}.masks"
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        path.write_bytes({"bit": bytes(changed), "cut": content[:-1], "empty": b""}[damage])
    code = 1 if damage == "folder" else 0  # which cannot be replaced
    found = evaluate(masked, code=code)
    told = capsys.readouterr().err
    assert str(path) in told
    assert "damaged" in told
    assert len(passes) == 1
    assert found == first
    if not code:
        assert path.read_bytes() == content


def some_masks(cache: Cache, case: int) -> CaseMasks:
    rng = np.random.default_rng(0)
    size, rows = cache.shape[-1], int(cache.cases["rows"][case])
    return CaseMasks(
        volumes=rng.random((1, cache.depth(case), 64, 64)) < 0.1,
        slices=rng.random((rows, 1, size, size)) < 0.5,
        tables={"wt": rng.integers(0, 1 << 40, (2, 3, 128))},
        labels=np.array([0.25, 0.75]),
        expected_dice=np.array([0.5]),
    )


def test_masks_come_back_as_they_were(cache: Cache) -> None:
    case = index_of(cache, ids(cache, "val")[0])
    masks = some_masks(cache, case)
    found = decode_masks(encode_masks(masks), cache, case, LABELLED)
    assert (found.volumes == masks.volumes).all()
    assert (found.slices == masks.slices).all()
    assert (found.tables["wt"] == masks.tables["wt"]).all()
    assert (found.labels == masks.labels).all()
    assert (found.expected_dice == masks.expected_dice).all()


@pytest.mark.parametrize("forged", [b"", b"no deflate", b"x" * 1000])
def test_a_forged_file_is_refused_with_a_message(cache: Cache, forged: bytes) -> None:
    with pytest.raises(BratsError, match="eval_store"):
        decode_masks(forged, cache, index_of(cache, ids(cache, "val")[0]), RULES)


def test_a_case_with_other_shapes_is_refused(cache: Cache) -> None:
    case = index_of(cache, ids(cache, "val")[0])
    content = encode_masks(some_masks(cache, case))
    with pytest.raises(BratsError, match="eval_store"):
        decode_masks(content, cache, case, replace(LABELLED, regions=("wt", "tc")))


def test_a_key_finds_its_own_content_alone(cache: Cache, tmp_path: Path) -> None:
    told: list[str] = []
    store = MaskStore(folder=tmp_path / "s", warn=told.append)
    assert store.find(cache, 0, KEY) is None
    store.put(cache, 0, KEY, b"content")
    assert store.find(cache, 0, b"o" * 16, KEY) == b"content"
    assert store.find(cache, 0, b"o" * 16) is None
    assert store.path(cache, 0).read_bytes() == seal(KEY, b"content")
    assert not told
