"""Augmentation on the device: parameters drawn for the global batch, then applied to a rank's part.

`draw` is the only source of chance: a pure function of (seed, epoch, step), so every rank draws the
same parameters for the global batch and takes its slice. `apply` is deterministic and never makes
the host wait for the device: nothing in it reads a value back, copies from the host or branches on
the content of a tensor.

The paper's operations are both flips, a small rotation, brightness and contrast; zoom, gamma, bias
field, blur and dropped modalities are further ones that MRI knows. Three things differ from
Kornia's own `ColorJiggle` and `RandomAffine`, which suit RGB photographs in [0, 1]:

- Intensity is changed about the mean of the *brain*, each sample and modality by its own factors,
  and never clamped: z-scored MRI is negative in half of the brain. Background stays exactly zero.
- Flips and rotation are one resampling with one set of coordinates for images and masks. The
  coordinates are element-wise products: a matrix product would be rounded to 10 bits wherever
  training has allowed TF32, which moves the border of a 256-pixel image by about 0.1 pixel.
- No random state of Kornia's is involved, and no sampling on the host.

Saturation and hue, which the paper lists too, mix the colour channels of one photograph. A modality
taken by itself is a grey image, which both leave as it is. `AugmentConfig` accepts the two, so that
the paper's settings can be written down as they are; `cross_modality` gives saturation a meaning.
"""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from dataclasses import fields, replace
from typing import Annotated

import torch
from kornia.geometry.transform import remap
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from brats_train.data import intensity
from brats_train.runtime.settings import SETTINGS

__all__ = ["AugmentConfig", "Parameters", "apply", "draw"]

_SAMPLES_A_THREAD = 4  # on a CPU, at once
_DIMENSIONS = {"brightness": 2, "contrast": 2, "gamma": 2, "kept": 2, "bias": 3}  # others have 1
UnitInterval = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AugmentConfig:
    """What may happen to a training sample; the defaults are the paper's. Zero switches one off.

    Attributes:
        hflip: Probability of mirroring left-right, in [0, 1].
        vflip: Probability of mirroring top-bottom, in [0, 1].
        rotate_degrees: Angle uniform in [-x, x] degrees, x in [0, 180].
        brightness: Factor uniform in [1 - x, 1 + x], x in [0, 1]: brain voxels times the factor.
        contrast: Likewise: brain voxels' distance from the brain's mean times the factor.
        saturation: Likewise, only with `cross_modality`: every modality's distance from the mean of
            the modalities times one factor a sample. Otherwise without effect.
        hue: In [0, 0.5]; without effect, for modalities have no colour wheel to turn.
        cross_modality: Let saturation act across the modalities of a sample.
        scale: Zoom log-uniform in [1 / (1 + x), 1 + x], x in [0, 1].
        gamma: Exponent log-uniform in [1 / (1 + x), 1 + x], each modality by itself, see
            `intensity.gamma`.
        bias_field: Largest coefficient of a smooth multiplicative field, see
            `intensity.bias_field`.
        blur: Largest share of the slice at half resolution, see `intensity.blur`.
        modality_dropout: Probability that one modality of a sample is set to zero.
        probability: Of gamma, bias field and blur, each, for a sample.

    Raises:
        pydantic.ValidationError: A `ValueError` that names the field and its range.
    """

    hflip: UnitInterval = 0.5
    vflip: UnitInterval = 0.5
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 5.0
    brightness: UnitInterval = 0.6
    contrast: UnitInterval = 0.6
    saturation: UnitInterval = 0.6
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    cross_modality: bool = False
    scale: Annotated[float, Field(ge=0, le=1)] = 0.0
    gamma: UnitInterval = 0.0
    bias_field: UnitInterval = 0.0
    blur: UnitInterval = 0.0
    modality_dropout: UnitInterval = 0.0
    probability: UnitInterval = 0.3


@plain_dataclass(frozen=True, kw_only=True)
class Parameters:
    """What happens to each of B samples with C modalities; None where an operation is off.

    Attributes:
        hflip: (B,) bool.
        vflip: (B,) bool.
        angle: (B,) float32, degrees, positive counter-clockwise as displayed.
        zoom: (B,) float32 factors, more than 1 enlarges.
        brightness: (B, C) float32 factors.
        contrast: (B, C) float32 factors.
        saturation: (B,) float32 factors.
        gamma: (B, C) float32 exponents.
        bias: (B, C, 5) float32 coefficients.
        blur: (B,) float32 weights.
        kept: (B, C) float32, 0 for a modality that is dropped, else 1.
    """

    hflip: Tensor | None = None
    vflip: Tensor | None = None
    angle: Tensor | None = None
    zoom: Tensor | None = None
    brightness: Tensor | None = None
    contrast: Tensor | None = None
    saturation: Tensor | None = None
    gamma: Tensor | None = None
    bias: Tensor | None = None
    blur: Tensor | None = None
    kept: Tensor | None = None

    def slice(self, start: int, stop: int) -> Parameters:
        """The parameters of samples `start` to `stop`: a rank's part of the global batch."""
        return replace(self, **{name: value[start:stop] for name, value in self._drawn().items()})

    def _drawn(self) -> dict[str, Tensor]:
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in named if value is not None}


