"""Scans unlike the training scans are told apart from those that only vary as the others do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import brats_train
from brats_cache.format.reader import Cache
from brats_cache.imaging.scan_check import FLAT, NOT_STRIPPED, OTHER_SPACING
from brats_train.data.selection import select_rows
from brats_train.inference.case_prediction import prepare_arrays
from brats_train.inference.ensemble import average, load_ensemble
from brats_train.inference.familiarity import compare_look
from brats_train.inference.scan_look import look_of, looks_of_rows
from brats_train.models.checkpoint import SegmenterSpec, load_network, pack, save
from brats_train.models.description import Description
from brats_train.models.looks import MAX_LOOKS, ScanLook, pool_looks
from brats_train.models.sources import load_models
from tests.train.runs import call, index_of, predict

MODALITIES = ("t1", "t1ce", "t2", "flair")


@pytest.fixture(scope="module")
def looks(cache: Cache) -> tuple[ScanLook, ...]:
    """How the training cases of the phantom look."""
    rows = select_rows([cache], "train", "all")
    return looks_of_rows([cache], rows, cache.preparation.modalities)


@pytest.fixture(scope="module")
def knowing(
    run: Path, looks: tuple[ScanLook, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The untrained run, which remembers them."""
    spec, network, _ = load_network(run / "best.pt")
    path = tmp_path_factory.mktemp("knowing")
    (path / "config.json").write_bytes((run / "config.json").read_bytes())
    with open(path / "best.pt", "wb") as file:
        save(pack(replace(spec, looks=looks), network.state_dict()), file)
    return path


@pytest.fixture(scope="module")
def spec(knowing: Path) -> SegmenterSpec:
    return load_network(knowing / "best.pt")[0]


