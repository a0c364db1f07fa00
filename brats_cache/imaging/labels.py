"""Label schemes: what a value in a segmentation means, which differs by year and cannot be guessed
from one case.

Everything in a cache is canonical:

    0 background    1 NCR/NET (necrotic and non-enhancing core)    2 ED (oedema)
    3 ET (enhancing tumour)    4 RC (resection cavity; in no region)

Regions are sets of canonical labels: wt {1, 2, 3}, tc {1, 3}, et {3}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from brats_cache.common.errors import BratsError, Fault, LabelSchemeError
from brats_cache.common.text import first_few
from brats_cache.discovery.namings import NAMINGS

__all__ = [
    "LABELS",
    "NO_LABEL",
    "REGIONS",
    "SCHEMES",
    "Scheme",
    "canonical_table",
    "detect_scheme",
    "region_table",
    "source_table",
]

LABELS = {0: "background", 1: "NCR/NET", 2: "ED", 3: "ET", 4: "RC"}
REGIONS = {"wt": frozenset({1, 2, 3}), "tc": frozenset({1, 3}), "et": frozenset({3})}
NO_LABEL = 255  # in a lookup table: no such value in this scheme
_NUM_NAMED = 5  # cases quoted for one value before "and N more"


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """One meaning of the values in a segmentation.

    name            as in --label-scheme
    description     who used it
    to_canonical    source value -> canonical label, for every value the scheme has
    from_canonical  canonical label -> source value, for every canonical label
    regions         the regions whose truth a mask of this scheme knows
    """

    name: str
    description: str
    to_canonical: Mapping[int, int]
    from_canonical: Mapping[int, int]
    regions: tuple[str, ...] = ("wt", "tc", "et")

    @property
    def values(self) -> frozenset[int]:
        return frozenset(self.to_canonical)


# Back from canonical, a resection cavity is background in the schemes that have no word for it.
# brats2013 splits canonical 1 into necrosis (1) and non-enhancing core (3); the way back cannot
# tell them apart and writes 1. binary's one value is "some tumour": it becomes 2, the one label
# that is in wt and in neither tc nor et, so that no region beyond wt is ever claimed by it.
_ALL = (
    Scheme(
        name="brats2013",
        description="BraTS 2013 to 2016: 1 necrosis, 2 oedema, 3 non-enhancing, 4 enhancing",
        to_canonical={0: 0, 1: 1, 2: 2, 3: 1, 4: 3},
        from_canonical={0: 0, 1: 1, 2: 2, 3: 4, 4: 0},
    ),
    Scheme(
        name="brats2017",
        description="BraTS 2017 to 2021: 1 NCR/NET, 2 oedema, 4 enhancing",
        to_canonical={0: 0, 1: 1, 2: 2, 4: 3},
        from_canonical={0: 0, 1: 1, 2: 2, 3: 4, 4: 0},
    ),
    Scheme(
        name="brats2023",
        description="BraTS 2023: 1 NCR/NET, 2 oedema, 3 enhancing",
        to_canonical={0: 0, 1: 1, 2: 2, 3: 3},
        from_canonical={0: 0, 1: 1, 2: 2, 3: 3, 4: 0},
    ),
    Scheme(
        name="brats2024",
        description="BraTS 2024, after treatment: as 2023, and 4 resection cavity",
        to_canonical={0: 0, 1: 1, 2: 2, 3: 3, 4: 4},
        from_canonical={0: 0, 1: 1, 2: 2, 3: 3, 4: 4},
    ),
    Scheme(
        name="msd",
        description="Medical Segmentation Decathlon Task01: 1 oedema, 2 non-enhancing, 3 enhancing",
        to_canonical={0: 0, 1: 2, 2: 1, 3: 3},
        from_canonical={0: 0, 1: 2, 2: 1, 3: 3, 4: 0},
    ),
    Scheme(
        name="binary",
        description="1 whole tumour; knows no other region",
        to_canonical={0: 0, 1: 2},
        from_canonical={0: 0, 1: 1, 2: 1, 3: 1, 4: 0},
        regions=("wt",),
    ),
)
SCHEMES = {scheme.name: scheme for scheme in _ALL}


def canonical_table(scheme: Scheme) -> np.ndarray:
    """(256,) uint8: canonical label of each source value, `NO_LABEL` for values it has not."""
    return _lookup(scheme.to_canonical)


def source_table(scheme: Scheme) -> np.ndarray:
    """(256,) uint8: source value of each canonical label, `NO_LABEL` beyond the labels."""
    return _lookup(scheme.from_canonical)


def region_table(region: str) -> np.ndarray:
    """(256,) bool: whether a canonical label belongs to `region`, a key of `REGIONS`."""
    table = np.zeros(256, bool)
    table[list(REGIONS[region])] = True
    return table


def _lookup(mapping: Mapping[int, int]) -> np.ndarray:
    table = np.full(256, NO_LABEL, np.uint8)
    table[list(mapping)] = list(mapping.values())
    return table


def detect_scheme(
    naming: str,
    values_by_case: Mapping[str, frozenset[int]],
    dataset_labels: Sequence[tuple[int, str]] = (),
    override: str = "auto",
) -> Scheme:
    """The one scheme of a unit: the cases of one naming under one DATA argument.

    naming          of `namings.NAMINGS`
    values_by_case  every value in each case's mask; empty for a case without a mask
    dataset_labels  value and name of each label, where a dataset.json tells
    override        "auto", or the name of a scheme

    An override is believed before dataset.json, dataset.json before names, names before values.
    Values alone decide for plain names, and only where their union over the unit is all that
    exactly one scheme has; a union of {0, 1} is binary under every name. A unit without any mask is
    taken to be of the scheme its names say, of brats2023 where they say nothing.

    Raises BratsError for an unknown override, LabelSchemeError for cases with values that
    contradict the scheme, and for no case in particular where several schemes or none are possible.
    Each names the values, the cases that hold them and the way out.
    """
    if naming not in NAMINGS:
        raise ValueError(f"naming {naming!r}: expected one of {', '.join(NAMINGS)}")
    union = frozenset().union(*values_by_case.values())
    if override != "auto":
        if override not in SCHEMES:
            raise BratsError(f"--label-scheme {override}: expected auto or {', '.join(SCHEMES)}")
        scheme, reason = SCHEMES[override], "by --label-scheme"
    elif dataset_labels:
        scheme, reason = _named_by_dataset(dataset_labels), "by dataset.json"
    elif naming == "plain" or union == SCHEMES["binary"].values:
        # No tumour is necrosis alone: masks of 1 were made binary, whatever their cases are called.
        scheme, reason = _told_by_values(values_by_case, union), "by the values of all its cases"
    elif naming == "brats2023":
        # The ids of 2023 and 2024 look alike; only the resection cavity tells them apart.
        scheme, reason = _told_by_cavity(values_by_case, union), "by its name"
    else:
        scheme, reason = SCHEMES[naming], "by its name"
    faults = [
        Fault(
            case=case_id,
            path=None,
            found=f"its mask holds {_listed(values - scheme.values)}",
            expected=f"only {_listed(scheme.values)}, the labels of {scheme.name}, {reason}",
            remedy=_way_out(union),
        )
        for case_id, values in sorted(values_by_case.items())
        if not values <= scheme.values
    ]
    if faults:
        raise LabelSchemeError(faults)
    return scheme


def _named_by_dataset(dataset_labels: Sequence[tuple[int, str]]) -> Scheme:
    """The scheme whose every value means what a dataset.json says it does."""
    meant = {value: _meaning(name) for value, name in dataset_labels}
    for scheme in _ALL:
        if meant == scheme.to_canonical:
            return scheme
    named = ", ".join(f"{value} {name!r}" for value, name in dataset_labels)
    raise _undecided(f"the labels {named} in dataset.json", "the labels of a known scheme")


def _meaning(name: str) -> int | None:
    """The canonical label that a label's English name stands for, None where it is not clear."""
    text = name.lower()
    if "background" in text:
        return 0
    # "Surrounding non-enhancing FLAIR hyperintensity" is the newer name of oedema.
    if "edema" in text or "flair" in text:
        return 2
    if "non" in text or "necro" in text:
        return 1
    if "enhanc" in text:
        return 3
    return 4 if "cavity" in text else None


