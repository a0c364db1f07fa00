"""Converting to float16 gives NumPy's bits for every kind of value, so caches stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

from brats_cache.imaging import half
from brats_cache.imaging.half import to_float16

WIDTH = 256


def all_float16() -> np.ndarray:
    """Every float16, NaN and infinities included, as float32."""
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


def edges() -> np.ndarray:
    """Every float16, every midpoint of two neighbours (subnormal ones too, and that between the
    largest and infinity), and the float32 values right above and below each."""
    finite = np.sort(all_float16()[np.isfinite(all_float16())])
    midpoints = (finite[1:] + finite[:-1]) / 2  # exact in float32
    points = np.concatenate([all_float16(), midpoints, np.float32([65520, -65520])])
    with np.errstate(all="ignore"):
        above, below = np.nextafter(points, np.float32(np.inf)), np.nextafter(points, -np.inf)
    return np.concatenate([points, above.astype(np.float32), below.astype(np.float32)])


def every_exponent() -> np.ndarray:
    """Float32 of both signs and all 256 exponents, each with single bits set, none, all, some."""
    random = np.random.default_rng(0).integers(0, 1 << 23, 300, dtype=np.uint32)
    bits = np.uint32(1) << np.arange(23, dtype=np.uint32)
    mantissas = np.concatenate([[0, (1 << 23) - 1], bits, bits - 1, random]).astype(np.uint32)
    exponents = np.arange(256, dtype=np.uint32) << 23
    unsigned = (exponents[:, None] | mantissas).ravel()
    return np.concatenate([unsigned, unsigned | np.uint32(1 << 31)]).view(np.float32)


def by_numpy(values: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return values.astype(np.float16)


def converted(values: np.ndarray) -> np.ndarray:
    """The float16 of (n,) values, in lines of any width."""
    lines = np.resize(values, (-(-len(values) // WIDTH), WIDTH))
    out = np.ones(lines.shape, np.float16)
    to_float16(lines, out)
    return out.ravel()[: len(values)]


@pytest.mark.parametrize("values", [edges(), every_exponent()], ids=["edges", "exponents"])
@pytest.mark.parametrize("has_float16", [half._HAS_FLOAT16, False])
def test_every_bit_is_numpys(
    values: np.ndarray, has_float16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half, "_HAS_FLOAT16", has_float16)
    result = converted(values)
    is_nan = np.isnan(values)
    wanted = by_numpy(values[~is_nan])
    assert np.array_equal(result[~is_nan].view(np.uint16), wanted.view(np.uint16))
    assert np.isnan(result[is_nan]).all()


def test_the_edges_hold_what_they_say() -> None:
    values = edges()
    result = by_numpy(values)
    assert np.isinf(result[values == 65520]).all()
    assert (result[values == np.nextafter(np.float32(65520), np.float32(0))] == 65504).all()
    assert (np.signbit(values) & (values == 0)).any()
    assert (np.abs(values) == 2.0**-25).any()  # halfway between 0 and the smallest subnormal


def test_a_part_of_an_image_is_written_in_place() -> None:
    values = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)
    out = np.full((40, 50), 7, np.float16)
    target = (slice(3, 20), slice(11, 44))
    to_float16(values[target], out[target])
    assert np.array_equal(out[target], values[target].astype(np.float16))
    out[target] = 7
    assert (out == 7).all()
    to_float16(values[:0], out[:0])
    to_float16(values[:, 5:5], out[:, 5:5])
