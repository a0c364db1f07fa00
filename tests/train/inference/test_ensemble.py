"""Probabilities: averaged over flips and models, equal whoever asks, on the scan's own grid."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from brats_cache.common.errors import BratsError
from brats_cache.common.files import write_atomically
from brats_cache.format.reader import Cache
from brats_train.inference.ensemble import SLICES_AT_ONCE, Ensemble, load_ensemble, to_native
from brats_train.models import checkpoint
from brats_train.models.postprocessing import Postprocessing, RegionRule
from tests.train.runs import make_run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cache: Cache) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_run(folder / "a", cache, seed=1, threshold=0.25),
        make_run(folder / "b", cache, seed=2, threshold=0.75, min_component_voxels=10),
    ]


def ensemble(*runs: Path) -> Ensemble:
    return load_ensemble([run / "best.pt" for run in runs], CPU, amp="off")


def some_slices(cache: Cache, num: int) -> np.ndarray:
    return np.asarray(cache.images[:num])


def predict(ensemble: Ensemble, images: np.ndarray, *, tta: bool = False) -> torch.Tensor:
    return ensemble.probabilities(images, np.arange(len(images)), tta)


def test_flips_are_averaged(cache: Cache, runs: list[Path]) -> None:
    images = some_slices(cache, 3)
    one = ensemble(runs[0])
    flips: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))
    parts = [predict(one, np.flip(images, dims).copy()).flip(dims) for dims in flips]
    mean = torch.stack(parts).mean(dim=0)
    assert torch.allclose(predict(one, images, tta=True), mean, atol=1e-6)
    assert not torch.allclose(predict(one, images), mean, atol=1e-3)


def test_models_are_averaged(cache: Cache, runs: list[Path]) -> None:
    images = some_slices(cache, 3)
    mean = (predict(ensemble(runs[0]), images) + predict(ensemble(runs[1]), images)) / 2
    both = ensemble(*runs)
    assert torch.equal(predict(both, images), mean)
    rule = RegionRule(threshold=0.5, min_component_voxels=5)
    assert both.spec.postprocessing.rule("wt") == rule


def test_equal_slices_give_equal_bits_whoever_asks(cache: Cache, runs: list[Path]) -> None:
    images = some_slices(cache, SLICES_AT_ONCE + 3)
    one = ensemble(runs[0])
    assert torch.equal(predict(one, images)[:SLICES_AT_ONCE], predict(one, images[:SLICES_AT_ONCE]))


def test_a_case_without_slices_has_no_probabilities(cache: Cache, runs: list[Path]) -> None:
    none = predict(ensemble(runs[0]), some_slices(cache, 0))
    assert none.shape == (0, 1, *cache.shape[2:])
    assert to_native(none, 50, 40, "resize").shape == (0, 1, 50, 40)


@pytest.mark.parametrize("what", ["regions", "preparation"])
def test_models_that_do_not_fit_together_are_refused(
    tmp_path: Path, cache: Cache, runs: list[Path], what: str
) -> None:
    other = make_run(tmp_path / "other", cache, target="regions" if what == "regions" else "wt")
    if what == "preparation":
        content = checkpoint.load(other / "best.pt")
        content["segmenter"]["preparation"]["normalize"] = "percentile"
        write_atomically(other / "best.pt", partial(checkpoint.save, content))
    with pytest.raises(BratsError, match=f"cannot be averaged: their {what}"):
        ensemble(runs[0], other)


def test_weights_that_are_no_numbers_are_refused(
    tmp_path: Path, cache: Cache, runs: list[Path]
) -> None:
    content = checkpoint.load(runs[0] / "best.pt")
    for tensor in content["model"].values():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))
    write_atomically(tmp_path / "best.pt", partial(checkpoint.save, content))
    with pytest.raises(BratsError, match="NaN"):
        predict(ensemble(tmp_path), some_slices(cache, 1))


def test_the_way_back_is_bilinear_on_pixel_centres() -> None:
    fitted = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    native = to_native(torch.from_numpy(fitted), 60, 50, "resize")
    for index in np.ndindex(2, 3):
        expected = cv2.resize(fitted[index], (50, 60), interpolation=cv2.INTER_LINEAR)
        assert np.allclose(native[index], expected, atol=1e-5)
    cut = to_native(torch.from_numpy(fitted), 60, 50, "pad")
    assert np.array_equal(cut, fitted[:, :, 2:62, 7:57])


def test_an_older_checkpoint_has_one_rule_for_all_regions(tmp_path: Path, cache: Cache) -> None:
    run = make_run(tmp_path / "old", cache, target="regions")
    content = checkpoint.load(run / "best.pt")
    del content["segmenter"]["postprocessing"], content["segmenter"]["context"]
    content["segmenter"] |= {"threshold": 0.25, "tta": True, "min_component_voxels": 7}
    torch.save({**content, "format_version": 1}, run / "best.pt")
    rule = RegionRule(threshold=0.25, min_component_voxels=7)
    held = ensemble(run).spec.postprocessing
    assert held == Postprocessing(tta=True, rules=dict.fromkeys(("wt", "tc", "et"), rule))


def test_the_moving_average_is_what_is_used_where_a_run_kept_one(
    tmp_path: Path, cache: Cache, runs: list[Path]
) -> None:
    """As `last.pt` has it: the weights that training goes on with, and beside them the average."""
    plain, averaged = (checkpoint.load(run / "best.pt") for run in runs)
    plain["averaged"] = {"num_updates": 3, "module": averaged["model"]}
    write_atomically(tmp_path / "best.pt", partial(checkpoint.save, plain))
    images = some_slices(cache, 2)
    expected = predict(ensemble(runs[1]), images)
    assert torch.equal(predict(ensemble(tmp_path), images), expected)
    plain["averaged"] = None
    write_atomically(tmp_path / "best.pt", partial(checkpoint.save, plain))
    expected = predict(ensemble(runs[0]), images)
    assert torch.equal(predict(ensemble(tmp_path), images), expected)


def test_a_checkpoint_of_an_older_version_is_read(tmp_path: Path, cache: Cache) -> None:
    run = make_run(tmp_path / "old", cache)
    content = checkpoint.load(run / "best.pt")
    content["segmenter"]["model"]["num_grades"] = 0
    torch.save({**content, "format_version": 1}, run / "best.pt")
    assert ensemble(run).spec.model.classes == 1