def draw(
    config: AugmentConfig,
    *,
    num_samples: int,
    num_modalities: int,
    seed: int,
    epoch: int,
    step: int,
    device: torch.device | str,
) -> Parameters:
    """Parameters for the global batch of one step, on `device`.

    A pure function of its arguments and of the kind of device (the generators of CPU and CUDA
    differ), hence equal on every rank. Two uniform blocks are drawn whatever is switched on, so
    that switching one operation off leaves the draws of the others as they were.
    """
    generator = torch.Generator(device=device)
    generator.manual_seed(_mix(seed, epoch, step))
    width = 4 + 2 * num_modalities
    uniform = torch.rand((num_samples, width), generator=generator, device=device)
    signed = 2 * uniform - 1
    more = torch.rand((num_samples, 6 + 6 * num_modalities), generator=generator, device=device)
    by_modality = 2 * more[:, 6:].unflatten(1, (num_modalities, 6)) - 1
    happens = more[:, 1:4] < config.probability

    def factors(spread: float, columns: Tensor) -> Tensor | None:
        return 1 + spread * columns if spread > 0 else None

    return Parameters(
        hflip=uniform[:, 0] < config.hflip if config.hflip > 0 else None,
        vflip=uniform[:, 1] < config.vflip if config.vflip > 0 else None,
        angle=config.rotate_degrees * signed[:, 2] if config.rotate_degrees > 0 else None,
        saturation=factors(config.saturation, signed[:, 3]) if config.cross_modality else None,
        brightness=factors(config.brightness, signed[:, 4 : 4 + num_modalities]),
        contrast=factors(config.contrast, signed[:, 4 + num_modalities :]),
        zoom=(1 + config.scale) ** (2 * more[:, 0] - 1) if config.scale > 0 else None,
        gamma=(1 + config.gamma) ** (happens[:, :1] * by_modality[:, :, 0])
        if config.gamma > 0
        else None,
        bias=config.bias_field * happens[:, 1, None, None] * by_modality[:, :, 1:]
        if config.bias_field > 0
        else None,
        blur=config.blur * happens[:, 2] * more[:, 4] if config.blur > 0 else None,
        kept=_kept(more[:, 5], config.modality_dropout, num_modalities)
        if config.modality_dropout > 0 and num_modalities > 1
        else None,
    )


def _kept(uniform: Tensor, probability: float, num_modalities: int) -> Tensor:
    """(B, C) float32: zero for one modality of each sample whose `uniform` is below `probability`,
    where in that range it lies decides which."""
    chosen = (uniform * (num_modalities / probability)).long()  # C or more: none
    return (chosen[:, None] != torch.arange(num_modalities, device=uniform.device)).float()


def _mix(*values: int) -> int:
    """One well-mixed 64-bit seed from several integers; their order matters.

    state = 0, then for each value state = splitmix64(state + value), modulo 2**64. splitmix64 is
    the output function of Steele, Lea and Flood, "Fast splittable pseudorandom number generators"
    (OOPSLA 2014). Torch's CPU generator reads the low 32 bits of its seed alone, so the plain bits
    of seed, epoch and step could not simply be put side by side.
    """
    state = 0
    for value in values:
        state = (state + value + 0x9E3779B97F4A7C15) % 2**64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
        state ^= state >> 31
    return state


