"""What is learnt of a case is what its files hold; everything wrong with it is told at once."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brats_cache.build import survey as module
from brats_cache.build.survey import load_case
from brats_cache.common.errors import DataFaults
from brats_cache.discovery.cases import Case, find_cases
from brats_cache.discovery.namings import MODALITIES
from brats_cache.imaging.preprocess import Preparation
from tests.cache.scans import LPS, OLD, SHAPE, add_case, image, mask, write

PREPARATION = Preparation(modalities=MODALITIES)


def the_case(data: Path, modalities: tuple[str, ...] = MODALITIES) -> Case:
    (case,) = find_cases([data], modalities).cases
    return case


def test_a_survey_counts_what_a_reader_of_its_own_counts(tmp_path: Path) -> None:
    folder = add_case(tmp_path, "a", labels=mask((1, 2, 4)))
    loaded = load_case(the_case(tmp_path), PREPARATION)
    survey = loaded.survey
    scans = [nib.load(folder / f"a_{role}.nii").get_fdata() for role in OLD]
    brain = np.any([scan != 0 for scan in scans], axis=0)
    assert survey.shape == SHAPE
    assert survey.codes == "LPS"
    assert np.array_equal(survey.affine, LPS)
    assert survey.brain_pixels.tolist() == brain.sum(axis=(0, 1)).tolist()
    assert survey.label_values == (1, 2, 4)
    labels = mask((1, 2, 4))
    wanted = [(labels == value).sum(axis=(0, 1)).tolist() for value in (1, 2, 4)]
    assert survey.label_pixels.tolist() == wanted
    for scan, found in zip(scans, survey.normalizations, strict=True):
        assert found.center == pytest.approx(scan[brain].mean(), rel=1e-12)
        assert found.scale == pytest.approx(1 / scan[brain].std(), rel=1e-12)
    assert [source.name for source in survey.sources] == [
        f"a/a_{role}.nii" for role in (*OLD, "seg")
    ]


def test_the_statistics_do_not_depend_on_the_order_of_axes(tmp_path: Path) -> None:
    add_case(tmp_path / "a", "a", labels=mask((1,)))
    turn = nib.orientations.axcodes2ornt("RAS")
    for path in sorted((tmp_path / "a").rglob("*.nii")):
        made = nib.load(path)
        there = nib.orientations.ornt_transform(nib.io_orientation(made.affine), turn)
        copy = tmp_path / "b" / "a" / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        nib.save(made.as_reoriented(there), copy)
    first, second = (load_case(the_case(tmp_path / name), PREPARATION).survey for name in "ab")
    assert (first.codes, second.codes) == ("LPS", "RAS")
    assert first.normalizations == second.normalizations
    assert np.array_equal(first.label_pixels, second.label_pixels)


def test_a_case_without_mask_and_one_with_an_empty_mask(tmp_path: Path) -> None:
    add_case(tmp_path / "a", "a")
    add_case(tmp_path / "b", "a", labels=mask(()))
    for name, num_sources in (("a", 4), ("b", 5)):
        survey = load_case(the_case(tmp_path / name), PREPARATION).survey
        assert (survey.label_values, survey.label_pixels.shape) == ((), (0, 6))
        assert len(survey.sources) == num_sources


def test_a_mask_in_another_tree_is_named_by_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    add_case(Path("images"), "a")
    write(Path("masks/a_seg.nii"), mask((1,)))
    (case,) = find_cases([Path("images"), Path("masks")]).cases
    names = [source.name for source in load_case(case, PREPARATION).survey.sources]
    assert names[0] == "a/a_t1.nii"
    assert names[-1] == str(tmp_path / "masks/a_seg.nii")


def test_a_4d_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.nii.gz", np.stack([image(s) for s in range(4)], axis=-1))
    case = the_case(add_case(tmp_path / "data", "a").parent)
    scans = {
        role: type(scan)(path=path, channel=channel)
        for channel, (role, scan) in enumerate(case.images.items())
    }
    case = type(case)(**{**vars(case), "images": scans})
    num_read = []
    real = module.read_contents
    monkeypatch.setattr(module, "read_contents", lambda h: (num_read.append(h), real(h))[1])
    loaded = load_case(case, PREPARATION)
    assert len(num_read) == 1
    for channel, volume in enumerate(loaded.volumes):
        assert np.array_equal(volume, image(channel).T)


@pytest.mark.parametrize(
    ("value", "said"),
    [(np.nan, "3 NaN and 0 infinite"), (np.inf, "0 NaN and 3"), (-np.inf, "0 NaN and 3")],
)
def test_what_is_not_finite_is_counted(tmp_path: Path, value: float, said: str) -> None:
    folder = add_case(tmp_path, "a")
    data = image(1).astype(np.float64)
    data[0, 0, :3] = value  # outside the brain, where nothing would show
    write(folder / "a_flair.nii", data)
    with pytest.raises(DataFaults, match=said) as refusal:
        load_case(the_case(tmp_path), PREPARATION)
    (fault,) = refusal.value.faults
    assert (fault.case, fault.path) == ("a", folder / "a_flair.nii")
    assert "--skip-bad" in fault.remedy


def test_what_cannot_be_normalised_names_each_modality(tmp_path: Path) -> None:
    folder = add_case(tmp_path, "a")
    for role in ("t1", "t2"):
        write(folder / f"a_{role}.nii", np.full(SHAPE, 7, np.int16))
    with pytest.raises(DataFaults) as refusal:
        load_case(the_case(tmp_path), PREPARATION)
    assert [fault.path.name for fault in refusal.value.faults if fault.path] == [
        "a_t1.nii",
        "a_t2.nii",
    ]
    write(folder / "a_t1.nii", np.full(SHAPE, 70000, np.int32))
    with pytest.raises(DataFaults, match="70000 does not fit in float16"):
        load_case(the_case(tmp_path), Preparation(modalities=MODALITIES, normalize="none"))


def test_rounding_of_the_affine_is_no_fault_and_a_shift_is(tmp_path: Path) -> None:
    folder = add_case(tmp_path, "a")
    for shift, passes in ((0.01, True), (0.5, False)):
        affine = LPS.copy()
        affine[0, 3] += shift
        write(folder / "a_t2.nii", image(2), affine)
        if passes:
            load_case(the_case(tmp_path), PREPARATION)
            continue
        with pytest.raises(DataFaults, match=r"up to 0\.5 mm elsewhere"):
            load_case(the_case(tmp_path), PREPARATION)
