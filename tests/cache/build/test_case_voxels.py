"""Kept voxels are those that would be read again; where memory is short they are read again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from brats_cache.build import case_voxels
from brats_cache.build.case_voxels import CaseVoxels, KeptCases, read_voxels
from brats_cache.build.journal import file_states
from brats_cache.build.survey import LoadedCase, load_case
from brats_cache.common.errors import DataFaults
from brats_cache.discovery.cases import find_cases
from brats_cache.imaging.preprocess import Preparation
from tests.cache.scans import OLD, add_case, image, mask, write

GIB = 1 << 30


def loaded_case(data: Path) -> LoadedCase:
    (case,) = find_cases([data], OLD).cases
    return load_case(case, Preparation(modalities=OLD))


def arrays_of(voxels: CaseVoxels) -> list[np.ndarray]:
    return [*voxels.volumes, voxels.brain, voxels.labels]


def with_memory(monkeypatch: pytest.MonkeyPatch, available: int, limit: int) -> None:
    monkeypatch.setattr(case_voxels, "available_memory", lambda: available)
    monkeypatch.setattr(case_voxels, "memory_limit", lambda: limit)


@pytest.fixture(params=["with a mask", "without"])
def loaded(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> LoadedCase:
    with_memory(monkeypatch, 12 * GIB, 16 * GIB)
    add_case(tmp_path, "p0", labels=mask() if request.param == "with a mask" else None)
    return loaded_case(tmp_path)


def test_what_is_kept_is_what_is_read_again_and_given_once(loaded: LoadedCase) -> None:
    kept = KeptCases()
    kept.keep(loaded, file_states(loaded.survey.case))
    first, second = kept.take(loaded.survey), read_voxels(loaded.survey)
    assert first is not None
    assert (first.window, first.labels_window) == (second.window, second.labels_window)
    for one, other in zip(arrays_of(first), arrays_of(second), strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    assert kept.take(loaded.survey) is None


def test_whole_volumes_are_freed(loaded: LoadedCase) -> None:
    kept = KeptCases()
    kept.keep(loaded, file_states(loaded.survey.case))
    voxels = kept.take(loaded.survey)
    assert voxels is not None
    assert all(array.base is None for array in arrays_of(voxels))
    whole = sum(volume.nbytes for volume in loaded.volumes)
    assert 0 < voxels.num_bytes < whole


def test_half_of_the_memory_stays_available(
    loaded: LoadedCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptCases()
    with_memory(monkeypatch, 8 * GIB, 16 * GIB)
    kept.keep(loaded, file_states(loaded.survey.case))
    assert kept.take(loaded.survey) is None
    with_memory(monkeypatch, 8 * GIB + (1 << 20), 16 * GIB)
    kept.keep(loaded, file_states(loaded.survey.case))
    assert kept.take(loaded.survey) is not None


def test_a_scan_touched_since_is_read_again_and_a_changed_one_refused(
    loaded: LoadedCase,
) -> None:
    kept, survey = KeptCases(), loaded.survey
    path = survey.case.images["t2"].path
    kept.keep(loaded, file_states(survey.case))
    os.utime(path, (1, 1))
    assert kept.take(survey) is None
    read_voxels(survey)
    write(path, image(99))
    with pytest.raises(DataFaults, match="a scan that has changed since it was checked"):
        read_voxels(survey)
