"""Out-of-distribution check: whether a scan looks like those that a model was trained on.

docs/prediction.md describes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
from scipy.special import stdtrit

from brats_cache.imaging.scan_check import IDENTICAL, NOT_STRIPPED, OTHER_SPACING, SPACING_MM
from brats_train.models.looks import PERCENTILES, ScanLook

__all__ = ["MIN_LOOKS", "Comparison", "compare_look"]

MIN_LOOKS = 4  # fewer training scans tell nothing of how scans vary
FALSE_ALARMS = 1e-4  # of one figure of a scan, where it is normally distributed
# No difference, however alike the training scans are.
SIZE_TOLERANCE, SHARE_TOLERANCE, PERCENTILE_TOLERANCE = 0.1, 0.03, 0.25
WHOLE_HEADS = 0.5  # share of the middle slices; a brain alone takes 0.2 to 0.35 in BraTS
MAX_CORRELATION = 0.999  # of two modalities that are not one image
# How much better another order of the modalities must fit: docs/accuracy.md counts false alarms.
MAX_RATIO = 0.6


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How a scan compares with the training scans of a model.

    Attributes:
        line: What is unlike, what the training scans have and what can be done; "" where nothing
            is unlike.
        kinds: Of the warnings of `check_scans`, those that neither the line tells nor the training
            scans would give rise to.
    """

    line: str
    kinds: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """Something unlike: what, what can be done, and what `check_scans` calls it."""

    found: str
    advice: str
    kind: str = ""


def compare_look(
    look: ScanLook,
    known: Sequence[ScanLook],
    modalities: Sequence[str],
    held: Sequence[str],
    kinds: Sequence[str] = (),
) -> Comparison:
    """Compares a scan with the training scans of a model.

    Args:
        look: Of the scan, with the modalities `held`.
        known: Of the training scans, with all modalities; fewer than `MIN_LOOKS` tell nothing.
        modalities: The model's.
        held: Those of them that the scan has, in the same order.
        kinds: What `check_scans` says of the scan.
    """
    if len(known) < MIN_LOOKS:
        return Comparison(line="", kinds=tuple(kinds))
    findings = [*_sizes(look, known), *_contents(look, known, modalities, held)]
    found = "; ".join(one.found for one in findings)
    advice = " ".join(dict.fromkeys(one.advice for one in findings))
    told = {*_usual(known), *(one.kind for one in findings)}
    return Comparison(
        line=f"unlike the training scans: {found}. {advice}" if findings else "",
        kinds=tuple(kind for kind in kinds if kind not in told),
    )


def _usual(known: Sequence[ScanLook]) -> Iterator[str]:
    """The warnings of `check_scans` that the training scans themselves would give rise to."""
    spacing = np.median([one.spacing_mm for one in known], axis=0)
    if spacing.min() < SPACING_MM[0] or spacing.max() > SPACING_MM[1]:
        yield OTHER_SPACING
    if np.median([one.brain_share for one in known]) > WHOLE_HEADS:
        yield NOT_STRIPPED


def _sizes(look: ScanLook, known: Sequence[ScanLook]) -> Iterator[_Finding]:
    """What is unlike in spacing, else in the field of view; and in the share of brain."""
    spacing = np.array([one.spacing_mm for one in known])
    field = np.array([one.field_mm for one in known])
    if _is_other(np.log(look.spacing_mm), np.log(spacing), SIZE_TOLERANCE).any():
        found = f"voxels of {_compared(look.spacing_mm, spacing, 'mm')}"
        yield _Finding(found=found, advice="Resample it.", kind=OTHER_SPACING)
    elif _is_other(np.log(look.field_mm), np.log(field), SIZE_TOLERANCE).any():
        found = f"a field of view of {_compared(look.field_mm, field, 'mm')}"
        yield _Finding(found=found, advice="Crop or pad it.")
    share, shares = look.brain_share, np.array([one.brain_share for one in known])
    if _is_other(share, shares, SHARE_TOLERANCE):
        found = f"brain in {_compared([100 * share], 100 * shares[:, None], '%')}"
        found += " of the middle slices"
        if share > shares.mean():
            yield _Finding(
                found=f"{found}, as where the skull is not stripped",
                advice="Strip the skull with HD-BET or SynthStrip.",
                kind=NOT_STRIPPED,
            )
        else:
            yield _Finding(found=found, advice="Look whether all of it is there.")


