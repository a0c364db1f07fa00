"""The Python API: what `brats predict` writes, as arrays."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import brats_train
from brats_cache.common.errors import BratsError, CheckpointError, DataFaults, RunNotFoundError
from brats_cache.format.reader import Cache
from brats_train.inference.case_prediction import prepare_arrays
from tests.train.runs import call, ids, make_run

MODALITIES = ("t1", "t1ce", "t2", "flair")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Cache) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "r", cache, target="regions")


@pytest.fixture(scope="module")
def model(run: Path) -> brats_train.Segmenter:
    return brats_train.load_model(run, device="cpu")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, phantom_dir: Path, cache: Cache) -> Path:
    """A case stored as RAS, so that its axes are not the canonical ones."""
    name = ids(cache, "val")[0]
    folder = tmp_path_factory.mktemp("scans") / name
    folder.mkdir()
    for modality in MODALITIES:
        (path,) = phantom_dir.rglob(f"{name}_{modality}.nii")
        nib.save(nib.as_closest_canonical(nib.load(path)), folder / path.name)
    return folder


def files_of(case: Path) -> dict[str, Path]:
    return {name: case / f"{case.name}_{name}.nii" for name in MODALITIES}


def test_a_folder_gives_what_predict_writes(
    run: Path, model: brats_train.Segmenter, case: Path, tmp_path: Path
) -> None:
    call("predict", case, "--run", run, "--out", tmp_path, "--probabilities", "--device", "cpu")
    result = model.predict(case, probabilities=True)
    mask = nib.load(tmp_path / f"{case.name}.nii.gz")
    assert result.labels.dtype == np.uint8
    assert result.labels.any()
    assert np.array_equal(result.labels, mask.dataobj)
    assert np.array_equal(result.affine, mask.affine)
    volume = np.asarray(nib.load(tmp_path / f"{case.name}_prob.nii.gz").dataobj)
    assert list(result.probabilities) == ["wt", "tc", "et"]
    for channel, region in enumerate(result.probabilities):
        assert np.array_equal(result.probabilities[region], volume[..., channel])


def test_files_and_volumes_give_what_their_folder_gives(
    model: brats_train.Segmenter, case: Path
) -> None:
    files = files_of(case)
    images = {name: nib.load(path) for name, path in files.items()}
    volumes = {name: np.asarray(image.dataobj) for name, image in images.items()}
    expected = model.predict(case)
    of_files = model.predict({name: str(path) for name, path in files.items()})
    assert np.array_equal(of_files.labels, expected.labels)
    assert of_files.scheme == expected.scheme
    of_volumes = model.predict(volumes, affine=images["t1"].affine)
    assert np.array_equal(of_volumes.labels, expected.labels)
    assert np.array_equal(of_volumes.affine, expected.affine)
    assert not of_volumes.probabilities


def test_volumes_without_an_affine_lie_as_those_of_brats(
    model: brats_train.Segmenter, phantom_dir: Path, cache: Cache
) -> None:
    name = ids(cache, "val")[0]
    images = {m: nib.load(next(phantom_dir.rglob(f"{name}_{m}.nii"))) for m in MODALITIES}
    volumes = {modality: np.asarray(image.dataobj) for modality, image in images.items()}
    expected = model.predict(volumes, affine=images["t1"].affine)
    result = model.predict(volumes)
    assert np.array_equal(result.labels, expected.labels)
    assert nib.aff2axcodes(result.affine) == nib.aff2axcodes(expected.affine)
    assert "no affine" in result.warnings[0]
    assert not any("no affine" in warning for warning in expected.warnings)


def test_what_training_chose_can_be_overruled(model: brats_train.Segmenter, case: Path) -> None:
    low, high = (model.predict(case, threshold=level).labels > 0 for level in (0.25, 0.75))
    assert (high & ~low).sum() == 0
    assert low.sum() > high.sum()
    plain, flipped = (model.predict(case, tta=tta, probabilities=True) for tta in (False, True))
    assert not np.array_equal(plain.probabilities["wt"], flipped.probabilities["wt"])


def test_several_models_are_averaged(run: Path, case: Path, cache: Cache, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", cache, target="regions", seed=5)
    one, two, both = (
        brats_train.load_model(source, device="cpu").predict(case, probabilities=True)
        for source in (run, other / "best.pt", [run, other])
    )
    mean = (one.probabilities["et"] + two.probabilities["et"]) / 2
    assert np.allclose(both.probabilities["et"], mean, atol=1e-6)


def test_nothing_is_predicted_outside_the_brain(model: brats_train.Segmenter, case: Path) -> None:
    outside = np.all(
        [np.asarray(nib.load(path).dataobj) == 0 for path in files_of(case).values()], axis=0
    )
    assert outside.any()
    result = model.predict(case, threshold=0.0, probabilities=True)
    assert not result.labels[outside].any()
    assert result.labels[~outside].all()
    assert not result.probabilities["wt"][outside].any()


def test_what_cannot_be_segmented_is_refused(
    model: brats_train.Segmenter, case: Path, tmp_path: Path
) -> None:
    volumes = {name: np.ones((4, 4, 4)) for name in MODALITIES}
    bad = {
        "no t2": {name: volumes[name] for name in ("t1", "t1ce", "flair")},
        "one shape": volumes | {"t1": np.ones((4, 4, 5))},
        "NaN": volumes | {"t1": np.full((4, 4, 4), np.nan)},
        "other than 0": dict.fromkeys(MODALITIES, np.zeros((4, 4, 4))),
        "same value": volumes,
        "some of both": volumes | {"t1": str(case)},
    }
    for words, source in bad.items():
        with pytest.raises(ValueError, match=words):
            model.predict(source, affine=np.eye(4))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no grid"):
        model.predict(volumes, affine=np.diag([1.0, 1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="files have their own"):
        model.predict(case, affine=np.eye(4))
    files = files_of(case)
    del files["t1ce"]
    with pytest.raises(BratsError, match="t1ce"):
        model.predict(files)
    with pytest.raises(DataFaults, match="no files"):
        model.predict(tmp_path)
    shutil.copytree(case, tmp_path / "one" / case.name)
    for path in case.iterdir():
        target = tmp_path / "two" / path.name.replace(case.name, "else")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    with pytest.raises(BratsError, match="2 cases"):
        model.predict(tmp_path)
    torn = tmp_path / "one" / case.name / f"{case.name}_t1.nii"
    torn.write_bytes(torn.read_bytes()[:-10])
    with pytest.raises(DataFaults, match=torn.name):
        model.predict(tmp_path / "one")


def test_what_is_no_run_is_refused(tmp_path: Path, run: Path) -> None:
    with pytest.raises(RunNotFoundError, match=r"best\.pt"):
        brats_train.load_model(tmp_path)
    with pytest.raises(RunNotFoundError, match=r"last\.pt"):
        brats_train.load_model(run, checkpoint="last")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        brats_train.load_model(tmp_path / "none.pt")


def test_the_package_is_imported_without_torch() -> None:
    code = (
        "import sys, brats_train\n"
        "assert 'torch' not in sys.modules\n"
        "assert callable(brats_train.load_model)\n"
        "assert brats_train.BratsSlices.__name__ == 'BratsSlices'\n"
        "assert 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        brats_train.other  # noqa: B018


def test_slices_larger_than_a_padding_model_takes_are_named(model: brats_train.Segmenter) -> None:
    spec = model.ensemble.spec
    padding = replace(spec, preparation=replace(spec.preparation, fit="pad", size=32))
    volumes = dict.fromkeys(MODALITIES, np.ones((40, 32, 4), np.float32))
    with pytest.raises(ValueError, match="slices of 40 pixels; expected 32 at most"):
        prepare_arrays(volumes, np.eye(4), padding)
