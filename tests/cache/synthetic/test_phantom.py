"""Phantoms: BraTS 2020 in layout and contrast, hard for a threshold, equal every time."""

from __future__ import annotations

import csv
import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brats_cache.common.errors import BratsError
from brats_cache.synthetic import write_phantom as write_phantom_module
from brats_cache.synthetic.phantom import PhantomCase, make_case
from brats_cache.synthetic.write_phantom import write_phantom
from tests.commands import PATIENCE

ROOT = Path(__file__).parents[3]
REAL_DATA = Path(os.environ.get("BRATS_REAL_DATA", ROOT.parent / "shared" / "data"))
SMALL = (32, 32, 16)
MODALITIES = {"t1", "t1ce", "t2", "flair"}
CSF, GREY, WHITE = 1, 2, 3


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [make_case(0, index, (64, 64, 32)) for index in range(16)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out_dir = tmp_path_factory.mktemp("phantom")
    write_phantom(out_dir, num_cases=5, num_test_cases=2, seed=3, shape=SMALL, workers=1)
    return out_dir


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def level(case: PhantomCase, modality: str, where: np.ndarray) -> float:
    return float(np.median(case.images[modality][where]))


def share(cases: list[PhantomCase], modality: str, *, scored: bool) -> float:
    """The best IoU that one threshold over all cases reaches, the higher of the IoU of all voxels
    together and the mean of the cases' IoUs."""
    brains, tumours = [], []
    for case in cases:
        brain = case.tissue > 0
        values = case.images[modality][brain].astype(np.float64)
        brains.append((values - values.mean()) / values.std() if scored else values)
        tumours.append(case.mask[brain] > 0)
    thresholds = np.unique(np.quantile(np.concatenate(brains), np.linspace(0, 1, 800)))
    hits, unions = [], []
    for values, tumour in zip(brains, tumours, strict=True):
        above = len(values) - np.searchsorted(np.sort(values), thresholds, "right")
        found = tumour.sum() - np.searchsorted(np.sort(values[tumour]), thresholds, "right")
        hits.append(found)
        unions.append(above + tumour.sum() - found)
    pooled = np.sum(hits, axis=0) / np.sum(unions, axis=0)
    mean = np.mean(np.divide(hits, unions), axis=0)
    return float(max(pooled.max(), mean.max()))


# One case


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    index=st.integers(0, 10**6 + 500),
    shape=st.tuples(st.integers(16, 40), st.integers(16, 40), st.integers(8, 30)),
    grade=st.sampled_from([None, "HGG", "LGG"]),
)
def test_any_case_is_a_skull_stripped_int16_scan_with_brats_labels(seed, index, shape, grade):
    case = make_case(seed, index, shape, grade)
    brain = case.tissue > 0
    assert set(case.images) == MODALITIES
    for image in case.images.values():
        assert image.shape == shape
        assert image.dtype == np.int16
        assert np.array_equal(image > 0, brain), "0 outside the brain and positive inside"
        assert (image >= 0).all()
    assert case.mask.shape == shape
    assert case.mask.dtype == np.uint8
    assert set(np.unique(case.mask)) <= {0, 1, 2, 4}
    assert brain[case.mask > 0].all()
    assert 0.05 < brain.mean() < 0.35
    assert grade in (None, case.grade)
    if case.grade == "LGG":
        assert not (case.mask == 4).any()


def test_a_case_is_a_function_of_seed_index_and_shape():
    first, again = make_case(7, 3, SMALL), make_case(7, 3, SMALL)
    for modality in MODALITIES:
        assert np.array_equal(first.images[modality], again.images[modality])
    assert np.array_equal(first.mask, again.mask)
    for other in (make_case(8, 3, SMALL), make_case(7, 4, SMALL)):
        assert not np.array_equal(first.mask, other.mask)
        assert not np.array_equal(first.tissue, other.tissue)


