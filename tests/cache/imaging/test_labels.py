"""A label value never changes its meaning in silence, there or back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.common.errors import BratsError, DataFaults, LabelSchemeError
from brats_cache.imaging.labels import (
    LABELS,
    NO_LABEL,
    REGIONS,
    SCHEMES,
    Scheme,
    canonical_table,
    region_table,
    source_table,
)
from brats_cache.imaging.scheme_detection import detect_scheme, schemes_of_id

MSD = ((0, "background"), (1, "edema"), (2, "non-enhancing tumor"), (3, "enhancing tumour"))
schemes = st.sampled_from(sorted(SCHEMES.values(), key=lambda scheme: scheme.name))


def cases(*values: set[int]) -> dict[str, frozenset[int]]:
    return {f"case{i}": frozenset({0, *some}) for i, some in enumerate(values)}


# From the publications of each challenge: source values of whole tumour, core and enhancing tumour.
@pytest.mark.parametrize(
    ("name", "regions"),
    [
        ("brats2013", {"wt": {1, 2, 3, 4}, "tc": {1, 3, 4}, "et": {4}}),
        ("brats2017", {"wt": {1, 2, 4}, "tc": {1, 4}, "et": {4}}),
        ("brats2023", {"wt": {1, 2, 3}, "tc": {1, 3}, "et": {3}}),
        ("brats2024", {"wt": {1, 2, 3}, "tc": {1, 3}, "et": {3}}),
        ("msd", {"wt": {1, 2, 3}, "tc": {2, 3}, "et": {3}}),
        ("binary", {"wt": {1}}),
        ("brats2024ped", {"wt": {1, 2, 3, 4}, "tc": {1, 2, 3}, "et": {1}}),
        ("deepbratumia", {"wt": {1, 2, 3}, "tc": {1, 2}, "et": {1}}),
        ("hdglio", {"wt": {1, 2}, "et": {2}}),
    ],
)
def test_regions_of_each_scheme_in_its_own_values(name: str, regions: dict[str, set[int]]) -> None:
    scheme = SCHEMES[name]
    assert set(scheme.regions) == set(regions)
    for region, values in regions.items():
        table = region_table(region)
        assert (table.dtype, table.shape) == (bool, (256,))  # any byte of a mask is looked up
        in_region = table[canonical_table(scheme)]
        assert set(np.flatnonzero(in_region).tolist()) == values


def test_binary_claims_no_region_but_the_whole_tumour() -> None:
    canonical = canonical_table(SCHEMES["binary"])[1]
    assert [region for region in REGIONS if region_table(region)[canonical]] == ["wt"]


@given(schemes)
def test_the_way_back_keeps_what_the_scheme_can_say(scheme: Scheme) -> None:
    there, back = canonical_table(scheme), source_table(scheme)
    for value in scheme.values:
        again = back[there[value]]
        assert there[again] == there[value]
        if (scheme.name, value) not in (("brats2013", 3), ("brats2024ped", 3)):
            assert again == value


@given(schemes, st.sampled_from(sorted(LABELS)))
def test_what_is_written_is_a_value_of_the_scheme_in_the_same_regions(
    scheme: Scheme, label: int
) -> None:
    written = int(source_table(scheme)[label])
    assert written in scheme.values
    again = canonical_table(scheme)[written]
    for region in scheme.regions:
        assert region_table(region)[again] == region_table(region)[label]


@given(schemes)
def test_tables_tell_values_that_are_not_there(scheme: Scheme) -> None:
    there, back = canonical_table(scheme), source_table(scheme)
    assert (there.shape, there.dtype) == (back.shape, back.dtype) == ((256,), np.dtype(np.uint8))
    assert set(np.flatnonzero(there != NO_LABEL)) == scheme.values
    assert set(np.flatnonzero(back != NO_LABEL)) == set(LABELS)
    assert not any(region_table(region)[NO_LABEL] for region in REGIONS)


@pytest.mark.parametrize(
    ("naming", "values", "expected"),
    [
        ("brats2013", cases({1, 2, 3, 4}), "brats2013"),
        ("brats2013", cases({1, 2, 4}), "brats2013"),
        ("brats2017", cases({1, 2}, {1, 2, 4}), "brats2017"),
        ("brats2017", cases({2}), "brats2017"),
        ("brats2023", cases({1, 2}, {1, 2, 3}), "brats2023"),
        ("brats2023", cases({2, 4}, {1, 2, 3}), "brats2024"),
        ("msd", cases({1, 2, 3}), "msd"),
        ("plain", cases({1}, set()), "binary"),
        ("brats2017", cases({1}, set()), "binary"),
        ("brats2023", cases({1}), "binary"),
        ("plain", cases(set()), "binary"),
        ("plain", cases({1, 2}, {4}), "brats2017"),
        ("plain", {"case": frozenset()}, "brats2023"),
        ("brats2017", {"case": frozenset()}, "brats2017"),
    ],
)
def test_names_first_then_the_values_of_all_cases(
    naming: str, values: dict[str, frozenset[int]], expected: str
) -> None:
    assert detect_scheme(naming, values).name == expected


@pytest.mark.parametrize(
    ("naming", "values", "said"),
    [
        ("brats2017", cases({1, 2, 4}, {3}), ["case1", "3", "--label-scheme brats2013"]),
        ("brats2017", cases({1, 2}, {3}), ["case1", "3", "brats2023 or brats2024 or msd"]),
        ("brats2013", cases({1, 2, 5}), ["case0", "5", "No scheme"]),
        ("brats2023", cases({1, 2, 4}, {2}), ["4 in case0", "brats2024 or brats2017"]),
        ("brats2023", cases({1, 2, 3, 4, 9}), ["case0", "9"]),
        ("plain", cases({1, 2}, {3}), ["3 in case1", "--label-scheme brats2023 or msd"]),
        ("plain", cases({1, 2, 3}, {4}), ["4 in case1", "brats2013 or brats2024"]),
        ("plain", cases({1, 2}), ["2 in case0", "brats2013", "brats2017", "msd"]),
        ("plain", cases({1, 7}, {1, 2, 4}), ["1 fault in 1 case", "case0", "7", "No scheme"]),
        ("msd", cases({4}), ["case0", "4"]),
    ],
)
def test_contradiction_and_ambiguity_are_refused_with_cases_and_a_way_out(
    naming: str, values: dict[str, frozenset[int]], said: list[str]
) -> None:
    with pytest.raises(BratsError) as refusal:
        detect_scheme(naming, values)
    for text in said:
        assert text in str(refusal.value)


PED = "BraTS-PED-0000{}-000"


def of_set(pattern: str, *values: set[int]) -> dict[str, frozenset[int]]:
    return {pattern.format(i): frozenset({0, *some}) for i, some in enumerate(values)}


@pytest.mark.parametrize(
    ("naming", "values", "expected"),
    [
        ("plain", of_set(PED, {2, 3}, {1, 2, 4}), "brats2024ped"),
        ("plain", of_set(PED, {4}), "brats2024ped"),
        ("plain", of_set("brats-ped-0{}-001", {1, 2, 3, 4}), "brats2024ped"),
        ("brats2023", of_set("BraTS-MEN-RT-000{}-1", {1}), "binary"),
        ("brats2023", {"BraTS-MEN-RT-0001-1": frozenset()}, "binary"),
        ("brats2023", of_set("BraTS-MEN-0000{}-000", {1, 2}, {3}), "brats2023"),
        ("plain", of_set("UCSF-PDGM-00{}4", {1, 2}), "brats2017"),
        ("plain", of_set("UPENN-GBM-000{}1_11", {2}, {4}), "brats2017"),
        ("plain", of_set("PatientID_00{}3_Timepoint_1", {1, 2, 3}, {4}), "brats2024"),
        ("plain", of_set("PatientID_00{}3_Timepoint_1", {2, 4}), "brats2024"),
        ("plain", of_set("UCSD-PTGBM-00{}2_01", {1, 2, 3}), "brats2024"),
        ("plain", of_set("RHUH-000{}_0", {1, 2, 3}), "brats2023"),
        ("plain", of_set("UPENN-GBM-000{}1_11", {1}), "binary"),
        ("plain", {PED.format(1): frozenset()}, "brats2023"),
    ],
)
def test_ids_of_public_sets_say_what_their_masks_mean(
    naming: str, values: dict[str, frozenset[int]], expected: str
) -> None:
    assert detect_scheme(naming, values).name == expected


def remedy_of(naming: str, values: dict[str, frozenset[int]]) -> str:
    with pytest.raises(LabelSchemeError) as refusal:
        detect_scheme(naming, values)
    (remedy,) = {fault.remedy for fault in refusal.value.faults}
    return remedy


@pytest.mark.parametrize(
    ("values", "schemes"),
    [
        # Without oedema, one in five cases of 2024, nothing tells the years apart.
        (of_set(PED, {1, 2, 3}), "brats2023 or brats2024ped."),
        (of_set(PED, {2}, {1, 2}), "brats2023 or brats2024ped."),
        (of_set(PED, {1, 2, 5}), ""),
        (of_set(PED, {1, 2, 4}, {7}), ""),
    ],
)
def test_only_schemes_that_a_set_used_are_offered(
    values: dict[str, frozenset[int]], schemes: str
) -> None:
    remedy = remedy_of("plain", values)
    _, _, offered = remedy.partition("--label-scheme ")
    assert offered == schemes
    assert schemes or remedy.startswith("No scheme")


def test_cases_of_several_sets_are_told_by_their_values() -> None:
    values = {"UPENN-GBM-00001_11": frozenset({0, 1, 2}), "mine": frozenset({0, 4})}
    assert schemes_of_id("mine") == schemes_of_id("TCGA-CS-5393") == ()
    assert detect_scheme("plain", values).name == "brats2017"


def test_the_schemes_of_tools_are_never_detected_but_may_be_named() -> None:
    for values in (cases({1, 2}), cases({1, 2, 3})):
        assert "deepbratumia" in remedy_of("plain", values)
    assert detect_scheme("plain", cases({1, 2}), override="hdglio").regions == ("wt", "et")
    assert detect_scheme("plain", cases({1, 2, 3}), override="deepbratumia").name == "deepbratumia"


@given(schemes, st.data())
def test_an_override_is_believed_where_it_explains_the_values(
    scheme: Scheme, data: st.DataObject
) -> None:
    naming = data.draw(st.sampled_from(["brats2013", "brats2017", "brats2023", "msd", "plain"]))
    values = {"case": frozenset(data.draw(st.sets(st.sampled_from(sorted(scheme.values)))))}
    assert detect_scheme(naming, values, override=scheme.name) is scheme
    with pytest.raises(DataFaults, match="77"):
        detect_scheme(naming, {"case": frozenset({0, 77})}, override=scheme.name)


def test_an_unknown_override_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BratsError, match="brats2013") as refusal:
        detect_scheme("plain", cases({1}), override="brats2022")
    assert "brats2022" in str(refusal.value)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (MSD, "msd"),
        ((MSD[0], (1, "necrotic core"), (2, "peritumoral edema"), MSD[3]), "brats2023"),
        ((MSD[0], (1, "NETC, non-enhancing"), (2, "SNFH, non-enhancing FLAIR hyperintensity"),
          MSD[3]), "brats2023"),
        ((MSD[0], (1, "necrosis"), (2, "oedema"), (4, "enhancing")), "brats2017"),
        ((MSD[0], (1, "enhancing tumor"), (2, "non-enhancing tumor"), (3, "cystic component"),
          (4, "edema")), "brats2024ped"),
    ],
)  # fmt: skip
def test_dataset_json_says_what_its_values_mean(
    labels: tuple[tuple[int, str], ...], expected: str
) -> None:
    assert detect_scheme("msd", cases({1, 2}), dataset_labels=labels).name == expected


@pytest.mark.parametrize("labels", [(*MSD[:3], (3, "lesion")), (MSD[0], MSD[3])])
def test_a_dataset_json_that_no_scheme_follows_is_refused(
    labels: tuple[tuple[int, str], ...],
) -> None:
    with pytest.raises(BratsError, match=r"dataset\.json"):
        detect_scheme("msd", cases({1}), dataset_labels=labels)


@pytest.mark.parametrize(
    ("labels", "offered"),
    [
        ((*MSD[:3], (3, "lesion")), "msd."),
        (
            (MSD[0], (1, "tumor A"), (2, "edema"), (4, "tumor B")),
            "brats2013 or brats2017 or brats2024.",
        ),
        (((0, "background"), (1, "edema"), (2, "edema"), (3, "edema")), ""),
        (((0, "background"), (9, "enhancing tumor")), ""),
    ],
)
def test_a_dataset_json_is_offered_the_schemes_it_does_not_contradict(
    labels: tuple[tuple[int, str], ...], offered: str
) -> None:
    with pytest.raises(LabelSchemeError) as refusal:
        detect_scheme("plain", cases({1}), dataset_labels=labels)
    (fault,) = refusal.value.faults
    assert fault.remedy.partition("--label-scheme ")[2] == offered
    assert offered or fault.remedy == "No known scheme fits."