@torch.no_grad()
def apply(images: Tensor, masks: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
    """`images` and `masks` as `parameters` say, in new tensors; the inputs are left as they are.

    images   (B, C, H, W) float16 or float32, zero outside the brain
    masks    (B, 1, H, W) uint8 labels

    Returns images as float32 and masks as they were, in the same shapes and memory format. What is
    switched off costs nothing: with nothing switched on, the inputs come back, the images widened
    where they were float16. Computes in float32 under autocast too.
    Raises ValueError where shapes or dtypes are not those above.
    """
    _check(images, masks, parameters)
    with torch.autocast(device_type=images.device.type, enabled=False):
        if images.device.type == "cpu" and parameters._drawn():
            return _apply_in_pieces(images, masks, parameters)
        return _apply(images, masks, parameters)


def _apply(images: Tensor, masks: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
    images = images.float()
    # Intensity comes first: once resampled, the brain's border is no longer sharp.
    changed = _change_intensity(images, parameters)
    moved, moved_masks = _move(changed, masks, parameters)
    return _laid_out_like(moved, images), _laid_out_like(moved_masks, masks)


def _apply_in_pieces(
    images: Tensor, masks: Tensor, parameters: Parameters
) -> tuple[Tensor, Tensor]:
    """The same, piece by piece, with temporaries that stay in a CPU's caches: on two cores one and
    a half times as fast as a whole batch at once."""
    moved, moved_masks = torch.empty_like(images, dtype=torch.float32), torch.empty_like(masks)
    piece = _SAMPLES_A_THREAD * torch.get_num_threads()
    for start in range(0, len(images), piece):
        stop = start + piece
        moved[start:stop], moved_masks[start:stop] = _apply(
            images[start:stop], masks[start:stop], parameters.slice(start, stop)
        )
    return moved, moved_masks


def _check(images: Tensor, masks: Tensor, parameters: Parameters) -> None:
    if images.dtype not in (torch.float16, torch.float32) or masks.dtype != torch.uint8:
        raise ValueError(
            f"images are {images.dtype}, masks {masks.dtype}; "
            "expected torch.float16 or torch.float32, torch.uint8"
        )
    batch, num_modalities, height, width = images.shape
    if masks.shape != (batch, 1, height, width):
        raise ValueError(f"masks are {tuple(masks.shape)}; expected {(batch, 1, height, width)}")
    for name, value in parameters._drawn().items():
        expected = (batch, num_modalities, 5)[: _DIMENSIONS.get(name, 1)]
        if value.shape != expected:
            raise ValueError(
                f"{name} is {tuple(value.shape)}; expected {expected}: sliced by rank?"
            )


def _laid_out_like(tensor: Tensor, original: Tensor) -> Tensor:
    """`tensor` in the memory format of `original`: resampling gives plain contiguous tensors."""
    if original.is_contiguous():
        return tensor.contiguous()
    if original.is_contiguous(memory_format=torch.channels_last):
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor


def _change_intensity(images: Tensor, parameters: Parameters) -> Tensor:
    """All changes of intensity, in a fixed order."""
    images = intensity.brightness_contrast(images, parameters.brightness, parameters.contrast)
    if parameters.saturation is not None:
        images = intensity.saturation(images, parameters.saturation)
    if parameters.gamma is not None:
        images = intensity.gamma(images, parameters.gamma)
    if parameters.bias is not None:
        images = intensity.bias_field(images, parameters.bias)
    if parameters.blur is not None:
        images = intensity.blur(images, parameters.blur)
    if parameters.kept is not None:
        images = images * parameters.kept[:, :, None, None]
    return images


def _move(images: Tensor, masks: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
    """Flips, then rotation and zoom about the centre; zeros come in from outside.

    With a rotation or a zoom all is one resampling, bilinear for images and nearest for masks.
    Without them nothing lies between pixels, so that flips copy pixels exactly.
    """
    if parameters.angle is None and parameters.zoom is None:
        return _flip(images, parameters), _flip(masks, parameters)
    map_x, map_y = _source_coordinates(parameters, *images.shape[2:])

    def resample(source: Tensor, mode: str) -> Tensor:
        return remap(
            source, map_x, map_y, mode, "zeros", align_corners=False, normalized_coordinates=True
        )

    return resample(images, "bilinear"), resample(masks.float(), "nearest").to(masks.dtype)


def _flip(tensor: Tensor, parameters: Parameters) -> Tensor:
    for is_flipped, dim in ((parameters.hflip, 3), (parameters.vflip, 2)):
        if is_flipped is not None:
            tensor = torch.where(is_flipped[:, None, None, None], tensor.flip(dim), tensor)
    return tensor


def _source_coordinates(parameters: Parameters, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where each pixel of the result comes from: x and y, each (B, H, W) float32.

    In the normalised coordinates of `grid_sample` with half-pixel centres. A pixel of the result at
    (x, y) from the centre, y downwards, comes from F R^-1 (x, y), where F mirrors and R^-1 turns
    back by the angle a: (x cos a - y sin a, x sin a + y cos a), over the zoom. Nothing has to be
    inverted.
    """
    angle, zoom = parameters.angle, parameters.zoom
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

    across, down = scale(parameters.hflip, width), scale(parameters.vflip, height)
    by_x = torch.stack([cosine * across, sine * down], dim=1)
    by_y = torch.stack([-sine * across, cosine * down], dim=1)
    # Both at once, by turns row by row: Kornia stacks the two again, which takes a CPU two and a
    # half times longer where each lies by itself.
    both = by_x[:, None, :, None] * x + by_y[:, None, :, None] * y[:, None, None]
    return both[:, :, 0], both[:, :, 1]