def test_a_coarser_shape_shows_the_same_head():
    for index in range(4):
        fine, coarse = make_case(1, index, (120, 120, 80)), make_case(1, index, (60, 60, 40))
        blocks = (fine.mask > 0).reshape(60, 2, 60, 2, 40, 2).mean(axis=(1, 3, 5)) > 0.5
        both, either = blocks & (coarse.mask > 0), blocks | (coarse.mask > 0)
        assert both.sum() > 0.7 * either.sum()


def test_tissues_relate_as_they_do_in_each_contrast():
    for index in range(4):
        case = make_case(2, index, (120, 120, 78))
        healthy = {tissue: (case.tissue == tissue) & (case.mask == 0) for tissue in (1, 2, 3)}
        for modality, darkest_first in {
            "t1": (CSF, GREY, WHITE),
            "t1ce": (CSF, GREY, WHITE),
            "t2": (WHITE, GREY, CSF),
            "flair": (CSF, WHITE, GREY),
        }.items():
            levels = [level(case, modality, healthy[tissue]) for tissue in darkest_first]
            assert levels == sorted(levels), (index, modality)
            assert levels[2] > 1.05 * levels[1] > 1.05 * 1.05 * levels[0], (index, modality)


def test_oedema_and_rim_show_where_they_do_in_life(cases):
    for case in cases:
        white = (case.tissue == WHITE) & (case.mask == 0)
        oedema = (case.mask == 2) & (case.tissue == WHITE)
        assert level(case, "flair", oedema) > 1.1 * level(case, "flair", white)
        assert level(case, "t2", oedema) > 1.2 * level(case, "t2", white)
        rim = case.mask == 4
        if rim.sum() > 20:
            assert level(case, "t1ce", rim) > 1.2 * level(case, "t1ce", white)
            assert level(case, "t1", rim) < level(case, "t1", white)


def test_every_tumour_stands_out_in_some_contrast(cases):
    for case in cases:
        white = (case.tissue == WHITE) & (case.mask == 0)
        contrasts = []
        for image in case.images.values():
            spread = np.std(image[white])
            contrasts.append(abs(image[case.mask > 0].mean() - image[white].mean()) / spread)
        assert max(contrasts) > 2, contrasts


def test_grade_decides_what_the_core_holds(cases):
    grades = {case.grade for case in cases}
    assert grades == {"HGG", "LGG"}
    for case in cases:
        core, oedema = (case.mask == 1).sum(), (case.mask == 2).sum()
        assert oedema > 0
        if case.grade == "HGG":
            assert (case.mask == 4).any()
        else:
            assert not (case.mask == 4).any()
            assert core < 0.5 * oedema, "a small core in much oedema"


@given(seed=st.integers(0, 10**9), block=st.integers(0, 200))
@settings(max_examples=4, deadline=None)
def test_four_cases_in_a_row_hold_one_of_low_grade(seed, block):
    grades = [make_case(seed, 4 * block + place, (16, 16, 8)).grade for place in range(4)]
    assert grades.count("LGG") == 1


def test_tumours_differ_in_size_and_most_but_not_all_reach_the_middle_slice():
    cases = [make_case(1, index, (40, 40, 26)) for index in range(30)]
    sizes = [(case.mask > 0).sum() for case in cases]
    assert min(sizes) > 0
    assert max(sizes) > 4 * min(sizes)
    in_middle = [bool(case.mask[:, :, 13].any()) for case in cases]
    assert 0.7 <= np.mean(in_middle) < 1
    free_slices = [1 - (case.mask > 0).any(axis=(0, 1)).mean() for case in cases]
    assert min(free_slices) > 0.1


def test_scanners_share_no_scale(cases):
    for modality in MODALITIES:
        whites = [level(case, modality, case.tissue == WHITE) for case in cases]
        assert max(whites) > 3 * min(whites)


@pytest.mark.parametrize("modality", sorted(MODALITIES))
@pytest.mark.parametrize("scored", [False, True], ids=["raw", "z-scored"])
def test_no_threshold_finds_the_tumours(cases, modality, scored):
    assert share(cases, modality, scored=scored) < 0.5


# A data set


