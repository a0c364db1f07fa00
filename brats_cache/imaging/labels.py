"""Label schemes: what the values in a segmentation mean, which differs by year and data set.

Everything in a cache is canonical:

    0 background    1 NCR/NET (necrotic and non-enhancing core)    2 ED (oedema)
    3 ET (enhancing tumour)    4 RC (resection cavity; in no region)

Regions are sets of canonical labels: wt {1, 2, 3}, tc {1, 3}, et {3}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = [
    "LABELS",
    "NO_LABEL",
    "REGIONS",
    "SCHEMES",
    "Scheme",
    "canonical_table",
    "region_table",
    "source_table",
]

LABELS = {0: "background", 1: "NCR/NET", 2: "ED", 3: "ET", 4: "RC"}  # the canonical ones
REGIONS = {"wt": frozenset({1, 2, 3}), "tc": frozenset({1, 3}), "et": frozenset({3})}
NO_LABEL = 255  # in a lookup table: no such value in this scheme


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """One meaning of the values in a segmentation.

    Attributes:
        name: As in --label-scheme.
        description: Who used it and what its values mean.
        to_canonical: Source value -> canonical label, for every value the scheme has.
        from_canonical: Canonical label -> source value, for every canonical label.
        regions: The regions whose truth a mask of this scheme gives.
        is_detected: Whether the values of masks alone may decide for it; a scheme of a tool's
            output must be named.
    """

    name: str
    description: str
    to_canonical: Mapping[int, int]
    from_canonical: Mapping[int, int]
    regions: tuple[str, ...] = ("wt", "tc", "et")
    is_detected: bool = True

    @property
    def values(self) -> frozenset[int]:
        """Every source value the scheme has."""
        return frozenset(self.to_canonical)


# Written back, a resection cavity is background in the schemes without one. brats2013 splits
# canonical 1 into necrosis (1) and non-enhancing core (3), brats2024ped into non-enhancing core (2)
# and cyst (3); written back it is the first of the two. binary's one value is any tumour: it
# becomes 2, the one label that is in wt and in neither tc nor et, so that it never counts as
# another region.
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
        description="BraTS 2023 and later, before treatment: 1 NCR/NET, 2 oedema, 3 enhancing",
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
    Scheme(
        name="brats2024ped",
        description="BraTS-PED 2024: 1 enhancing, 2 non-enhancing, 3 cyst, 4 oedema",
        to_canonical={0: 0, 1: 3, 2: 1, 3: 1, 4: 2},
        from_canonical={0: 0, 1: 2, 2: 4, 3: 1, 4: 0},
    ),
    Scheme(
        name="deepbratumia",
        description="DeepBraTumIA (LUMIERE): 1 enhancing, 2 necrosis or non-enhancing, 3 oedema",
        to_canonical={0: 0, 1: 3, 2: 1, 3: 2},
        from_canonical={0: 0, 1: 2, 2: 3, 3: 1, 4: 0},
        is_detected=False,
    ),
    Scheme(
        name="hdglio",
        description="HD-GLIO (LUMIERE): 1 T2/FLAIR abnormality, 2 enhancing; knows no tumour core",
        to_canonical={0: 0, 1: 2, 2: 3},
        from_canonical={0: 0, 1: 1, 2: 1, 3: 2, 4: 0},
        regions=("wt", "et"),
        is_detected=False,
    ),
)
SCHEMES = {scheme.name: scheme for scheme in _ALL}


def canonical_table(scheme: Scheme) -> np.ndarray:
    """Returns (256,) uint8: the canonical label of each source value, `NO_LABEL` for others."""
    return _lookup(scheme.to_canonical)


def source_table(scheme: Scheme) -> np.ndarray:
    """Returns (256,) uint8: the source value of each canonical label, `NO_LABEL` beyond them."""
    return _lookup(scheme.from_canonical)


def region_table(region: str) -> np.ndarray:
    """Returns (256,) bool: whether a canonical label belongs to `region`, a key of `REGIONS`."""
    table = np.zeros(256, bool)
    table[list(REGIONS[region])] = True
    return table


def _lookup(mapping: Mapping[int, int]) -> np.ndarray:
    table = np.full(256, NO_LABEL, np.uint8)
    table[list(mapping)] = list(mapping.values())
    return table
