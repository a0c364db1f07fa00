"""The tables of BraTS are read as they are handed out, and a broken one is named with its line."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from brats_cache.common.errors import DataFaults
from brats_cache.discovery.tables import Tables, read_csv, read_tables

HEADER_2020 = (
    "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,"
    "BraTS_2019_subject_ID,BraTS_2020_subject_ID"
)


def tables_of(folder: Path, **texts: str) -> Tables:
    for name, text in texts.items():
        (folder / f"{name}.csv").write_bytes(text.encode())
    return read_tables([folder / f"{name}.csv" for name in texts])


def test_the_name_mapping_of_2020(tmp_path: Path) -> None:
    tables = tables_of(
        tmp_path,
        name_mapping=f"{HEADER_2020}\n"
        "HGG,Brats17_CBICA_AAB_1,Brats18_CBICA_AAB_1,NA,BraTS19_CBICA_AAB_1,BraTS20_Training_001\n"
        "LGG,NA,NA,TCGA-CS-5393,NA,BraTS20_Training_002\n"
        "HGG,NA,,NA,NA,BraTS20_Training_003\n",
    )
    assert tables.faults == []
    assert tables.grades["brats20_training_001"] == "HGG"
    assert tables.grades["brats17_cbica_aab_1"] == "HGG"
    assert tables.grades["tcga-cs-5393"] == "LGG"
    assert tables.patients["brats17_cbica_aab"] == "BraTS20_Training_001"
    assert tables.patients["tcga-cs-5393"] == "BraTS20_Training_002"
    assert tables.patients["brats20_training_003"] == "BraTS20_Training_003"


@pytest.mark.parametrize(
    ("name", "header", "case", "line", "age", "survival"),
    [
        ("survival_data", "Brats17ID,Age,Survival", "Brats17_A_1_1", "54.1,361", 54.1, "361"),
        ("survival_data", "BraTS18ID,Age,Survival,ResectionStatus", "Brats18_A_1_1", "54.1,361,NA",
         54.1, "361"),
        ("survival_data", "BraTS19ID,Age,Survival,ResectionStatus", "BraTS19_A_1_1", "7,361,GTR",
         7.0, "361"),
        ("survival_info", "Brats20ID,Age,Survival_days,Extent_of_Resection", "BraTS20_Training_001",
         "60.463,ALIVE (361 days later),GTR", 60.463, "ALIVE (361 days later)"),
        ("survival_evaluation", "BraTS20ID,Age,ResectionStatus", "BraTS20_Validation_001",
         "60,GTR", 60.0, None),
        ("survival_info", "Brats20ID,Age,Survival_days", "BraTS20_Training_001", "NA,NA",
         None, None),
    ],
)  # fmt: skip
def test_the_survival_tables_of_each_year(
    tmp_path: Path,
    name: str,
    header: str,
    case: str,
    line: str,
    age: float | None,
    survival: str | None,
) -> None:
    tables = tables_of(tmp_path, **{name: f"{header}\n{case},{line}\n"})
    assert tables.faults == []
    assert tables.ages.get(case.lower()) == age
    assert tables.survivals.get(case.lower()) == survival
    assert tables.patients == {}


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffGrade,BraTS_2020_subject_ID\nhgg,BraTS20_Training_001\n",
        "Grade,BraTS_2020_subject_ID\r\nHGG,BraTS20_Training_001\r\n\r\n",
        '"GRADE","brats_2020_SUBJECT_id"\n"HGG"," BraTS20_Training_001 "',
        "Grade;BraTS_2020_subject_ID\nHGG;BraTS20_Training_001\n",
        "Grade\tBraTS_2020_subject_ID\nHGG\tBraTS20_Training_001\n",
        "Grade,BraTS_2020_subject_ID,,\nHGG,BraTS20_Training_001,,\n,,,\n",
    ],
)
def test_marks_line_ends_quotes_and_letter_case_do_not_matter(tmp_path: Path, text: str) -> None:
    tables = tables_of(tmp_path, name_mapping=text)
    assert tables.faults == []
    assert tables.grades == {"brats20_training_001": "HGG"}


@pytest.mark.parametrize("order", ["le", "be"])
def test_unicode_text_as_a_spreadsheet_saves_it_is_read(tmp_path: Path, order: str) -> None:
    path = tmp_path / "splits.csv"
    path.write_bytes("\ufeffcase\tsplit\r\nPétra\ttrain\r\n".encode(f"utf-16-{order}"))
    assert [row.cells for row in read_csv(path)] == [{"case": "Pétra", "split": "train"}]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("case,split\na,val\n".encode("utf-16-le"), "line 1: a NUL character"),
        (b"case,split\na\0,val\n", "line 2: a NUL character"),
        (b"", "an empty file"),
        (b"\xef\xbb\xbf \r\n\n", "an empty file"),
        (b"\xff\xfec\0a", "line 1: bytes"),
    ],
)
def test_what_is_no_text_is_said_to_be_none(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "splits.csv"
    path.write_bytes(content)
    with pytest.raises(DataFaults, match=found):
        read_csv(path)


def test_a_person_is_followed_over_several_tables(tmp_path: Path) -> None:
    texts = {
        "name_mapping": "BraTS_2018_subject_ID,BraTS_2019_subject_ID\n"
        "Brats18_A_1_1,BraTS19_B_2_1\nBrats18_A_9_1,BraTS19_A_9_1\n",
        "other": "BraTS_2019_subject_ID,BraTS_2020_subject_ID\n"
        "BraTS19_B_2_1,BraTS20_Training_007\n",
        "BraTS21-17_Mapping": "BraTS2021,Site No,BraTS2020\n"
        "BraTS2021_00003,1,BraTS20_Training_007\nBraTS2021_00004,1,NA\n",
    }
    tables = tables_of(tmp_path, **texts)
    expected = dict.fromkeys(
        ("brats18_a_1", "brats19_b_2", "brats20_training_007", "brats2021_00003"), "BraTS2021_00003"
    )
    expected |= {"brats18_a_9": "BraTS19_A_9", "brats19_a_9": "BraTS19_A_9"}
    expected |= {"brats2021_00004": "BraTS2021_00004"}
    assert tables.patients == expected
    for order in permutations(texts):
        assert read_tables([tmp_path / f"{name}.csv" for name in order]).patients == expected


def test_a_placeholder_in_an_id_column_joins_nobody(tmp_path: Path) -> None:
    tables = tables_of(
        tmp_path,
        name_mapping="BraTS_2019_subject_ID,BraTS_2020_subject_ID\n"
        "new,BraTS20_Training_001\nnew,BraTS20_Training_002\n",
    )
    assert len(set(tables.patients.values())) == 2


def test_other_tables_are_left_alone(tmp_path: Path) -> None:
    tables = tables_of(
        tmp_path, clinic='patient,score\n"unclosed,1\n', splits="case,split\na,val\n"
    )
    assert tables == Tables()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b"Grade,BraTS_2020_subject_ID\nHGG,BraTS20_Training_001\nGBM,BraTS20_Training_002", "3"),
        (b"Grade,BraTS_2020_subject_ID\nHGG\n", "2"),
        (b"Grade,BraTS_2020_subject_ID\nHGG,BraTS20_Training_001,LGG\n", "2"),
        (b"Grade,BraTS_2020_subject_ID\nHGG,NA\n", "2"),
        (b'Grade,BraTS_2020_subject_ID\nHGG,"BraTS20_Training_001\n', "2"),
        (b"Age,BraTS_2020_subject_ID\nold,BraTS20_Training_001\n", "2"),
        (b"Age,BraTS_2020_subject_ID\nnan(1),BraTS20_Training_001\n", "2"),
        (b"Age,BraTS_2020_subject_ID\n-3,BraTS20_Training_001\n", "2"),
        (b"Grade,BraTS_2020_subject_ID\nHGG,BraTS20_\xff\n", "2"),
        (b"Grade,name\nHGG,BraTS20_Training_001\n", "1"),
        (b"Grade,Grade,BraTS_2020_subject_ID\nHGG,HGG,BraTS20_Training_001\n", "1"),
        (
            b"Grade,BraTS_2020_subject_ID\nHGG,BraTS20_Training_001\nLGG,BraTS20_Training_001",
            "3",
        ),
    ],
)
def test_a_broken_table_is_named_with_its_line(tmp_path: Path, text: bytes, where: str) -> None:
    path = tmp_path / "name_mapping.csv"
    path.write_bytes(text)
    (fault,) = read_tables([path]).faults
    assert fault.path == path
    assert fault.found.startswith(f"line {where}:")


def test_tables_that_contradict_each_other_are_both_named(tmp_path: Path) -> None:
    tables = tables_of(
        tmp_path,
        name_mapping="Grade,BraTS_2020_subject_ID\nHGG,BraTS20_Training_001\n",
        other="Grade,BraTS_2020_subject_ID\nLGG,BraTS20_Training_001\n",
    )
    (fault,) = tables.faults
    assert fault.case == "BraTS20_Training_001"
    assert fault.path == tmp_path / "other.csv"
    assert "name_mapping.csv line 2" in fault.found


def test_a_csv_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DataFaults, match=r"absent\.csv"):
        read_csv(tmp_path / "absent.csv")
