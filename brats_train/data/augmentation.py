"""Augmentation on the device: `draw` random parameters for a global batch, `apply` them to a part.

`draw` is the only source of randomness: a pure function of (seed, epoch, step), so every rank draws
the same parameters for the global batch and takes its slice. `apply` is deterministic and never
makes the host wait for the device: it reads no value back, copies nothing from the host and never
branches on the content of a tensor.

The paper's operations are both flips, a small rotation, brightness and contrast. Zoom, gamma, bias
field, blur and modality dropout are further ones for MRI, off by default. Three things differ from
Kornia's `ColorJiggle` and `RandomAffine`, which suit RGB photographs in [0, 1]:

- Intensity is changed about the mean of the *brain*, by factors for each sample and modality, and
  never clamped: z-scored MRI is negative in half of the brain. Background stays exactly zero.
- Flips, rotation and zoom are one resampling with one sampling grid for images and masks. The grid
  is computed element by element: a matrix product would be rounded to 10 bits wherever training
  allows TF32, which moves the border of a 256-pixel image by about 0.1 pixel.
- Kornia's random state is not used, and nothing is sampled on the host.

Saturation and hue, which the paper lists too, mix the colour channels of one photograph. A modality
by itself is a grey image, which both leave unchanged. `AugmentConfig` accepts the two, so that the
paper's settings can be written down as they are; `cross_modality` gives saturation a meaning.
"""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from dataclasses import fields, replace
from typing import Annotated, Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from brats_train.data import geometry, intensity
from brats_train.runtime.settings import SETTINGS

__all__ = ["AugmentConfig", "Parameters", "apply", "draw", "window_pixels"]

_SAMPLES_PER_THREAD = 4  # of a chunk on a CPU
_SHAPES = {  # sizes after (B,), one a character: C modalities, digits as they are
    **dict.fromkeys(("brightness", "contrast", "gamma", "kept"), "C"),
    "bias": "C5",
    "shift": "2",
}
UnitInterval = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AugmentConfig:
    """Settings of the augmentation; the defaults are the paper's, and 0 switches an operation off.

    Attributes:
        hflip: Probability of mirroring left-right, in [0, 1].
        vflip: Probability of mirroring top-bottom, in [0, 1].
        rotate_degrees: Angle uniform in [-x, x] degrees, x in [0, 180].
        brightness: Factor uniform in [1 - x, 1 + x], x in [0, 1]: brain voxels times the factor.
        contrast: Likewise: brain voxels' distance from the brain's mean times the factor.
        saturation: Likewise, only with `cross_modality`: every modality's distance from the mean of
            the modalities times one factor a sample. Otherwise without effect.
        hue: In [0, 0.5]; without effect, because modalities have no hue.
        cross_modality: Whether saturation acts across the modalities of a sample.
        scale: Zoom log-uniform in [1 / (1 + x), 1 + x], x in [0, 1].
        gamma: Exponent log-uniform in [1 / (1 + x), 1 + x], each modality by itself, see
            `intensity.gamma`.
        bias_field: Largest coefficient of a smooth multiplicative field, see
            `intensity.bias_field`.
        blur: Largest weight of the slice at half resolution, see `intensity.blur`.
        modality_dropout: Probability that one modality of a sample is set to zero.
        window: Share of a slice's side that a square window keeps, about the middle of the brain
            or, where the brain is larger, anywhere in it, see `window_pixels`; 1 for all of it.
        probability: Probability that a sample gets gamma, bias field and blur, drawn for each.

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
    window: Annotated[float, Field(gt=0, le=1)] = 1.0
    probability: UnitInterval = 0.3


@plain_dataclass(frozen=True, kw_only=True)
class Parameters:
    """Drawn parameters for B samples with C modalities; None where an operation is off.

    Attributes:
        hflip: (B,) bool, whether to mirror left-right.
        vflip: (B,) bool, whether to mirror top-bottom.
        angle: (B,) float32, degrees, positive counter-clockwise as displayed.
        zoom: (B,) float32 factors, more than 1 enlarges.
        brightness: (B, C) float32 factors.
        contrast: (B, C) float32 factors.
        saturation: (B,) float32 factors.
        gamma: (B, C) float32 exponents.
        bias: (B, C, 5) float32 coefficients, see `intensity.bias_field`.
        blur: (B,) float32 weights of the slice at half resolution.
        kept: (B, C) float32, 0 for a dropped modality, else 1.
        shift: (B, 2) float32 in [-1, 1], y and x of the window, see `geometry.resample`.
        window: Pixels of the window along each axis, 0 for the whole slice.
        num_slices: Slices of a sample, stacked as channels and changed alike.
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
    shift: Tensor | None = None
    window: int = 0
    num_slices: int = 1

    def slice(self, start: int, stop: int) -> Parameters:
        """The parameters of samples `start` to `stop` of the global batch, a rank's part."""
        return replace(self, **{name: value[start:stop] for name, value in self.drawn().items()})

    def by_slice(self) -> Parameters:
        """The parameters of B x `num_slices` samples of a single slice each."""
        repeated = {
            name: value.repeat_interleave(self.num_slices, dim=0)
            for name, value in self.drawn().items()
        }
        return replace(self, **repeated, num_slices=1)

    def drawn(self) -> dict[str, Any]:
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in named if isinstance(value, Tensor)}


