"""Flips, rotation, zoom and a window of batches of slices on the device, images and masks alike.

Everything here is deterministic: the parameters are drawn elsewhere (`augmentation.draw`).
"""

from __future__ import annotations

import torch
from kornia.geometry.transform import remap
from torch import Tensor

from brats_train.data.intensity import brain_mask

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
    window: int = 0,
    shift: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Flips, rotates, zooms and cuts out in one resampling; pixels from outside are 0.

    Args:
        images: (B, C, H, W) float32, interpolated bilinearly.
        masks: (B, 1, H, W) uint8, nearest neighbour.
        horizontal: See `flip`.
        vertical: See `flip`.
        angle: (B,) float32, degrees, positive counter-clockwise as displayed.
        zoom: (B,) float32 factors, more than 1 enlarges.
        window: Pixels of the square that is kept along each axis, 0 for the whole slice.
        shift: (B, 2) float32, y and x of the window's centre within the brain: 0 the middle of its
            bounding box, -1 and 1 where the window reaches the box's ends. Where the window is
            larger than the box, it lies in the middle.

    Returns:
        Images and masks in the same dtypes, (B, C, H, W) or (B, C, window, window).
    """
    centre = None if shift is None else _window_centre(images, window, shift)
    if centre is not None and angle is None and zoom is None:
        centre = centre.floor()  # pixels are copied, not interpolated half-way between two
    map_x, map_y = _sampling_grid(images, horizontal, vertical, angle, zoom, window, centre)

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
    window: int,
    centre: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The source position of each pixel of the result: x and y, each (B, H, W) float32.

    In the normalised coordinates of `grid_sample` with half-pixel centres. A pixel of the result at
    (x, y) from its centre, y downwards, comes from F R^-1 (x, y) / zoom from the slice's centre or,
    (B, 2) pixels from there, `centre`, where F mirrors and R^-1 rotates back by the angle a:
    (x cos a - y sin a, x sin a + y cos a). Nothing has to be inverted.
    """
    height, width = images.shape[2:]
    if angle is None:
        angle = torch.zeros(len(images), device=images.device)
    # torch's own functions: Kornia 0.8 converts degrees with a constant it copies from the host.
    radians = torch.deg2rad(angle)
    cosine, sine = radians.cos(), radians.sin()
    if zoom is not None:
        cosine, sine = cosine / zoom, sine / zoom
    across, down = window or width, window or height
    x = torch.arange(across, device=radians.device) - (across - 1) / 2
    y = torch.arange(down, device=radians.device) - (down - 1) / 2

    def scale(is_flipped: Tensor | None, size: int) -> Tensor | float:
        return 2 / size if is_flipped is None else (1 - 2 * is_flipped.float()) * (2 / size)

    scale_x, scale_y = scale(horizontal, width), scale(vertical, height)
    by_x = torch.stack([cosine * scale_x, sine * scale_y], dim=1)
    by_y = torch.stack([-sine * scale_x, cosine * scale_y], dim=1)
    # x and y in one tensor, interleaved by rows: Kornia stacks the two again, which takes a CPU two
    # and a half times longer where each is contiguous by itself.
    both = by_x[:, None, :, None] * x + by_y[:, None, :, None] * y[:, None, None]
    if centre is not None:
        both[:, :, 0] += centre[:, 1, None, None] * (2 / width)
        both[:, :, 1] += centre[:, 0, None, None] * (2 / height)
    return both[:, :, 0], both[:, :, 1]


def _window_centre(images: Tensor, window: int, shift: Tensor) -> Tensor:
    """Where the window lies: (B, 2) pixels y and x from the slice's centre, see `resample`."""
    brain = brain_mask(images)[:, 0] > 0
    centres = []
    for dim, part in ((2, shift[:, 0]), (1, shift[:, 1])):
        holds_brain = brain.any(dim).float()  # (B, H), then (B, W)
        length = holds_brain.shape[1]
        first, last = holds_brain.argmax(1), length - 1 - holds_brain.flip(1).argmax(1)
        room = (last + 1 - first - window).clamp_min(0) / 2
        centres.append((first + last - (length - 1)) / 2 + part * room)
    return torch.stack(centres, dim=1)