def test_layout_and_names_are_those_of_brats_2020(written):
    training = Path("BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData")
    test = Path("BraTS2020_ValidationData/MICCAI_BraTS2020_ValidationData")
    expected = {
        str(folder / name / f"{name}_{kind}.nii")
        for folder, prefix, count, kinds in (
            (training, "BraTS20_Training", 5, (*MODALITIES, "seg")),
            (test, "BraTS20_Validation", 2, MODALITIES),
        )
        for name in (f"{prefix}_{number:03d}" for number in range(1, count + 1))
        for kind in kinds
    }
    tables = {
        str(training / "name_mapping.csv"),
        str(training / "survival_info.csv"),
        str(test / "name_mapping_validation_data.csv"),
    }
    assert set(contents(written)) == expected | tables


def test_tables_say_grade_and_survival(written):
    folder = written / "BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData"
    with open(folder / "name_mapping.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "Grade",
        "BraTS_2017_subject_ID",
        "BraTS_2018_subject_ID",
        "TCGA_TCIA_subject_ID",
        "BraTS_2019_subject_ID",
        "BraTS_2020_subject_ID",
    ]
    names = [f"BraTS20_Training_{number:03d}" for number in range(1, 6)]
    assert [row["BraTS_2020_subject_ID"] for row in rows] == names
    assert [row["Grade"] for row in rows] == [make_case(3, i, (16, 16, 8)).grade for i in range(5)]
    assert {row["BraTS_2018_subject_ID"] for row in rows} == {"NA"}
    with open(folder / "survival_info.csv", newline="") as file:
        survival = list(csv.DictReader(file))
    assert list(survival[0]) == ["Brats20ID", "Age", "Survival_days", "Extent_of_Resection"]
    high = [row["BraTS_2020_subject_ID"] for row in rows if row["Grade"] == "HGG"]
    assert [row["Brats20ID"] for row in survival] == high
    assert all(float(row["Age"]) > 0 and int(row["Survival_days"]) > 0 for row in survival)


def test_files_hold_the_case_in_the_geometry_of_brats(written):
    case = make_case(3, 1, SMALL)
    paths = sorted(written.rglob("BraTS20_Training_002_*.nii"))
    assert len(paths) == 5
    for path in paths:
        image = nib.load(path)
        kind = path.stem.rpartition("_")[2]
        expected = case.mask if kind == "seg" else case.images[kind]
        stored = np.asarray(image.dataobj)
        assert stored.dtype == expected.dtype
        assert np.array_equal(stored, expected)
        assert image.affine.tolist() == [[-1, 0, 0, 0], [0, -1, 0, 31], [0, 0, 1, 0], [0, 0, 0, 1]]
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        assert image.header.get_zooms() == (1, 1, 1)


def test_the_header_is_that_of_a_real_case(tmp_path):
    found = sorted((REAL_DATA / "brats2021").glob("*/*_flair.nii.gz"))
    if not found:
        pytest.skip(f"no BraTS 2021 case under {REAL_DATA}")
    write_phantom(tmp_path, num_cases=1, shape=(240, 240, 155), gz=True, workers=1)
    phantom = nib.load(next(tmp_path.rglob("*_flair.nii.gz")))
    real = nib.load(found[0])
    assert np.array_equal(phantom.affine, real.affine)
    for field in ("dim", "datatype", "xyzt_units", "qform_code", "sform_code"):
        assert np.array_equal(phantom.header[field], real.header[field]), field
    assert phantom.header.get_zooms() == real.header.get_zooms()
    brains = [np.asarray(image.dataobj) > 0 for image in (phantom, real)]
    assert 0.75 < brains[0].sum() / brains[1].sum() < 1.3
    overlap = (brains[0] & brains[1]).sum() / (brains[0] | brains[1]).sum()
    assert overlap > 0.7, "the brain lies where the atlas of BraTS puts it"


