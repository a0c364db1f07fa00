"""The slices of one case, encoded for the report page: images as WebP, masks run-length coded."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from brats_train.report.gallery import CaseSlices
from brats_train.report.html import data_uri

__all__ = ["CaseEntry", "run_length"]

_WEBP_QUALITY = 60


@dataclass(frozen=True, kw_only=True)
class CaseEntry:
    """One case of the page.

    Attributes:
        case: Its id.
        ml_per_voxel: Volume of a voxel.
        modalities: The modalities shown.
        browser: What pages/report.js reads, images encoded.
    """

    case: str
    ml_per_voxel: float
    modalities: tuple[str, ...]
    browser: Mapping[str, Any]

    @property
    def num_bytes(self) -> int:
        """The bytes it takes in the page, nearly."""
        images: Mapping[str, str] = self.browser["sheets"]
        return sum(map(len, images.values())) + len(self.browser["masks"])

    @classmethod
    def of(cls, slices: CaseSlices, ml_per_voxel: float) -> CaseEntry:
        """Encodes slices for the page.

        The slices of a modality become one image, in rows of `columns` slices. Masks become a byte
        for each pixel: bit k is region k of the truth, bit 4 + k of the prediction.
        """
        num, channels, height, width = slices.images.shape
        truth = np.zeros_like(slices.prediction) if slices.truth is None else slices.truth
        bits = np.zeros((num, height, width), np.uint8)
        for index in range(len(slices.regions)):
            bits |= truth[:, index].astype(np.uint8) << index
            bits |= slices.prediction[:, index].astype(np.uint8) << (4 + index)
        columns = max(1, min(num, round(math.sqrt(num * height / width))))
        sheets = {
            name: _webp(_sheet(slices.images[:, channel], columns))
            for channel, name in zip(range(channels), slices.modalities, strict=True)
        }
        browser = {
            "case": slices.case,
            "z_indices": slices.z_indices.tolist(),
            "depth": slices.depth,
            "columns": columns,
            "is_whole": slices.is_whole,
            "first": slices.widest(slices.regions[0]),
            "height": height,
            "width": width,
            "pixel_mm": slices.pixel_mm,
            "windows": dict(zip(slices.modalities, slices.windows.round(1).tolist(), strict=True)),
            "known": list(slices.known),
            "sheets": sheets,
            "masks": base64.b64encode(run_length(bits)).decode(),
        }
        return cls(
            case=slices.case,
            ml_per_voxel=ml_per_voxel,
            modalities=slices.modalities,
            browser=browser,
        )


def _sheet(images: np.ndarray, columns: int) -> np.ndarray:
    """Puts (n, Y, X) images into rows of `columns`; WebP takes no side above 16383 pixels."""
    num, height, width = images.shape
    rows = -(-num // columns)
    padded = np.zeros((rows * columns, height, width), images.dtype)
    padded[:num] = images
    sheet: np.ndarray = padded.reshape(rows, columns, height, width).swapaxes(1, 2)
    return sheet.reshape(rows * height, columns * width)


def run_length(values: np.ndarray) -> bytes:
    """Encodes uint8 values as pairs of a value and a count.

    A count is a variable-length integer: groups of seven bits, the lowest first, all but the last
    with the eighth bit set (LEB128).
    """
    flat = values.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] ^ 1))
    out = bytearray()
    for start, count in zip(starts, np.diff(starts, append=flat.size), strict=True):
        out.append(int(flat[start]))
        rest = int(count)
        while rest > 127:
            out.append(rest & 127 | 128)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def _webp(image: np.ndarray) -> str:
    _, content = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY])
    return data_uri(content.tobytes(), "image/webp")