def _told_by_values(values_by_case: Mapping[str, frozenset[int]], union: frozenset[int]) -> Scheme:
    if not union:
        return SCHEMES["brats2023"]
    if union <= SCHEMES["binary"].values:
        return SCHEMES["binary"]
    exact = [scheme for scheme in _ALL if scheme.values == union]
    if len(exact) == 1:
        return exact[0]
    odd = [case for case, values in sorted(values_by_case.items()) if not _explains(values)]
    if odd:
        raise LabelSchemeError(
            [
                Fault(
                    case=case_id,
                    path=None,
                    found=f"its mask holds {_listed(values_by_case[case_id])}",
                    expected="the labels of a known scheme, 0 to 4",
                    remedy=_way_out(values_by_case[case_id]),
                )
                for case_id in odd
            ]
        )
    possible = exact or _explains(union)
    meanings = "; ".join(f"{scheme.name} ({scheme.description})" for scheme in possible)
    expected = f"labels that only one scheme explains, not {meanings}"
    raise _undecided(
        f"case names say nothing, and there is {_holders(values_by_case, union)}",
        expected,
        tuple(scheme.name for scheme in possible),
    )


def _told_by_cavity(values_by_case: Mapping[str, frozenset[int]], union: frozenset[int]) -> Scheme:
    if 4 not in union:
        return SCHEMES["brats2023"]
    if 3 in union:
        return SCHEMES["brats2024"]
    raise _undecided(
        f"case names are of 2023 or later, and there is {_holders(values_by_case, union)}",
        "label 3 somewhere if 4 is the resection cavity of brats2024, no 4 otherwise",
        ("brats2024", "brats2017"),
    )


def _undecided(found: str, expected: str, names: Sequence[str] = ()) -> LabelSchemeError:
    fault = Fault(
        case="",
        path=None,
        found=f"cannot tell the label scheme: {found}",
        expected=expected,
        remedy=f"Say which it is: --label-scheme {' or '.join(names or SCHEMES)}.",
    )
    return LabelSchemeError([fault])


def _explains(values: frozenset[int]) -> list[Scheme]:
    """The schemes that have all of `values`."""
    return [scheme for scheme in _ALL if values <= scheme.values]


def _way_out(union: frozenset[int]) -> str:
    names = [scheme.name for scheme in _explains(union)]
    if not names:
        return "No scheme has all these labels; look at the mask."
    return f"If the masks follow another scheme, say so: --label-scheme {' or '.join(names)}."


def _holders(values_by_case: Mapping[str, frozenset[int]], union: frozenset[int]) -> str:
    """Each value other than background and the first cases that hold it."""
    texts = []
    for value in sorted(union - {0}):
        cases = sorted(case for case, values in values_by_case.items() if value in values)
        texts.append(f"label {value} in {first_few(cases, _NUM_NAMED)}")
    return "; ".join(texts)


def _listed(values: frozenset[int]) -> str:
    return ", ".join(str(value) for value in sorted(values))