def test_equal_arguments_give_equal_bytes_for_any_number_of_workers(written, tmp_path):
    calls: list[tuple[int, int]] = []
    write_phantom(
        tmp_path,
        num_cases=5,
        num_test_cases=2,
        seed=3,
        shape=SMALL,
        workers=2,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert contents(tmp_path) == contents(written)
    assert calls == [(done, 7) for done in range(1, 8)]


def test_gzip_holds_the_same_without_time_or_name(written, tmp_path):
    write_phantom(tmp_path, num_cases=5, num_test_cases=2, seed=3, shape=SMALL, gz=True, workers=1)
    packed = contents(tmp_path)
    for name, data in contents(written).items():
        if name.endswith(".nii"):
            data_gz = packed[f"{name}.gz"]
            assert data_gz[3:8] == bytes(5), "no flags, so no name, and no time"
            assert gzip.decompress(data_gz) == data
        else:
            assert packed[name] == data


def test_test_cases_do_not_depend_on_the_number_of_training_cases(written, tmp_path):
    write_phantom(tmp_path, num_cases=0, num_test_cases=1, seed=3, shape=SMALL, workers=1)
    kept, alone = contents(written), contents(tmp_path)
    images = [name for name in alone if name.endswith(".nii")]
    assert len(images) == 4
    assert all(kept[name] == alone[name] for name in images)
    assert not (tmp_path / "BraTS2020_TrainingData").exists()


# Refusals and accidents


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(BratsError, match="not empty"):
        write_phantom(tmp_path, num_cases=1, shape=SMALL, workers=1)
    assert contents(tmp_path) == {"mine.txt": b"keep"}
    with pytest.raises(BratsError, match=r"mine\.txt"):
        write_phantom(tmp_path / "mine.txt", num_cases=1, shape=SMALL, workers=1)


@pytest.mark.parametrize(
    "options",
    [
        {"num_cases": 0},
        {"num_cases": -1, "num_test_cases": 2},
        {"num_cases": 1, "seed": -1},
        {"num_cases": 1, "shape": (16, 16, 7)},
        {"num_cases": 1, "shape": (16, 16, 9999)},
        {"num_cases": 1, "workers": 0},
        {"num_cases": 10**9},
    ],
    ids=str,
)
def test_what_makes_no_data_set_is_refused_before_anything_is_written(tmp_path, options):
    with pytest.raises(BratsError):
        write_phantom(tmp_path / "out", **options)
    assert contents(tmp_path) == {}


class _Deadly(tuple):
    """A shape that ends the process that unpickles it, as the kernel ends one that ate all
    memory."""

    def __reduce__(self):
        return os._exit, (9,)


def test_a_dead_worker_ends_in_an_error(tmp_path):
    with pytest.raises(BratsError, match="process that writes cases died"):
        write_phantom(tmp_path / "out", num_cases=4, shape=_Deadly(SMALL), workers=2)


_SCRIPT = """
import multiprocessing, sys
from pathlib import Path
from brats_cache.synthetic.write_phantom import write_phantom

def progress(done, total):
    if done == 1:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)

if __name__ == "__main__":
    write_phantom(Path(sys.argv[1]), num_cases=5000, shape=(32, 32, 16), workers=2,
                  progress=progress)
"""


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.kills
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_one_who_asked(tmp_path, number):
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    process = subprocess.Popen(
        [sys.executable, script, tmp_path / "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) >= 2
        if number == signal.SIGINT:  # a terminal sends Ctrl-C to the whole group
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE)
    except BaseException:  # a failure must not leave it running
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode != 0
    deadline = time.monotonic() + 30  # far sooner than they would be done with their cases
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, pids))
    if number == signal.SIGINT:
        assert errors.count("Traceback") == 1, "the parent's own and none from a worker"
        assert "KeyboardInterrupt" in errors
        assert not list((tmp_path / "out").rglob("*.partial"))


def test_of_two_at_once_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write() -> None:
        write_phantom(tmp_path / "out", num_cases=1, shape=SMALL, workers=1)

    check = write_phantom_module._make_room

    def let_another_begin(out_dir: Path, num_bytes: int) -> None:
        check(out_dir, num_bytes)
        monkeypatch.setattr(write_phantom_module, "_make_room", check)
        write()

    monkeypatch.setattr(write_phantom_module, "_make_room", let_another_begin)
    with pytest.raises(BratsError, match="another process makes a phantom there"):
        write()
    assert len(list((tmp_path / "out").rglob("*.nii"))) == 5