def draw(
    config: AugmentConfig,
    *,
    num_samples: int,
    num_modalities: int,
    num_slices: int = 1,
    window: int = 0,
    seed: int,
    epoch: int,
    step: int,
    device: torch.device | str,
) -> Parameters:
    """Draws the parameters for the global batch of one step.

    A pure function of its arguments and of the kind of device (the generators of CPU and CUDA
    differ), hence equal on every rank. The same uniform numbers are drawn whatever is switched on,
    so switching one operation off leaves the draws of the others as they were.

    Args:
        config: What to draw.
        num_samples: B, samples of the global batch over all ranks.
        num_modalities: C.
        num_slices: Slices of a sample.
        window: Pixels of the window along each axis, 0 for the whole slice.
        seed: Seed of the run.
        epoch: Epoch, from 0.
        step: Step of the epoch, from 0.
        device: Where the parameters are needed.
    """
    generator = torch.Generator(device=device)
    generator.manual_seed(_mix_seed(seed, epoch, step))
    # Both flips, rotation and saturation; then C of brightness, and C of contrast.
    width = 4 + 2 * num_modalities
    uniform = torch.rand((num_samples, width), generator=generator, device=device)
    signed = 2 * uniform - 1
    # Zoom; whether gamma, bias field and blur apply; weight of the blur; modality dropout; then,
    # by modality, gamma and the five coefficients of the bias field.
    extra = torch.rand((num_samples, 6 + 6 * num_modalities), generator=generator, device=device)
    by_modality = 2 * extra[:, 6:].unflatten(1, (num_modalities, 6)) - 1
    place = torch.rand((num_samples, 2), generator=generator, device=device)
    is_applied = extra[:, 1:4] < config.probability

    def factors(spread: float, columns: Tensor) -> Tensor | None:
        return 1 + spread * columns if spread > 0 else None

    return Parameters(
        hflip=uniform[:, 0] < config.hflip if config.hflip > 0 else None,
        vflip=uniform[:, 1] < config.vflip if config.vflip > 0 else None,
        angle=config.rotate_degrees * signed[:, 2] if config.rotate_degrees > 0 else None,
        saturation=factors(config.saturation, signed[:, 3]) if config.cross_modality else None,
        brightness=factors(config.brightness, signed[:, 4 : 4 + num_modalities]),
        contrast=factors(config.contrast, signed[:, 4 + num_modalities :]),
        zoom=(1 + config.scale) ** (2 * extra[:, 0] - 1) if config.scale > 0 else None,
        gamma=(1 + config.gamma) ** (is_applied[:, :1] * by_modality[:, :, 0])
        if config.gamma > 0
        else None,
        bias=config.bias_field * is_applied[:, 1, None, None] * by_modality[:, :, 1:]
        if config.bias_field > 0
        else None,
        blur=config.blur * is_applied[:, 2] * extra[:, 4] if config.blur > 0 else None,
        kept=_kept(extra[:, 5], config.modality_dropout, num_modalities)
        if config.modality_dropout > 0 and num_modalities > 1
        else None,
        shift=2 * place - 1 if window else None,
        window=window,
        num_slices=num_slices,
    )


