"""Publishing an evaluation: the old one or the new one, never files of both."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from brats_cache.common.errors import BratsError
from brats_train.evaluation import publish
from brats_train.evaluation.evaluate import Evaluation
from brats_train.evaluation.publish import publish_evaluation, scratch_masks
from brats_train.runtime.distributed import World


def test_an_evaluation_that_is_killed_leaves_the_old_one_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever call of publishing fails, the folder holds files of one evaluation alone."""
    folder = tmp_path / "eval" / "val"
    for name in ("summary.json", "cases.csv", "masks/a.nii.gz"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old")
    fresh = Evaluation(cases=(), summary={"is": "new"})
    real = {"rename": os.rename, "rmtree": shutil.rmtree, "replace": os.replace}

    class KilledError(Exception):
        pass

    for killed_at in range(12):
        left = [killed_at]

        def dying(name: str, left: list[int] = left) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                if left[0] == 0:
                    raise KilledError
                left[0] -= 1
                return real[name](*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for module, name in ((os, "rename"), (shutil, "rmtree"), (os, "replace")):
                patch.setattr(module, name, dying(name))
            try:
                publish_evaluation(fresh, folder)
            except KilledError:
                pass
            else:
                break
        found = sorted(path.name for path in folder.iterdir())
        is_new = (folder / "summary.json").read_text() != "old"
        assert found == ["cases.csv", *([] if is_new else ["masks"]), "summary.json"]
        assert ((folder / "cases.csv").read_text() != "old") is is_new
    else:
        pytest.fail("it never came to its end")
    assert json.loads((folder / "summary.json").read_text()) == {"is": "new"}
    assert [path.name for path in folder.parent.iterdir()] == ["val"]


def test_a_file_system_without_an_exchange_of_names_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_RENAME_EXCHANGE", 1 << 30)  # EINVAL, as such a one answers
    for number in range(3):
        publish_evaluation(Evaluation(cases=(), summary={"is": number}), tmp_path / "val")
        assert json.loads((tmp_path / "val" / "summary.json").read_text()) == {"is": number}
        assert [path.name for path in tmp_path.iterdir()] == ["val"]


@pytest.mark.parametrize("name", ["val", ".val.partial"])
def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path, name: str) -> None:
    """A person may have put an evaluation on another disk; the next one must not fail for it."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "masks").mkdir(parents=True)
    (elsewhere / "cases.csv").write_text("precious")
    folder = tmp_path / "eval" / "val"
    folder.parent.mkdir()
    folder.with_name(name).symlink_to(elsewhere)
    for number in range(2):
        publish_evaluation(Evaluation(cases=(), summary={"is": number}), folder)
        assert json.loads((folder / "summary.json").read_text()) == {"is": number}
        assert [path.name for path in folder.parent.iterdir()] == ["val"]
    with scratch_masks(folder, World(rank=0, size=1, device=torch.device("cpu"))) as masks:
        (masks / "a.nii.gz").touch()
    assert (elsewhere / "cases.csv").read_text() == "precious"
    assert not list((elsewhere / "masks").iterdir())


def test_a_file_in_the_place_of_an_evaluation_is_not_lost(tmp_path: Path) -> None:
    folder = tmp_path / "val"
    folder.write_text("precious")
    with pytest.raises(BratsError, match="val: a file, where the folder of an evaluation belongs"):
        publish_evaluation(Evaluation(cases=(), summary={}), folder)
    assert folder.read_text() == "precious"