def _contents(
    look: ScanLook, known: Sequence[ScanLook], modalities: Sequence[str], held: Sequence[str]
) -> Iterator[_Finding]:
    """What is unlike in the modalities: doubled, in another's place, or of other intensities."""
    channels = [modalities.index(name) for name in held]
    values = np.array(look.percentiles)
    percentiles = np.array([one.percentiles for one in known])[:, channels]
    correlations = _matrix(look.correlations, len(held))
    matrices = np.array([_matrix(one.correlations, len(modalities)) for one in known])
    matrices = matrices[:, channels][:, :, channels]
    pairs = [
        f"{held[one]} and {held[other]}"
        for one, other in combinations(range(len(held)), 2)
        if correlations[one, other] >= MAX_CORRELATION > matrices[:, one, other].mean()
    ]
    if pairs:
        found = f"{', '.join(pairs)} are one image"
        yield _Finding(found=found, advice="Check the names of its files.", kind=IDENTICAL)
        return
    order = _best_order(values, correlations, percentiles, matrices)
    if moved := [f"{held[at]} like {held[one]}" for at, one in enumerate(order) if at != one]:
        found = f"modalities look exchanged, {', '.join(moved)}"
        yield _Finding(found=found, advice="Check the names of its files.")
        return
    for name, own, others in zip(held, values, percentiles.swapaxes(0, 1), strict=True):
        if _is_other(own, others, PERCENTILE_TOLERANCE).any():
            spread = others.std(axis=0) + PERCENTILE_TOLERANCE
            worst = int(np.argmax(np.abs(own - others.mean(axis=0)) / spread))
            value = _compared(own[[worst]], others[:, [worst]], "standard deviations")
            found = f"{name} of other intensities, {PERCENTILES[worst]} % of it below {value}"
            yield _Finding(found=found, advice="Look at it with brats view.")


def _is_other(value: np.ndarray | float, known: np.ndarray, tolerance: float) -> np.ndarray:
    """Whether values lie where hardly any further one of a normal distribution would.

    That is, outside the prediction interval of the next value (Hahn and Meeker 1991, section 4.7),
    mean +- t s sqrt(1 + 1/n), widened by a tolerance.

    Args:
        value: (...) of the scan.
        known: (n, ...) of the training scans.
        tolerance: In the units of the values.

    Returns:
        (...) bool.
    """
    num = len(known)
    factor = stdtrit(num - 1, 1 - FALSE_ALARMS / 2) * np.sqrt(1 + 1 / num)
    allowed = factor * known.std(axis=0, ddof=1) + tolerance
    other: np.ndarray = np.abs(np.asarray(value) - known.mean(axis=0)) > allowed
    return other


def _best_order(
    values: np.ndarray, correlations: np.ndarray, known: np.ndarray, matrices: np.ndarray
) -> tuple[int, ...]:
    """Which modality each of a scan looks like: its own, unless another order fits far better.

    The fit is the squared Mahalanobis distance from the training scans. Their covariance, of more
    figures than there are scans, is shrunk after Ledoit and Wolf (2004).

    Args:
        values: (C, P) percentiles of the scan.
        correlations: (C, C).
        known: (n, C, P) of the training scans.
        matrices: (n, C, C).
    """
    vectors = np.array([_vector(*one) for one in zip(known, matrices, strict=True)])
    center, covariance = vectors.mean(axis=0), _shrunk_covariance(vectors)
    precision = np.linalg.inv(covariance)
    distances = {}
    for order in permutations(range(len(values))):
        # Were the modalities in this order: channel `order[i]` holds what belongs to channel i.
        away = _vector(values[list(order)], correlations[np.ix_(order, order)]) - center
        distances[order] = float(away @ precision @ away)
    own = tuple(range(len(values)))
    best = min(distances, key=distances.__getitem__)
    if distances[best] >= MAX_RATIO * distances[own]:
        return own
    return tuple(best.index(channel) for channel in own)


def _vector(percentiles: np.ndarray, correlations: np.ndarray) -> np.ndarray:
    """Percentiles and Fisher's z of the correlations of each pair, in one row."""
    pairs = correlations[np.triu_indices(len(correlations), 1)]
    return np.concatenate([percentiles.ravel(), np.arctanh(np.clip(pairs, -0.99, 0.99))])


def _shrunk_covariance(vectors: np.ndarray) -> np.ndarray:
    """(d, d): the covariance of (n, d) vectors, shrunk towards a multiple of the identity.

    The share is that of Ledoit and Wolf (2004), lemma 3.3.
    """
    num, size = vectors.shape
    away = vectors - vectors.mean(axis=0)
    plain = away.T @ away / num
    target = np.trace(plain) / size * np.eye(size)
    spread = ((plain - target) ** 2).sum()
    noise = sum(((np.outer(one, one) - plain) ** 2).sum() for one in away) / num**2
    share = min(noise / spread, 1.0) if spread > 0 else 1.0
    shrunk: np.ndarray = share * target + (1 - share) * plain + 1e-3 * np.eye(size)
    return shrunk


def _matrix(correlations: Sequence[float], size: int) -> np.ndarray:
    """(size, size) from the upper triangle."""
    matrix = np.eye(size)
    matrix[np.triu_indices(size, 1)] = correlations
    return matrix + np.triu(matrix, 1).T


def _compared(values: Sequence[float] | np.ndarray, known: np.ndarray, unit: str) -> str:
    """ "5 x 1 x 1 mm (training 0.9 to 1.1 x 1 x 1)"."""
    spans = [
        f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"
        for low, high in zip(known.min(axis=0), known.max(axis=0), strict=True)
    ]
    own = " x ".join(f"{value:.3g}" for value in values)
    return f"{own} {unit} (training {' x '.join(spans)})"
