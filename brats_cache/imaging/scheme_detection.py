"""Detects the label scheme of masks: from a dataset.json, from what the cases are called, or from
the values that occur in all of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from brats_cache.common.errors import BratsError, Fault, LabelSchemeError
from brats_cache.common.text import first_few
from brats_cache.discovery.namings import NAMINGS
from brats_cache.imaging.labels import SCHEMES, Scheme

__all__ = ["detect_scheme", "schemes_of_id"]

_NUM_NAMED = 5  # cases quoted for one value before "and N more"
# Ids of public sets whose masks all follow one of these schemes. The masks of BraTS-PED changed
# their meaning from 2023 to 2024 under the same ids, and only oedema, in one case of five, has a
# value of its own. Masks of TCGA cases come from many sources, so their ids say nothing.
_SETS = (
    (re.compile(r"brats-ped-", re.IGNORECASE), ("brats2023", "brats2024ped")),
    (re.compile(r"brats-men-rt-", re.IGNORECASE), ("binary",)),
    (re.compile(r"ucsf-pdgm-\d|upenn-gbm-\d", re.IGNORECASE), ("brats2017",)),
    (re.compile(r"patientid_\d+|ucsd-ptgbm-\d", re.IGNORECASE), ("brats2024",)),
    (re.compile(r"rhuh-\d", re.IGNORECASE), ("brats2023",)),
)


def schemes_of_id(case_id: str) -> tuple[str, ...]:
    """Returns the label schemes that the public set of a case's id used, () where that is unknown.

    Cases of one unit of `detect_scheme` should agree in it.
    """
    return next((schemes for pattern, schemes in _SETS if pattern.match(case_id)), ())


def detect_scheme(
    naming: str,
    values_by_case: Mapping[str, frozenset[int]],
    dataset_labels: Sequence[tuple[int, str]] = (),
    override: str = "auto",
) -> Scheme:
    """Detects the one scheme of a unit: the cases of one naming under one DATA argument.

    An override is believed before dataset.json, dataset.json before names, names before values.
    Values alone decide for plain names, and only where their union over the unit is all that
    exactly one scheme has; a union of {0, 1} is binary under every name. A unit without any mask
    has the scheme of its names, brats2023 where they say nothing.

    Args:
        naming: Of `namings.NAMINGS`.
        values_by_case: Every value in each case's mask by the case's id; empty for a case without a
            mask.
        dataset_labels: Value and name of each label, where a dataset.json gives them.
        override: "auto", or the name of a scheme.

    Raises:
        BratsError: The override is unknown.
        LabelSchemeError: Cases have values that the scheme has not; or, for no case in particular,
            several schemes are possible or none. It names the values, the cases that hold them and
            the way out.
    """
    if naming not in NAMINGS:
        raise ValueError(f"naming {naming!r}: expected one of {', '.join(NAMINGS)}")
    union = frozenset().union(*values_by_case.values())
    possible = _schemes_of_unit(values_by_case)
    if override != "auto":
        if override not in SCHEMES:
            raise BratsError(f"--label-scheme {override}: expected auto or {', '.join(SCHEMES)}")
        scheme, reason = SCHEMES[override], "by --label-scheme"
    elif dataset_labels:
        scheme, reason = _by_dataset_labels(dataset_labels), "by dataset.json"
    elif union == SCHEMES["binary"].values:
        # No tumour is necrosis alone: masks of 1 were made binary, whatever their cases are called.
        scheme, reason = SCHEMES["binary"], "by the values of all its cases"
    elif possible:
        scheme, reason = _by_set(possible, values_by_case, union), "by its name"
    elif naming == "plain":
        scheme, reason = _by_values(values_by_case, union), "by the values of all its cases"
    elif naming == "brats2023":
        # The ids of 2023 and 2024 look alike; only the resection cavity tells them apart.
        scheme, reason = _by_cavity(values_by_case, union), "by its name"
    else:
        scheme, reason = SCHEMES[naming], "by its name"
    faults = [
        Fault(
            case=case_id,
            path=None,
            found=f"its mask holds {_listed(values - scheme.values)}",
            expected=f"only {_listed(scheme.values)}, the labels of {scheme.name}, {reason}",
            remedy=_way_out(union, possible if len(possible) > 1 else SCHEMES),
        )
        for case_id, values in sorted(values_by_case.items())
        if not values <= scheme.values
    ]
    if faults:
        raise LabelSchemeError(faults)
    return scheme


def _schemes_of_unit(case_ids: Collection[str]) -> tuple[str, ...]:
    """`schemes_of_id` of all cases where they agree, else ()."""
    found = {schemes_of_id(case_id) for case_id in case_ids}
    return found.pop() if len(found) == 1 else ()


def _by_set(
    possible: Sequence[str], values_by_case: Mapping[str, frozenset[int]], union: frozenset[int]
) -> Scheme:
    """The scheme of a public set that used `possible` ones: the one that has all values."""
    fitting = [SCHEMES[name] for name in possible if union <= SCHEMES[name].values]
    if not fitting:
        return SCHEMES[possible[-1]]
    if len(fitting) == 1 or not union:
        return fitting[0]
    raise _undecided(
        f"the set of these cases used several, and there is {_holders(values_by_case, union)}",
        f"labels that only one of them has, not {_described(fitting)}",
        fitting,
    )


def _by_dataset_labels(dataset_labels: Sequence[tuple[int, str]]) -> Scheme:
    """The scheme whose every value means what a dataset.json says it does."""
    meant = {value: _meaning(name) for value, name in dataset_labels}
    for scheme in SCHEMES.values():
        if meant == scheme.to_canonical:
            return scheme
    # A name that is not understood may mean anything.
    fitting = [
        scheme
        for scheme in SCHEMES.values()
        if set(meant) <= scheme.values
        and all(label in (None, scheme.to_canonical[value]) for value, label in meant.items())
    ]
    named = ", ".join(f"{value} {name!r}" for value, name in dataset_labels)
    expected = "the labels of a known scheme"
    raise _undecided(f"the labels {named} in dataset.json", expected, fitting)


def _meaning(name: str) -> int | None:
    """The canonical label that a label's English name stands for, None where it is not clear."""
    text = name.lower()
    if "background" in text:
        return 0
    # "Surrounding non-enhancing FLAIR hyperintensity" is the newer name of oedema.
    if "edema" in text or "flair" in text:
        return 2
    if "non" in text or "necro" in text or "cyst" in text:
        return 1
    if "enhanc" in text:
        return 3
    return 4 if "cavity" in text else None