def volumes_of(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    images = {name: nib.load(folder / f"{folder.name}_{name}.nii") for name in MODALITIES}
    return {name: np.asarray(one.dataobj) for name, one in images.items()}, images["t1"].affine


def case_of(phantom_dir: Path, cache: Cache, split: str = "val") -> Path:
    """The folder of a case that the run has not seen."""
    index = int(np.flatnonzero(cache.cases["split"] == split.encode())[0])
    name = cache.case_id(index)
    (path,) = (one.parent for one in phantom_dir.rglob(f"{name}_t1.nii"))
    return path


def said_of(
    spec: SegmenterSpec, volumes: dict[str, np.ndarray], affine: np.ndarray
) -> tuple[str, tuple[str, ...]]:
    prepared = prepare_arrays(volumes, affine, spec)
    return prepared.unfamiliar, prepared.warnings


def test_cache_and_scan_give_one_look(
    spec: SegmenterSpec, phantom_dir: Path, cache: Cache, looks: tuple[ScanLook, ...]
) -> None:
    """Whatever slices the cache holds, those in the middle are among them."""
    folder = case_of(phantom_dir, cache)
    index = index_of(cache, folder.name)
    volumes, affine = volumes_of(folder)
    prepared = prepare_arrays(volumes, affine, spec)
    grid = cache.grid(index)
    rows = cache.row_slice(index)
    look = look_of(np.asarray(cache.images[rows]), cache.slices["z"][rows], grid)
    assert look == look_of(prepared.images, prepared.z_indices, grid)
    middle = prepared.z_indices == cache.depth(index) // 2
    alone = look_of(prepared.images[middle], prepared.z_indices[middle], grid)
    assert compare_look(alone, looks, MODALITIES, MODALITIES).line == ""


def test_scans_like_the_others_are_not_warned_of(
    spec: SegmenterSpec, scans: Path, phantom_dir: Path, cache: Cache
) -> None:
    for folder in [*scans.iterdir(), case_of(phantom_dir, cache)]:
        assert said_of(spec, *volumes_of(folder)) == ("", ())


@pytest.mark.parametrize(("one", "other"), [("t1", "t2"), ("t1ce", "t2"), ("t2", "flair")])
def test_exchanged_modalities_are_named(
    spec: SegmenterSpec, phantom_dir: Path, cache: Cache, one: str, other: str
) -> None:
    volumes, affine = volumes_of(case_of(phantom_dir, cache))
    line, _ = said_of(spec, {**volumes, one: volumes[other], other: volumes[one]}, affine)
    assert "exchanged" in line
    assert f"{one} like {other}" in line
    assert f"{other} like {one}" in line


def test_what_else_is_wrong_is_named_with_what_training_had(
    spec: SegmenterSpec, phantom_dir: Path, cache: Cache
) -> None:
    volumes, affine = volumes_of(case_of(phantom_dir, cache))
    assert "t1 and t2 are one image" in said_of(spec, {**volumes, "t2": volumes["t1"]}, affine)[0]
    line, kinds = said_of(spec, volumes, affine @ np.diag([1, 1, 5.0, 1]))
    assert "voxels of 5 x 1 x 1 mm (training 1 x 1 x 1)" in line
    assert OTHER_SPACING not in kinds
    line, kinds = said_of(spec, {name: one + 7 for name, one in volumes.items()}, affine)
    assert "skull" in line
    assert NOT_STRIPPED not in kinds
    half = tuple(slice(0, size // 2) for size in volumes["t1"].shape[:1])
    assert (
        "field of view"
        in said_of(spec, {name: one[half] for name, one in volumes.items()}, affine)[0]
    )
    flair = volumes["flair"]
    flat = np.where(flair > np.median(flair[flair != 0]), 2, 1) * (flair != 0)
    line, kinds = said_of(spec, {**volumes, "flair": flat}, affine)
    assert FLAT in kinds or "flair of other intensities" in line


def test_what_is_usual_in_training_is_no_warning(looks: tuple[ScanLook, ...]) -> None:
    heads = [
        replace(look, spacing_mm=(5.0, 1.0, 1.0), brain_share=0.9 + 0.01 * number)
        for number, look in enumerate(looks)
    ]
    kinds = (NOT_STRIPPED, OTHER_SPACING)
    compared = compare_look(heads[0], heads, MODALITIES, MODALITIES, kinds)
    assert (compared.line, compared.kinds) == ("", ())
    stripped = compare_look(looks[0], heads, MODALITIES, MODALITIES)
    assert "brain in" in stripped.line
    assert "skull" not in stripped.line


def test_a_model_without_looks_says_what_it_said_before(looks: tuple[ScanLook, ...]) -> None:
    for known in ((), looks[:3]):
        compared = compare_look(looks[0], known, MODALITIES, MODALITIES, (NOT_STRIPPED,))
        assert (compared.line, compared.kinds) == ("", (NOT_STRIPPED,))


def test_a_missing_modality_is_not_compared(looks: tuple[ScanLook, ...]) -> None:
    look = looks[0]
    held = MODALITIES[:2]
    some = replace(look, percentiles=look.percentiles[:2], correlations=look.correlations[:1])
    assert compare_look(some, looks, MODALITIES, held).line == ""
    turned = replace(some, percentiles=some.percentiles[::-1])
    assert "t1 like t1ce" in compare_look(turned, looks, MODALITIES, held).line


def test_predict_warns_of_each_case_before_it_is_segmented(
    knowing: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted(scans.iterdir())
    aside = tmp_path / "aside.nii"
    t2, flair = (first / f"{first.name}_{name}.nii" for name in ("t2", "flair"))
    t2.rename(aside)
    flair.rename(t2)
    aside.rename(flair)
    predict(knowing, scans, tmp_path / "out")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "unlike" in line]
    assert line.startswith(f"Warning: {first.name}: unlike the training scans: modalities look")
    assert second.name not in line
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2
    result = brats_train.load_model(knowing, device="cpu").predict(first)
    assert any("t2 like flair" in warning for warning in result.warnings)
    assert brats_train.load_model(knowing, device="cpu").predict(second).warnings == ()


def test_exported_and_averaged_models_remember_too(
    knowing: Path, looks: tuple[ScanLook, ...], tmp_path: Path
) -> None:
    call("export", "--run", knowing, "--format", "hub", "--out", tmp_path / "hub")
    (model,) = load_models(tmp_path / "hub")
    assert model.spec.looks == looks
    models = load_models(knowing)
    packed = Description.of([*models, *models], {}).pack()
    assert Description.unpack(packed).spec.looks == looks
    ensemble = load_ensemble([knowing], torch.device("cpu"))
    assert average([ensemble, ensemble]).spec.looks == looks


def test_pooled_looks_are_few_and_each_once(looks: tuple[ScanLook, ...]) -> None:
    assert pool_looks([looks, looks[:2]]) == looks
    many = [replace(looks[0], brain_share=0.3 + number / 1000) for number in range(3 * MAX_LOOKS)]
    assert len(set(pool_looks([many]))) == MAX_LOOKS
    assert pool_looks([]) == ()
