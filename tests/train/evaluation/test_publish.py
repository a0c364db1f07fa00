"""Publishing an evaluation: the old one or the new one, never files of both."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from brats_train.evaluation import publish
from brats_train.evaluation.evaluate import Evaluation
from brats_train.evaluation.publish import publish_evaluation


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