def window_pixels(config: AugmentConfig, size: int, multiple: int) -> int:
    """Pixels of the window along each axis: a share of `size`, rounded up to a `multiple`.

    Returns:
        0 where that is the whole slice.

    >>> window_pixels(AugmentConfig(window=0.6), 256, 32), window_pixels(AugmentConfig(), 256, 32)
    (160, 0)
    """
    window = -(-round(config.window * size) // multiple) * multiple
    return window if window < size else 0


def _kept(uniform: Tensor, probability: float, num_modalities: int) -> Tensor:
    """Modality dropout: (B, C) float32, 0 for the modality that a sample loses, else 1.

    A sample loses one where its `uniform`, (B,), is below `probability`; its value tells which.
    """
    chosen = (uniform * (num_modalities / probability)).long()  # C or more: none
    return (chosen[:, None] != torch.arange(num_modalities, device=uniform.device)).float()


def _mix_seed(*values: int) -> int:
    """Hashes several integers to one 64-bit seed; their order matters.

    state = 0, then for each value state = splitmix64(state + value), modulo 2**64. splitmix64 is
    the output function of Steele, Lea and Flood, "Fast splittable pseudorandom number generators"
    (OOPSLA 2014). Torch's CPU generator uses only the low 32 bits of its seed, so seed, epoch and
    step cannot simply be concatenated.
    """
    state = 0
    for value in values:
        state = (state + value + 0x9E3779B97F4A7C15) % 2**64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
        state ^= state >> 31
    return state


@torch.no_grad()
def apply(
    images: Tensor,
    masks: Tensor,
    parameters: Parameters,
    *,
    raw_zero: float = intensity.RAW_ZERO["zscore"],
) -> tuple[Tensor, Tensor]:
    """Augments a batch, without changing its tensors.

    Computes in float32, under autocast too. With nothing switched on the inputs are returned, the
    images converted to float32.

    Args:
        images: (B, N C, H, W) float16 or float32 for N slices a sample, 0 outside the brain.
        masks: (B, 1, H, W) uint8 labels.
        parameters: Of B samples and C modalities.
        raw_zero: See `intensity.RAW_ZERO`.

    Returns:
        Images as float32 and masks as uint8, in the same shapes, except with a window, and memory
        formats.

    Raises:
        ValueError: Shapes or dtypes are not those above.
    """
    _check(images, masks, parameters)
    with torch.autocast(device_type=images.device.type, enabled=False):
        if images.device.type == "cpu" and parameters.drawn():
            return _apply_in_chunks(images, masks, parameters, raw_zero)
        return _apply(images, masks, parameters, raw_zero)


def _apply(
    images: Tensor, masks: Tensor, parameters: Parameters, raw_zero: float
) -> tuple[Tensor, Tensor]:
    images = images.float()
    # Intensity comes first: once resampled, the brain's border is no longer sharp. Each slice of a
    # sample by itself: where one holds brain, its neighbour may hold background.
    if parameters.num_slices == 1:
        changed = _change_intensity(images, parameters, raw_zero)
    else:
        slices = images.unflatten(1, (parameters.num_slices, -1)).flatten(0, 1)
        slices = _change_intensity(slices, parameters.by_slice(), raw_zero)
        changed = slices.unflatten(0, (len(images), -1)).flatten(1, 2)
    moved, moved_masks = _change_geometry(changed, masks, parameters)
    return _like_format(moved, images), _like_format(moved_masks, masks)


def _apply_in_chunks(
    images: Tensor, masks: Tensor, parameters: Parameters, raw_zero: float
) -> tuple[Tensor, Tensor]:
    """`_apply` by chunks whose temporaries fit a CPU's caches: 1.5 times as fast on two cores."""
    side = slice(parameters.window or None)
    moved = torch.empty_like(images[..., side, side], dtype=torch.float32)
    moved_masks = torch.empty_like(masks[..., side, side])
    size = _SAMPLES_PER_THREAD * torch.get_num_threads()
    for start in range(0, len(images), size):
        stop = start + size
        moved[start:stop], moved_masks[start:stop] = _apply(
            images[start:stop], masks[start:stop], parameters.slice(start, stop), raw_zero
        )
    return moved, moved_masks


def _check(images: Tensor, masks: Tensor, parameters: Parameters) -> None:
    if images.dtype not in (torch.float16, torch.float32) or masks.dtype != torch.uint8:
        raise ValueError(
            f"images are {images.dtype}, masks {masks.dtype}; "
            "expected torch.float16 or torch.float32, torch.uint8"
        )
    batch, num_channels, height, width = images.shape
    if masks.shape != (batch, 1, height, width):
        raise ValueError(f"masks are {tuple(masks.shape)}; expected {(batch, 1, height, width)}")
    for name, value in parameters.drawn().items():
        sizes = {"C": num_channels // parameters.num_slices}
        expected = (batch, *(sizes.get(one) or int(one) for one in _SHAPES.get(name, "")))
        if value.shape != expected:
            raise ValueError(
                f"{name} is {tuple(value.shape)}; expected {expected}: sliced by rank?"
            )


def _like_format(tensor: Tensor, original: Tensor) -> Tensor:
    """`tensor` in the memory format of `original`; resampling returns contiguous tensors."""
    if original.is_contiguous():
        return tensor.contiguous()
    if original.is_contiguous(memory_format=torch.channels_last):
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor


def _change_intensity(images: Tensor, parameters: Parameters, raw_zero: float) -> Tensor:
    """All operations on intensity, in a fixed order."""
    images = intensity.brightness_contrast(images, parameters.brightness, parameters.contrast)
    if parameters.saturation is not None:
        images = intensity.saturation(images, parameters.saturation)
    if parameters.gamma is not None:
        images = intensity.gamma(images, parameters.gamma)
    if parameters.bias is not None:
        images = intensity.bias_field(images, parameters.bias, raw_zero)
    if parameters.blur is not None:
        images = intensity.blur(images, parameters.blur)
    if parameters.kept is not None:
        images = images * parameters.kept[:, :, None, None]
    return images


def _change_geometry(
    images: Tensor, masks: Tensor, parameters: Parameters
) -> tuple[Tensor, Tensor]:
    """Flips, rotation, zoom and window; with flips alone, pixels are copied exactly."""
    hflip, vflip = parameters.hflip, parameters.vflip
    if parameters.angle is None and parameters.zoom is None and not parameters.window:
        return geometry.flip(images, hflip, vflip), geometry.flip(masks, hflip, vflip)
    return geometry.resample(
        images,
        masks,
        horizontal=hflip,
        vertical=vflip,
        angle=parameters.angle,
        zoom=parameters.zoom,
        window=parameters.window,
        shift=parameters.shift,
    )
