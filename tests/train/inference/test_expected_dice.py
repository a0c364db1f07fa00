"""The expected Dice: 1 where members agree and are sure, less where either fails, the same for all
who ask; and the map of uncertainty lies on the scan."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import brats_train
from brats_cache.format.reader import Cache
from brats_train.inference.ensemble import _overlaps
from brats_train.inference.expected_dice import agreement_of, expected_dice
from brats_train.inference.postprocess import entropy
from tests.train.runs import call, ids, make_run, predict


def overlaps_of(*members: np.ndarray) -> np.ndarray:
    """(K, M, M) of masks (K, voxels)."""
    return np.array(
        [[[np.sum(a & b) for b in one] for a in one] for one in zip(*members, strict=True)]
    )


def test_members_that_agree_have_1_and_strangers_0() -> None:
    mask, other = np.array([[True, True, False]]), np.array([[False, False, True]])
    assert agreement_of(overlaps_of(mask, mask, mask)) == [1.0]
    assert agreement_of(overlaps_of(mask, other)) == [0.0]
    assert agreement_of(overlaps_of(mask)) == [1.0]
    assert agreement_of(overlaps_of(mask, mask, other)) == pytest.approx([1 / 3])
    nothing = np.zeros_like(mask)
    assert agreement_of(overlaps_of(nothing, nothing)) == [1.0]
    assert agreement_of(overlaps_of(nothing, mask)) == [0.0]


def test_overlaps_are_counted_in_the_brain_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    members = [torch.rand((3, 2, 8, 8), generator=generator) < 0.4 for _ in range(3)]
    brain = torch.rand((3, 8, 8), generator=generator) < 0.7
    found = _overlaps(members, brain).numpy()
    inside = [np.moveaxis((one & brain[:, None]).numpy(), 1, 0).reshape(2, -1) for one in members]
    np.testing.assert_array_equal(found, overlaps_of(*inside))


def test_a_sure_mask_expects_more_than_a_doubtful_one() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((1, 4, 8, 8)) < 0.3
    agreement = np.array([0.9])
    values = [
        float(expected_dice(np.where(masks, p, 0.0).swapaxes(0, 1), masks, agreement)[0])
        for p in (0.5, 0.7, 1.0)
    ]
    assert values == pytest.approx([0.45, 0.63, 0.9])


def test_an_empty_mask_expects_much_where_nothing_was_probable() -> None:
    masks = np.zeros((1, 2, 4, 4), bool)
    probabilities = np.zeros((2, 1, 4, 4), np.float32)
    assert expected_dice(probabilities, masks, np.ones(1)) == [1.0]
    probabilities[0, 0, 0, 0] = 0.25
    assert expected_dice(probabilities, masks, np.ones(1)) == [0.75]
    assert expected_dice(probabilities[:0], masks[:, :0], np.ones(1)) == [1.0]


def test_entropy_is_a_bit_at_most() -> None:
    values = entropy(np.array([0.0, 1.0, 0.5, 0.11, 0.89], np.float32))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [0, 0, 1, 0.5, 0.5], atol=1e-3)


def test_eval_predict_and_python_tell_one_figure(
    tmp_path: Path, cache: Cache, phantom_dir: Path
) -> None:
    """Of four flips; kept by eval for the next one, and beside the mask."""
    run = make_run(tmp_path / "run", cache, target="regions", tta=True)
    words = ("--run", run, "--device", "cpu")
    call("eval", *words)
    table = (run / "eval/val/cases.csv").read_text()
    call("eval", *words)  # from what is stored
    assert (run / "eval/val/cases.csv").read_text() == table
    case = ids(cache, "val")[0]
    rows = {row["region"]: row for row in csv.DictReader(table.splitlines()) if row["case"] == case}
    (folder,) = (path.parent for path in phantom_dir.rglob(f"{case}_t1.nii"))
    call("predict", folder, *words, "--out", tmp_path / "out", "--uncertainty", "--probabilities")
    told = json.loads((tmp_path / "out" / f"{case}.json").read_text())["expected_dice"]
    result = brats_train.load_model(run, device="cpu").predict(folder)
    for region in ("wt", "tc", "et"):
        assert 0 < told[region] < 1
        assert float(rows[region]["expected_dice"]) == pytest.approx(told[region], abs=2e-6)
        assert result.expected_dice[region] == pytest.approx(told[region], abs=2e-6)
    bits = nib.load(tmp_path / "out" / f"{case}_uncertainty.nii.gz")
    scan = nib.load(folder / f"{case}_t1.nii")
    probabilities = nib.load(tmp_path / "out" / f"{case}_prob.nii.gz")
    assert bits.shape == (*scan.shape, 3)
    assert np.array_equal(bits.affine, scan.affine)
    assert np.array_equal(
        np.asarray(bits.dataobj), entropy(np.asarray(probabilities.dataobj, np.float32))
    )
    summary = json.loads((run / "eval/val/summary.json").read_text())
    assert set(summary["regions"]["wt"]["expected_dice"]) == {
        *("num_cases", "mean", "rank_correlation", "mean_absolute_error", "mean_difference")
    }


def test_one_member_tells_how_sure_it_is(
    run: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(run, scans, tmp_path / "out", "--no-tta", "--probabilities")
    last = capsys.readouterr().out.splitlines()[-1]
    least = []
    for folder in scans.iterdir():
        told = json.loads((tmp_path / "out" / f"{folder.name}.json").read_text())["expected_dice"]
        whole = np.asarray(nib.load(tmp_path / "out" / f"{folder.name}_prob.nii.gz").dataobj)
        mask = np.asarray(nib.load(tmp_path / "out" / f"{folder.name}.nii.gz").dataobj) > 0
        assert told["wt"] == pytest.approx(float(whole[..., 0][mask].mean()), abs=1e-3)
        least += [(value, folder.name, region.upper()) for region, value in told.items()]
    value, case, region = min(least)
    assert last.startswith(f"Lowest expected Dice: {value:.2f} ({case}, {region}), ")
