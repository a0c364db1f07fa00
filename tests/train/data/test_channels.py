"""Caches of different modalities in one training, and modalities that are missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from brats_cache.common.errors import BratsError
from brats_cache.format.cache_set import open_caches
from brats_cache.format.reader import Cache, open_cache
from brats_train.data.channels import all_modalities, place_channels
from brats_train.data.feeders import make_feeder
from brats_train.data.selection import RowSet
from brats_train.models.checkpoint import load_network
from tests.commands import SMALL_ENCODER, run_brats
from tests.train.runs import call

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def other(phantom_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Two cases of other names, of which FLAIR and T1 alone are known."""
    folder = tmp_path_factory.mktemp("other")
    for number, case in enumerate(sorted(phantom_dir.rglob("*_flair.nii"))[:2]):
        to = folder / "scans" / f"other{number}"
        to.mkdir(parents=True)
        for word in ("flair", "t1", "seg"):
            file = case.with_name(case.name.replace("_flair", f"_{word}"))
            shutil.copy(file, to / f"other{number}_{word}.nii")
    path = folder / "other.h5"
    words = ("--size", 64, "--workers", 1, "--modalities", "flair,t1", "--val-fraction", 0)
    run_brats("build-cache", folder / "scans", "--out", path, *words)
    return open_cache(path)


@pytest.mark.parametrize("resident", ["never", "always"])
@pytest.mark.parametrize("context", [0, 1])
def test_missing_modalities_arrive_as_zeros(
    cache: Cache, other: Cache, resident: str, context: int
) -> None:
    caches = [cache, other]
    rows = RowSet(cache=np.array([0, 1, 1, 0]), row=np.array([3, 5, 2, 7]))
    feeder = make_feeder(caches, rows, context=context, largest=4, device=CPU, resident=resident)
    ((images, masks),) = list(feeder.feed([np.arange(4)]))
    middle = images.numpy().reshape(4, 2 * context + 1, 4, 64, 64)[:, context]
    assert all_modalities(caches) == ("t1", "t1ce", "t2", "flair")
    for sample, (which, row) in enumerate(zip(rows.cache, rows.row, strict=True)):
        source = caches[which]
        assert np.array_equal(masks[sample].numpy(), source.masks[row])
        for channel, name in enumerate(all_modalities(caches)):
            held = source.preparation.modalities
            expected = source.images[row][held.index(name)] if name in held else 0
            assert (middle[sample, channel] == expected).all()


def test_only_training_takes_caches_of_different_modalities(cache: Cache, other: Cache) -> None:
    paths = [cache.path, other.path]
    with pytest.raises(BratsError, match="prepared differently"):
        open_caches(paths)
    assert len(open_caches(paths, same_modalities=False)) == 2


def test_a_run_on_both_learns_to_do_without_and_is_scored_on_both(
    cache: Cache, other: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    caches = ("--cache", cache.path, "--cache", other.path)
    words = ("--epochs", 1, "--set", f"model.encoder={SMALL_ENCODER}", "--encoder-weights", "none")
    call("train", *caches, *words, "--batch-size", 8, "--run-dir", tmp_path / "run")
    spec, _, _ = load_network(tmp_path / "run" / "best.pt")
    assert spec.accepts_missing
    assert spec.preparation.modalities == ("t1", "t1ce", "t2", "flair")
    call("eval", "--run-dir", tmp_path / "run", "--split", "train")
    scored = (tmp_path / "run" / "eval" / "train" / "cases.csv").read_text()
    assert "other0" in scored
    assert "BraTS20" in scored


def test_placed_channels_are_those_of_their_names() -> None:
    images = np.arange(8, dtype=np.float16).reshape(2, 2, 1, 2)
    placed = place_channels(images, ("flair", "t1"), ("t1", "t2", "flair"))
    assert np.array_equal(placed[:, [2, 0]], images)
    assert not placed[:, 1].any()
    assert place_channels(images, ("flair", "t1"), ("flair", "t1")) is images
    assert np.array_equal(place_channels(images, ("flair", "t1"), ("t1",)), images[:, 1:])
