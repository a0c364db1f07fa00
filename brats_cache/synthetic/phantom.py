"""Synthetic cases: heads as four sequences of a scanner see them.

The heads come from `anatomy`; here each sequence has its own contrast, gain, shading and noise. A
score on a phantom says that the software works, never how good a model is.

Hard on purpose: oedema fades outwards, cortex and ventricle caps are bright on FLAIR too, shading
and contrasts differ from case to case. No threshold finds the tumours; the four contrasts together
show each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from brats_cache.common.errors import BratsError, wrong_usage
from brats_cache.discovery.namings import MODALITIES
from brats_cache.synthetic.anatomy import Anatomy, make_anatomy

__all__ = ["Grade", "PhantomCase", "Shape", "check_phantom", "make_case"]

Grade = Literal["HGG", "LGG"]
Shape = tuple[int, int, int]
# Brightness by modality, in the order of MODALITIES, white matter being 1, measured on BraTS cases.
_HEALTHY = {
    "csf": (0.35, 0.35, 3.20, 0.35),
    "grey": (0.80, 0.82, 1.40, 1.35),
    "lesion": (0.92, 0.92, 1.50, 1.80),
    "vessel": (0.70, 2.40, 1.20, 0.90),
}
# What is ill differs from patient to patient: a case draws from these ranges.
_ILL = {
    "oedema": ((0.72, 0.88), (0.72, 0.88), (1.8, 2.3), (1.3, 1.85)),
    "necrosis": ((0.50, 0.72), (0.50, 0.72), (2.2, 3.0), (0.7, 1.7)),
    "rim": ((0.72, 0.90), (1.70, 2.60), (1.7, 2.2), (1.2, 1.7)),
    "solid": ((0.60, 0.75), (0.65, 0.80), (2.0, 2.6), (1.3, 1.8)),
}
_SMALLEST, _LARGEST = (16, 16, 8), (512, 512, 512)
_GRADE_BLOCK = 4  # one low grade in four (BraTS 2020: one in five), so that few cases hold both


@dataclass(frozen=True, kw_only=True, eq=False)
class PhantomCase:
    """One synthetic case; arrays are (X, Y, Z) as in the files.

    Attributes:
        images: By modality, int16: 0 outside the brain and nowhere inside it.
        mask: uint8, BraTS labels 0, 1 (NCR/NET), 2 (ED), 4 (ET).
        tissue: uint8, what most of a voxel would be without the tumour: 0 outside the brain,
            1 fluid, 2 grey matter, 3 white matter.
        grade: "HGG" or "LGG".
        age: Years.
        survival_days: After the diagnosis.
        resection: "GTR", "STR" or "NA".
    """

    images: dict[str, np.ndarray]
    mask: np.ndarray
    tissue: np.ndarray
    grade: Grade
    age: float
    survival_days: int
    resection: str


def make_case(seed: int, index: int, shape: Shape, grade: Grade | None = None) -> PhantomCase:
    """Computes one case; a pure function of its arguments.

    Args:
        seed: Of the data set, 0 or more.
        index: Number of the case in it, from 0.
        shape: (X, Y, Z) voxels; 240 x 240 x 155 are 1 mm each, fewer show the same head more
            coarsely.
        grade: None takes the case's own: one case in four is of low grade.

    Raises:
        BratsError: The seed is negative, or the shape outside 16 x 16 x 8 to 512 x 512 x 512.
    """
    check_phantom(seed=seed, shape=shape)
    grade = grade or _grade_of(seed, index)
    geometry, scanner, person = (
        np.random.Generator(np.random.SFC64(part))
        for part in np.random.SeedSequence((seed, index)).spawn(3)
    )
    anatomy = make_anatomy(geometry, shape[::-1], high_grade=grade == "HGG")
    images = {
        modality: _to_volume(_scan(part, anatomy, channel), anatomy, shape)
        for channel, (modality, part) in enumerate(zip(MODALITIES, scanner.spawn(4), strict=True))
    }
    tissue = 1 + np.argmax([anatomy.csf, anatomy.grey, anatomy.white], axis=0).astype(np.uint8)
    return PhantomCase(
        images=images,
        mask=_to_volume(anatomy.labels, anatomy, shape),
        tissue=_to_volume(tissue, anatomy, shape),
        grade=grade,
        age=round(float(np.clip(person.normal(60 if grade == "HGG" else 43, 12), 19, 88)), 3),
        survival_days=int(np.clip(person.lognormal(5.9, 0.8), 5, 1800)),
        resection=str(person.choice(["GTR", "STR", "NA"], p=[0.5, 0.1, 0.4])),
    )


def _grade_of(seed: int, index: int) -> Grade:
    """One case of each `_GRADE_BLOCK` in a row is of low grade, drawn for that block."""
    block, number = divmod(index, _GRADE_BLOCK)
    low = np.random.default_rng((seed, block, _GRADE_BLOCK)).integers(_GRADE_BLOCK)
    return "LGG" if number == low else "HGG"


def _scan(rng: np.random.Generator, anatomy: Anatomy, channel: int) -> np.ndarray:
    """The (n,) int16 magnitudes that modality number `channel` measures in the brain."""
    healthy = {name: levels[channel] * rng.normal(1, 0.06) for name, levels in _HEALTHY.items()}
    ill = {name: rng.uniform(*spans[channel]) for name, spans in _ILL.items()}
    image = anatomy.white + anatomy.csf * np.float32(healthy["csf"])
    image += anatomy.grey * np.float32(healthy["grey"])
    for share, level in (
        (anatomy.lesion, healthy["lesion"]),
        (anatomy.vessel, healthy["vessel"]),
        (anatomy.oedema * (0.45 + 0.55 * anatomy.graded), ill["oedema"]),
        (anatomy.necrosis, ill["necrosis"]),
        (anatomy.rim, ill["rim"]),
        (anatomy.solid, ill["solid"]),
    ):
        image += share * (np.float32(level) - image)
    diseased = anatomy.oedema + anatomy.necrosis + anatomy.rim + anatomy.solid
    image *= 1 + np.float32(0.07) * anatomy.mottle * diseased
    image *= np.exp(np.float32(rng.uniform(0.06, 0.16)) * anatomy.bias[channel])

    # The magnitude of a complex signal with Gaussian noise in both parts has Rician noise.
    noise = rng.standard_normal((2, len(image)), dtype=np.float32)
    noise *= np.float32(rng.uniform(0.02, 0.06))
    magnitude = np.hypot(image + noise[0], noise[1])
    gain = np.exp(rng.uniform(np.log(120), np.log(1800)))  # scanners share no scale
    return np.clip(np.rint(magnitude * np.float32(gain)), 1, 32767).astype(np.int16)


def _to_volume(values: np.ndarray, anatomy: Anatomy, shape: Shape) -> np.ndarray:
    """The values of the brain's voxels as a volume (X, Y, Z) that is 0 elsewhere."""
    volume = np.zeros(shape[::-1], values.dtype)
    volume.reshape(-1)[anatomy.voxels] = values
    return volume.T


def check_phantom(*, seed: int, shape: Shape, num_cases: int = 1, num_test_cases: int = 0) -> None:
    """Checks the arguments of a data set.

    Raises:
        BratsError: The seed is negative, the shape out of range, or there is no case.
    """
    if seed < 0:
        raise wrong_usage(BratsError(f"seed {seed} is negative; a phantom's seed is 0 or more."))
    limits = zip(_SMALLEST, shape, _LARGEST, strict=True)
    if not all(low <= size <= high for low, size, high in limits):
        found, low, high = (" x ".join(map(str, sizes)) for sizes in (shape, _SMALLEST, _LARGEST))
        raise wrong_usage(BratsError(f"a phantom cannot be {found} voxels; it is {low} to {high}."))
    if min(num_cases, num_test_cases) < 0 or num_cases + num_test_cases < 1:
        raise wrong_usage(
            BratsError(
                f"{num_cases} cases and {num_test_cases} test cases make no data set; "
                "ask for at least one of either."
            )
        )
