"""From scan to mask: the source's grid, the probabilities of eval, no case lost to another."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import brats_train
from brats_cache.common.errors import Fault
from brats_cache.format.reader import Cache
from brats_train.inference.ensemble import load_ensemble, to_native
from brats_train.inference.predict import _advise
from tests.train.runs import call, contents, index_of, make_run, predict


def brain_of_scans(folder: Path) -> np.ndarray:
    """(Z, Y, X) bool: where any modality of a case stored as LPS is not 0."""
    volumes = [np.asarray(nib.load(path).dataobj).T for path in folder.iterdir()]
    return np.any([volume != 0 for volume in volumes], axis=0)


def test_a_mask_lies_on_its_scan(run: Path, scans: Path, tmp_path: Path) -> None:
    for place, folder in enumerate(sorted(scans.iterdir())):
        for path in folder.iterdir():  # codes of its own that must come back
            image = nib.load(path, mmap=False)
            image.set_qform(image.affine, code=1 + place)
            image.set_sform(image.affine, code=3)
            nib.save(image, path)
    predict(run, scans, tmp_path / "out")
    for folder in scans.iterdir():
        source = nib.load(folder / f"{folder.name}_t1.nii")
        mask = nib.load(tmp_path / "out" / f"{folder.name}.nii.gz")
        assert mask.shape == source.shape
        assert np.array_equal(mask.affine, source.affine)
        for code in ("qform_code", "sform_code"):
            assert mask.header[code] == source.header[code]
        assert np.array_equal(mask.header.get_qform(), source.header.get_qform())
        assert mask.get_data_dtype() == np.uint8
        assert set(np.unique(mask.dataobj)) <= {0, 1, 2, 4}


def test_masks_that_exist_are_refused_before_the_model_is_loaded(
    run: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = sorted(folder.name for folder in scans.iterdir())
    mask = tmp_path / "out" / f"{names[0]}.nii.gz"
    mask.parent.mkdir()
    mask.write_bytes(b"mine")
    monkeypatch.setattr("brats_train.inference.case_models.load_case_models", pytest.fail)
    call("predict", scans, "--run", run, "--out", mask.parent, code=1)
    said = capsys.readouterr().err
    assert f"{mask}: exists already, as do files of 1 of the {len(names)} cases" in said
    assert "--resume" in said
    assert mask.read_bytes() == b"mine"


def test_orientation_makes_no_difference(run: Path, scans: Path, tmp_path: Path) -> None:
    turned = tmp_path / "ras"
    for path in scans.rglob("*.nii"):
        (turned / path.parent.name).mkdir(parents=True, exist_ok=True)
        nib.save(nib.as_closest_canonical(nib.load(path)), turned / path.parent.name / path.name)
    predict(run, scans, tmp_path / "a")
    predict(run, turned, tmp_path / "b")
    masks = sorted((tmp_path / "a").glob("*.nii.gz"))
    assert len(masks) == 2
    for path in masks:
        original, mask = nib.load(path), nib.load(tmp_path / "b" / path.name)
        assert nib.aff2axcodes(mask.affine) == ("R", "A", "S")
        back = nib.as_closest_canonical(original)
        assert np.array_equal(back.dataobj, mask.dataobj)
        assert np.asarray(mask.dataobj).any()


def test_probabilities_are_those_of_the_cached_rows(
    run: Path, scans: Path, tmp_path: Path, cache: Cache
) -> None:
    """Bit for bit: one implementation prepares the slices, and they go through in equal chunks."""
    predict(run, scans, tmp_path / "out", "--probabilities")
    ensemble = load_ensemble([run / "best.pt"], torch.device("cpu"))
    for folder in scans.iterdir():
        record = cache.cases[index_of(cache, folder.name)]
        rows = slice(record["first_row"], record["first_row"] + record["rows"])
        expected = to_native(
            ensemble.probabilities(np.asarray(cache.images[rows]), cache.slices["z"][rows]),
            64,
            64,
            "resize",
        )
        image = nib.load(tmp_path / "out" / f"{folder.name}_prob.nii.gz")
        assert image.get_data_dtype() == np.float32
        volume = np.asarray(image.dataobj).transpose(3, 2, 1, 0)  # stored LPS, as BraTS is
        brain = brain_of_scans(folder)
        z_indices = cache.slices["z"][rows]
        assert np.array_equal(volume[:, z_indices], expected.swapaxes(0, 1) * brain[z_indices])
        assert not volume[:, ~brain].any()
        mask = np.asarray(nib.load(tmp_path / "out" / f"{folder.name}.nii.gz").dataobj)
        assert mask.any()
        assert np.array_equal(mask.T > 0, (volume >= 0.5).any(axis=0))


def test_maps_of_an_earlier_prediction_do_not_stay_beside_a_new_mask(
    run: Path, scans: Path, tmp_path: Path, cache: Cache
) -> None:
    out, mine = tmp_path / "out", tmp_path / "out" / "mine_prob.nii.gz"
    predict(run, scans, out, "--probabilities", "--uncertainty")
    mine.write_bytes(b"mine")
    case = sorted(scans.iterdir())[0]
    mask = tmp_path / "out" / f"{case.name}_uncertainty.nii.gz"  # of a case that is called so
    shutil.copy(out / f"{case.name}.nii.gz", mask)
    before = contents(out)
    predict(run, scans, out, "--overwrite")  # the same prediction
    assert contents(out) == before
    other = make_run(tmp_path / "other", cache, target="regions", seed=7)
    predict(other, scans, out, "--overwrite")
    names = {path.name for path in out.glob("*_prob*")} | {path.name for path in out.glob("*_unc*")}
    assert names == {mine.name, mask.name}


def test_labels_of_a_data_set_that_are_not_understood_are_those_of_the_training(
    run: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A raw folder of nnU-Net whose dataset.json has names of its own for the regions."""
    images = tmp_path / "raw" / "imagesTs"
    images.mkdir(parents=True)
    for number, case in enumerate(sorted(scans.iterdir())):
        for channel, name in enumerate(("t1", "t1ce", "t2", "flair")):
            target = images / f"BraTS2021_0000{number}_{channel:04d}.nii"
            shutil.copy(case / f"{case.name}_{name}.nii", target)
    description = {
        "channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"},
        "labels": {"background": 0, "whole tumor": 1, "tumor core": 2, "enhancing tumor": 3},
        "numTraining": 0,
        "file_ending": ".nii",
    }
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps(description))
    predict(run, tmp_path / "raw", tmp_path / "out")
    assert "labels that are not understood" in capsys.readouterr().err
    ours, theirs = (
        [np.asarray(nib.load(path).dataobj) for path in sorted(folder.glob("*.nii.gz"))]
        for folder in (tmp_path / "out", tmp_path / "straight")
        if folder.name == "out" or not predict(run, scans, folder)
    )
    assert len(ours) == 2
    for mask, same in zip(ours, theirs, strict=True):
        assert np.array_equal(mask, same)


