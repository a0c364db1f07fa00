"""Flips, rotation and zoom of batches of slices on the device, images and masks alike.

Everything here is deterministic: the parameters are drawn elsewhere (`augmentation.draw`).
"""

from __future__ import annotations

import torch
from kornia.geometry.transform import remap
from torch import Tensor

__all__ = ["flip", "resample"]


def flip(tensor: Tensor, horizontal: Tensor | None, vertical: Tensor | None) -> Tensor:
    """Mirrors samples exactly, without interpolation.

    Args:
        tensor: (B, C, H, W).
        horizontal: (B,) bool, samples to mirror left-right; None for none.
        vertical: (B,) bool, samples to mirror top-bottom; None for none.
    """
    for is_flipped, dim in ((horizontal, 3), (vertical, 2)):
        if is_flipped is not None:
            tensor = torch.where(is_flipped[:, None, None, None], tensor.flip(dim), tensor)
    return tensor


def resample(
    images: Tensor,
    masks: Tensor,
    *,
    horizontal: Tensor | None,
    vertical: Tensor | None,
    angle: Tensor | None,
    zoom: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Flips, rotates and zooms about the centre in one resampling; pixels from outside are 0.

    Args:
        images: (B, C, H, W) float32, interpolated bilinearly.
        masks: (B, 1, H, W) uint8, nearest neighbour.
        horizontal: See `flip`.
        vertical: See `flip`.
        angle: (B,) float32, degrees, positive counter-clockwise as displayed.
        zoom: (B,) float32 factors, more than 1 enlarges. One of `angle` and `zoom` may be None.

    Returns:
        Images and masks in the same shapes and dtypes.
    """
    map_x, map_y = _sampling_grid(images, horizontal, vertical, angle, zoom)

    def sample(source: Tensor, mode: str) -> Tensor:
        return remap(
            source, map_x, map_y, mode, "zeros", align_corners=False, normalized_coordinates=True
        )

    return sample(images, "bilinear"), sample(masks.float(), "nearest").to(masks.dtype)


def _sampling_grid(
    images: Tensor,
    horizontal: Tensor | None,
    vertical: Tensor | None,
    angle: Tensor | None,
    zoom: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The source position of each pixel of the result: x and y, each (B, H, W) float32.

    In the normalised coordinates of `grid_sample` with half-pixel centres. A pixel of the result at
    (x, y) from the centre, y downwards, comes from F R^-1 (x, y) / zoom, where F mirrors and R^-1
    rotates back by the angle a: (x cos a - y sin a, x sin a + y cos a). Nothing has to be inverted.
    """
    height, width = images.shape[2:]
    if angle is None:
        assert zoom is not None
        angle = torch.zeros_like(zoom)
    # torch's own functions: Kornia 0.8 converts degrees with a constant it copies from the host.
    radians = torch.deg2rad(angle)
    cosine, sine = radians.cos(), radians.sin()
    if zoom is not None:
        cosine, sine = cosine / zoom, sine / zoom
    x = torch.arange(width, device=radians.device) - (width - 1) / 2
    y = torch.arange(height, device=radians.device) - (height - 1) / 2

    def scale(is_flipped: Tensor | None, size: int) -> Tensor | float:
        return 2 / size if is_flipped is None else (1 - 2 * is_flipped.float()) * (2 / size)

    scale_x, scale_y = scale(horizontal, width), scale(vertical, height)
    by_x = torch.stack([cosine * scale_x, sine * scale_y], dim=1)
    by_y = torch.stack([-sine * scale_x, cosine * scale_y], dim=1)
    # x and y in one tensor, interleaved by rows: Kornia stacks the two again, which takes a CPU two
    # and a half times longer where each is contiguous by itself.
    both = by_x[:, None, :, None] * x + by_y[:, None, :, None] * y[:, None, None]
    return both[:, :, 0], both[:, :, 1]
