"""Where predict takes its cases from: a manifest, the files of one case, folders with masks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_cache.imaging.preprocess import Preparation
from brats_train.inference.case_sources import case_of_files
from brats_train.models.checkpoint import SegmenterSpec
from brats_train.models.network import ModelConfig
from tests.train.runs import call, ids, make_run

MODALITIES = ("t1", "t1ce", "t2", "flair")


def spec_of(*modalities: str) -> SegmenterSpec:
    """A model of some modalities."""
    return SegmenterSpec(
        model=ModelConfig(in_channels=len(modalities), classes=1),
        regions=("wt",),
        preparation=Preparation(modalities=modalities),
        label_scheme="brats2017",
        weights_from="none",
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Cache) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "r", cache, target="regions")


@pytest.fixture
def source(phantom_dir: Path, cache: Cache) -> Path:
    """A case folder of the phantom."""
    (path,) = phantom_dir.rglob(f"{ids(cache, 'train')[0]}_t1.nii")
    return path.parent


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("p7/P-7_t1.nii", "p7/P-7_t1ce.nii", "p7/P-7_t2.nii", "p7/P-7_flair.nii"), "P-7"),
        (("a/x.1_T1w.nii", "a/x.1_T1w_Gd.nii", "b/x.1_T2w.nii", "b/x.1_FLAIR.nii"), "x.1"),
        (("day 3/one.nii", "day 3/two.nii", "day 3/three.nii", "day 3/four.nii.gz"), "day 3"),
        (("s/m/t1.nii", "s/m/t1c.nii", "s/n/t2.nii", "s/n/flair.nii"), "s"),
    ],
)
def test_the_id_is_what_the_names_have_in_common(
    tmp_path: Path, names: tuple[str, ...], expected: str
) -> None:
    files = {role: tmp_path / name for role, name in zip(MODALITIES, names, strict=True)}
    case = case_of_files(files, spec_of("flair", "t1"))
    assert list(case.images) == ["flair", "t1"]
    assert case_of_files(files, spec_of(*MODALITIES)).id == expected


def test_a_modality_that_is_missing_is_named(tmp_path: Path) -> None:
    files = {"t1": tmp_path / "a.nii"}
    with pytest.raises(BratsError, match="--t2, no --flair"):
        case_of_files(files, spec_of("t1", "t2", "flair"))
    spec = replace(spec_of("t1", "t2", "flair"), accepts_missing=True)
    assert list(case_of_files(files, spec).images) == ["t1"]
    with pytest.raises(BratsError, match="no --t2"):
        case_of_files(files, replace(spec_of("t2"), accepts_missing=True))


def test_a_manifest_names_cases_files_and_schemes(
    run: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files of any name; the masks that it may name do not matter."""
    for number, name in enumerate(MODALITIES):
        shutil.copy(source / f"{source.name}_{name}.nii", tmp_path / f"{number}.nii")
    files = "0.nii,1.nii,2.nii,3.nii"
    table = tmp_path / "cases.csv"
    table.write_text(f"case,t1,t1ce,t2,flair,seg,scheme\nAda,{files},gone.nii,brats2023\n")
    out = tmp_path / "out"
    call("predict", "--manifest", table, "--run", run, "--out", out, "--device", "cpu")
    assert {path.name for path in out.iterdir()} == {"Ada.nii.gz", "Ada.json"}
    assert set(np.unique(nib.load(out / "Ada.nii.gz").dataobj)) <= {0, 1, 2, 3}
    capsys.readouterr()
    table.write_text(f"case,t1,t1ce,t2,flair,scheme\nBob,{files},martian\n")
    words = ("--run", run, "--out", tmp_path / "other", "--device", "cpu")
    call("predict", "--manifest", table, *words, code=1)
    assert "martian" in capsys.readouterr().err
    call("predict", source, "--manifest", table, *words, code=2)


def test_masks_beside_the_scans_do_not_matter(run: Path, source: Path, tmp_path: Path) -> None:
    """Two masks in the case's folder and one of another tool in a folder below."""
    folder = tmp_path / "in" / source.name
    shutil.copytree(source, folder)
    mask = folder / f"{source.name}_seg.nii"
    shutil.copy(mask, folder / f"{source.name}_mask.nii")
    (folder / "checked").mkdir()
    shutil.copy(mask, folder / "checked" / f"{source.name}_tool7_seg.nii")
    mask.write_bytes(b"no mask at all")
    call("predict", folder, "--run", run, "--out", tmp_path / "out", "--device", "cpu")
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == [f"{source.name}.nii.gz"]