@pytest.mark.parametrize(
    ("remedy", "expected"),
    [
        ("Repair the scan, or leave the case out with --skip-bad.", "Repair the scan."),
        ("Add the files, or ask for --modalities t1.", "The model was trained on t1, flair."),
        ("Use --fit resize.", "The model's cache decides that. For another: Use --fit resize."),
        ("Repair it.", "Repair it."),
    ],
)
def test_advice_is_for_who_predicts(remedy: str, expected: str) -> None:
    fault = Fault(case="a", path=None, found="b", expected="c", remedy=remedy)
    assert _advise(fault, ("t1", "flair")).remedy == expected


def test_nothing_is_replaced_unless_it_is_said(
    run: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    predict(run, scans, out)
    assert f"Model: {run}/best.pt" in capsys.readouterr().err
    before = contents(out)
    predict(run, scans, out, code=1)
    assert "--resume" in capsys.readouterr().err
    predict(run, scans, out, "--resume", "--overwrite")  # all can be kept
    assert contents(out) == before
    predict(run, scans, out, "--tta", "--overwrite")
    assert contents(out).keys() == before.keys()
    assert contents(out) != before


def test_one_bad_case_does_not_stop_the_others(
    run: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, *_ = names = sorted(folder.name for folder in scans.iterdir())
    shutil.copytree(scans / good, scans / "other")
    for path in (scans / "other").iterdir():
        path.rename(path.with_name(path.name.replace(good, "other")))
    (scans / "other" / "other_t2.nii").unlink()
    torn = scans / names[1] / f"{names[1]}_flair.nii"
    torn.write_bytes(torn.read_bytes()[:-100])
    predict(run, scans, tmp_path / "out", code=1)
    told = capsys.readouterr().err
    assert "2 faults in 2 cases" in told
    assert "other" in told
    assert "t2" in told
    assert torn.name in told
    assert set(contents(tmp_path / "out")) == {f"{good}.nii.gz", f"{good}.json"}


def test_several_runs_are_averaged(run: Path, scans: Path, tmp_path: Path, cache: Cache) -> None:
    other = make_run(tmp_path / "other", cache, target="regions", seed=7)
    for out, words in (("a", ()), ("b", ("--run", other))):
        predict(run, scans, tmp_path / out, "--probabilities", *words)
    predict(other, scans, tmp_path / "c", "--probabilities")
    maps = sorted((tmp_path / "a").glob("*_prob.nii.gz"))
    assert len(maps) == 2
    for path in maps:
        one, mean, two = (
            np.asarray(nib.load(tmp_path / name / path.name).dataobj) for name in "abc"
        )
        assert np.allclose(mean, (one + two) / 2, atol=1e-6)


def test_a_full_disk_is_one_message_and_leaves_no_half_mask(
    run: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("brats_cache.common.files.os.fsync", full)
    predict(run, scans, tmp_path / "out", code=1)
    assert "No space left on device" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_that_cannot_be_made_is_one_message(
    run: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    predict(run, scans, tmp_path / "file" / "out", code=1)
    assert "cannot be made" in capsys.readouterr().err


def test_a_checkpoint_and_a_run_are_not_asked_for_at_once(
    run: Path, scans: Path, tmp_path: Path
) -> None:
    predict(run, scans, tmp_path / "out", "--checkpoint", run / "best.pt", code=2)
    words = ("--checkpoint", run / "best.pt", "--out", tmp_path / "out", "--device", "cpu")
    call("predict", scans, *words)
    assert len(contents(tmp_path / "out")) == 4  # a mask and what is told of it, twice


def test_scans_of_whole_heads_are_warned_of_once(
    run: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(run, scans, tmp_path / "stripped")
    assert "skull" not in capsys.readouterr().err
    for path in scans.rglob("*.nii"):
        image = nib.load(path, mmap=False)
        volume = np.asarray(image.dataobj).copy()
        volume[volume == 0] = 7
        nib.save(nib.Nifti1Image(volume, image.affine, image.header), path)
    predict(run, scans, tmp_path / "heads")
    told = capsys.readouterr().err
    assert told.count("skull-stripped") == 1
    assert "2 of 2 cases" in told
    assert "HD-BET" in told
    assert len(list((tmp_path / "heads").glob("*.nii.gz"))) == 2
    result = brats_train.load_model(run, device="cpu").predict(case := sorted(scans.iterdir())[0])
    assert any("skull" in warning for warning in result.warnings)
    details = json.loads((tmp_path / "heads" / f"{case.name}.json").read_text())
    assert details["warnings"] == list(result.warnings)


def test_a_modality_may_be_missing_where_the_model_was_trained_without(
    run: Path, scans: Path, tmp_path: Path, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mask is that of a scan whose missing channel is 0; other models refuse, naming it."""
    for path in scans.rglob("*_flair.nii"):
        path.unlink()
    predict(run, scans, tmp_path / "refused", code=1)
    assert "flair" in capsys.readouterr().err
    able = make_run(tmp_path / "able", cache, target="regions", accepts_missing=True)
    predict(able, scans, tmp_path / "out", "--probabilities")
    assert "flair is missing, predicted without it: 2 of 2 cases" in capsys.readouterr().err
    ensemble = load_ensemble([able / "best.pt"], torch.device("cpu"))
    for folder in scans.iterdir():
        rows = cache.row_slice(index_of(cache, folder.name))
        images = np.array(cache.images[rows])
        images[:, cache.preparation.modalities.index("flair")] = 0
        expected = to_native(
            ensemble.probabilities(images, cache.slices["z"][rows]), 64, 64, "resize"
        )
        image = nib.load(tmp_path / "out" / f"{folder.name}_prob.nii.gz")
        volume = np.asarray(image.dataobj).transpose(3, 2, 1, 0)
        z_indices = cache.slices["z"][rows]
        inside = brain_of_scans(folder)[z_indices]
        predicted = volume[:, z_indices].swapaxes(0, 1)
        np.testing.assert_array_equal(predicted, expected * inside[:, None])


def test_a_threshold_is_overruled_and_an_empty_mask_told(
    run: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = []
    for threshold in (0.0, 0.5, 1.0):
        out = tmp_path / str(threshold)
        predict(run, scans, out, "--threshold", threshold)
        told = "an empty mask, no tumour was found: 2 of 2 cases" in capsys.readouterr().err
        assert told == (threshold == 1.0)
        masks = [np.asarray(nib.load(path).dataobj) for path in out.glob("*.nii.gz")]
        sizes.append(sum(map(np.count_nonzero, masks)))
    assert sizes[0] > sizes[1] > sizes[2] == 0
    model = brats_train.load_model(run, device="cpu")
    result = model.predict(sorted(scans.iterdir())[0], threshold=1.0)
    assert result.warnings[-1] == "an empty mask, no tumour was found"
    predict(run, scans, tmp_path / "0.0", "--threshold", 0.5, "--resume", code=1)
