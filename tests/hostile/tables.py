"""Tables beside the scans: name_mapping.csv, survival data, metadata of other collections."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brats_cache.common.errors import DataFaults
from brats_cache.discovery.tables import read_tables
from tests.hostile.mutations import Files, choose, spoil_table

_TABLES: dict[str, list[list[str]]] = {
    "name_mapping.csv": [
        ["Grade", "BraTS_2017_subject_ID", "BraTS_2019_subject_ID", "BraTS_2020_subject_ID"],
        ["HGG", "Brats17_CBICA_AAB_1", "BraTS19_CBICA_AAB_1", "BraTS20_Training_001"],
        ["LGG", "NA", "BraTS19_TCIA09_141_1", "BraTS20_Training_262"],
        ["HGG", "Brats17_TCIA_105_1", "NA", "BraTS20_Training_185"],
    ],
    "survival_info.csv": [
        ["Brats20ID", "Age", "Survival_days", "Extent_of_Resection"],
        ["BraTS20_Training_001", "60.463", "289", "GTR"],
        ["BraTS20_Training_185", "52.2", "ALIVE (361 days later)", "NA"],
    ],
    "metadata.csv": [
        ["ID", "Sex", "Age at MRI", "BraTS21 ID", "TCGA ID"],
        ["UCSF-PDGM-0004", "M", "66", "BraTS2021_00097", ""],
        ["UCSF-PDGM-0005", "F", "80", "BraTS2021_00520", "TCGA-02-0003"],
    ],
}


def make(rng: np.random.Generator) -> Files:
    """One or two of these tables."""
    names = [choose(rng, list(_TABLES)) for _ in range(int(rng.integers(1, 3)))]
    return {name: spoil_table(_TABLES[name], rng) for name in names}


def read(folder: Path) -> None:
    """Reads the tables as one."""
    tables = read_tables(sorted(folder.iterdir()))
    if tables.faults:
        raise DataFaults(tables.faults)
    assert all(0 <= age < 130 for age in tables.ages.values())
    assert set(tables.grades.values()) <= {"HGG", "LGG"}
