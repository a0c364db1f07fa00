"""Changes of intensity, such as scanners and protocols make, on batches of slices on the device.

Everything here is deterministic: the parameters are drawn elsewhere (`augmentation.draw`), for each
sample or for each sample and modality. Background, exactly zero in all modalities, stays zero, and
so does a modality that a sample lacks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "RAW_ZERO",
    "bias_field",
    "blur",
    "brain_mask",
    "brightness_contrast",
    "gamma",
    "saturation",
]

# The value that raw intensity 0 has in an image, about, by the normalisation of its cache: the mean
# of a brain is some three of its standard deviations.
RAW_ZERO = {"zscore": -3.0, "percentile": 0.0, "none": 0.0}


def brain_mask(images: Tensor) -> Tensor:
    """(B, C, H, W) float32 -> (B, 1, H, W) float32, 1 in the brain: where any modality is not 0."""
    # The sum of magnitudes is 0 only where all are, and takes a CPU half as long as comparisons.
    magnitude = images[:, :1].abs()
    for modality in range(1, images.shape[1]):
        magnitude += images[:, modality : modality + 1].abs()
    return magnitude.sign_()


def _presence(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 1, 1) float32, 0 for a modality that a sample lacks, else 1."""
    return images.abs().amax((2, 3), keepdim=True).sign_()


def brightness_contrast(
    images: Tensor, brightness: Tensor | None, contrast: Tensor | None
) -> Tensor:
    """Scales brain voxels x by brightness f, after contrast g about the brain's mean m.

    f (m + g (x - m)) = f g x + f (1 - g) m: the two commute, and both are one scale and one shift.

    Args:
        images: (B, C, H, W) float32.
        brightness: (B, C) factors f, None for no change.
        contrast: (B, C) factors g, None for no change.
    """
    if contrast is None:
        return images if brightness is None else images * brightness[:, :, None, None]
    brain = brain_mask(images)
    # Background is zero in every modality, so the brain's sum is the sum over the image.
    mean = images.sum((2, 3)) / brain.sum((2, 3)).clamp_min(1)
    scale, shift = contrast, (1 - contrast) * mean
    if brightness is not None:
        scale, shift = scale * brightness, shift * brightness
    return (images * scale[:, :, None, None]).addcmul_(brain, shift[:, :, None, None])


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scales the distance of every modality from the mean of the modalities.

    Args:
        images: (B, C, H, W) float32.
        factor: (B,) factors, 1 for no change.
    """
    mixed = torch.lerp(images.mean(1, keepdim=True), images, factor[:, None, None, None])
    return mixed * _presence(images)


def gamma(images: Tensor, exponent: Tensor) -> Tensor:
    """Raises magnitudes to a power and keeps signs: r sign(x) |x / r|**g, with r the brain's RMS.

    Args:
        images: (B, C, H, W) float32.
        exponent: (B, C) exponents g, 1 for no change.
    """
    number = brain_mask(images).sum((2, 3)).clamp_min(1)
    rms = (images.square().sum((2, 3)) / number).sqrt().clamp_min(1e-6)[:, :, None, None]
    return images.sign() * (images.abs() / rms).pow(exponent[:, :, None, None]) * rms


def bias_field(images: Tensor, coefficients: Tensor, raw_zero: float) -> Tensor:
    """Multiplies intensities by a smooth field 1 + b, b a polynomial of degree 2 over the slice.

    Receive coils do so to raw intensities r: an image z = r / s + o, o the value of raw zero,
    becomes z + b (z - o).

    Args:
        images: (B, C, H, W) float32.
        coefficients: (B, C, 5) of x, y, x y, x**2 and y**2, with x and y in [-1, 1].
        raw_zero: See `RAW_ZERO`.
    """
    _, _, height, width = images.shape
    y = torch.linspace(-1, 1, height, device=images.device)[:, None]
    x = torch.linspace(-1, 1, width, device=images.device)
    by_x, by_y, by_xy, by_xx, by_yy = coefficients[..., None, None].unbind(2)
    # No matrix product: it would be rounded to 10 bits where training has allowed TF32.
    field = (by_x * x + by_xx * x * x) + (by_y * y + by_yy * y * y) + (by_xy * y) * x
    if not raw_zero:
        return torch.addcmul(images, field, images)
    # A fixed shift: one computed from the slice would depend on how much brain it holds.
    raw = images - raw_zero * brain_mask(images) * _presence(images)
    return torch.addcmul(images, field, raw)


def blur(images: Tensor, weight: Tensor) -> Tensor:
    """Blends in the slice at half resolution, like partial volumes and interpolation.

    Args:
        images: (B, C, H, W) float32, H and W even.
        weight: (B,) weight of the coarse slice, in [0, 1], 0 for no change.
    """
    coarse = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear")
    return torch.lerp(images, coarse * brain_mask(images), weight[:, None, None, None])