def _by_values(values_by_case: Mapping[str, frozenset[int]], union: frozenset[int]) -> Scheme:
    """The scheme whose values are exactly those of all cases, where it is the only one."""
    if not union:
        return SCHEMES["brats2023"]
    if union <= SCHEMES["binary"].values:
        return SCHEMES["binary"]
    exact = [scheme for scheme in SCHEMES.values() if scheme.values == union]
    detected = [scheme for scheme in exact if scheme.is_detected]
    if len(detected) == 1:
        return detected[0]
    odd = [case for case, values in sorted(values_by_case.items()) if not _explain(values)]
    if odd:
        raise LabelSchemeError(
            [
                Fault(
                    case=case_id,
                    path=None,
                    found=f"its mask holds {_listed(values_by_case[case_id])}",
                    expected="the labels of a known scheme, 0 to 4",
                    remedy=_way_out(values_by_case[case_id], SCHEMES),
                )
                for case_id in odd
            ]
        )
    possible = exact if detected else _explain(union)
    raise _undecided(
        f"case names say nothing, and there is {_holders(values_by_case, union)}",
        f"labels that only one scheme explains, not {_described(possible)}",
        possible,
    )


def _by_cavity(values_by_case: Mapping[str, frozenset[int]], union: frozenset[int]) -> Scheme:
    """brats2024 where a resection cavity is among the values, else brats2023."""
    if 4 not in union:
        return SCHEMES["brats2023"]
    if 3 in union:
        return SCHEMES["brats2024"]
    raise _undecided(
        f"case names are of 2023 or later, and there is {_holders(values_by_case, union)}",
        "label 3 somewhere if 4 is the resection cavity of brats2024, no 4 otherwise",
        [SCHEMES["brats2024"], SCHEMES["brats2017"]],
    )


def _undecided(found: str, expected: str, possible: Sequence[Scheme]) -> LabelSchemeError:
    """The error where several schemes are possible, or none."""
    names = " or ".join(scheme.name for scheme in possible)
    remedy = f"Say which it is: --label-scheme {names}." if names else "No known scheme fits."
    return LabelSchemeError(
        [
            Fault(
                case="",
                path=None,
                found=f"cannot tell the label scheme: {found}",
                expected=expected,
                remedy=remedy,
            )
        ]
    )


def _explain(values: frozenset[int], among: Collection[str] = tuple(SCHEMES)) -> list[Scheme]:
    """The schemes that have all of `values`."""
    return [SCHEMES[name] for name in among if values <= SCHEMES[name].values]


def _way_out(union: frozenset[int], among: Collection[str]) -> str:
    names = [scheme.name for scheme in _explain(union, among)]
    if not names:
        return "No scheme has all these labels; look at the mask."
    return f"If the masks follow another scheme, say so: --label-scheme {' or '.join(names)}."


def _described(schemes: Sequence[Scheme]) -> str:
    return "; ".join(f"{scheme.name} ({scheme.description})" for scheme in schemes)


def _holders(values_by_case: Mapping[str, frozenset[int]], union: frozenset[int]) -> str:
    """Each value other than background and the first cases that hold it."""
    texts = []
    for value in sorted(union - {0}):
        cases = sorted(case for case, values in values_by_case.items() if value in values)
        texts.append(f"label {value} in {first_few(cases, _NUM_NAMED)}")
    return "; ".join(texts)


def _listed(values: frozenset[int]) -> str:
    return ", ".join(str(value) for value in sorted(values))
