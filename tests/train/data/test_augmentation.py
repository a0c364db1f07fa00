"""What is true of augmented batches and of the parameters behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import stats
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from brats_train.data.augmentation import AugmentConfig, Parameters, apply, draw, window_pixels

OFF = AugmentConfig(hflip=0, vflip=0, rotate_degrees=0, brightness=0, contrast=0)
PAPER = AugmentConfig()
EVERYTHING = AugmentConfig(
    cross_modality=True, scale=0.4, gamma=0.5, bias_field=0.3, blur=1.0, modality_dropout=0.2
)
EACH = {
    "hflip": replace(OFF, hflip=0.5),
    "vflip": replace(OFF, vflip=0.5),
    "rotation": replace(OFF, rotate_degrees=20),
    "brightness": replace(OFF, brightness=0.6),
    "contrast": replace(OFF, contrast=0.6),
    "saturation": replace(OFF, cross_modality=True),
    "scale": replace(OFF, scale=0.4),
    "gamma": replace(OFF, gamma=0.5, probability=0.5),
    "bias field": replace(OFF, bias_field=0.3, probability=0.5),
    "blur": replace(OFF, blur=1.0, probability=0.5),
    "dropout": replace(OFF, modality_dropout=0.5),
    "paper": PAPER,
    "everything": EVERYTHING,
}
each = pytest.mark.parametrize("config", EACH.values(), ids=EACH)

label_maps = npst.arrays(np.uint8, (9, 14), elements=st.sampled_from([0, 1, 2, 4]))
angles = st.floats(-180, 180, width=32)


def draw_for(config: AugmentConfig, images: Tensor, step: int = 0) -> Parameters:
    batch, modalities = images.shape[:2]
    return draw(
        config,
        num_samples=batch,
        num_modalities=modalities,
        seed=7,
        epoch=3,
        step=step,
        device=images.device,
    )


def brains(batch: int = 6, modalities: int = 4, height: int = 24, width: int = 20) -> Tensor:
    """Z-scored slices: noise within an off-centre ellipse, zero outside it."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn((batch, modalities, height, width), generator=generator)
    y, x = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    return images * ((x + 0.2) ** 2 + y**2 < 0.5)


def labels(batch: int = 6, height: int = 24, width: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    chosen = torch.randint(0, 4, (batch, 1, height, width), generator=generator)
    return torch.tensor([0, 1, 2, 4], dtype=torch.uint8)[chosen]


def one(value: float | bool) -> Tensor:
    return torch.tensor([value])


# Nothing asked for, nothing changed


def test_what_is_switched_off_returns_the_input_bit_for_bit() -> None:
    images, masks = brains(), labels()
    result = apply(images, masks, draw_for(OFF, images))
    assert torch.equal(result[0], images)
    assert torch.equal(result[1], masks)


def test_saturation_and_hue_leave_single_modalities_alone() -> None:
    images, masks = brains(), labels()
    config = replace(OFF, saturation=1.0, hue=0.5)
    assert torch.equal(apply(images, masks, draw_for(config, images))[0], images)


@each
def test_inputs_are_left_as_they_were(config: AugmentConfig) -> None:
    images, masks = brains(), labels()
    before = images.clone(), masks.clone()
    moved, _ = apply(images, masks, draw_for(config, images))
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])
    assert not torch.equal(moved, images)


# Geometry: images and masks move as one


@each
def test_masks_get_no_new_values(config: AugmentConfig) -> None:
    images, masks = brains(), labels()
    for step in range(5):
        _, moved = apply(images, masks, draw_for(config, images, step))
        assert moved.dtype == torch.uint8
        assert set(moved.unique().tolist()) <= set(masks.unique().tolist())


@settings(deadline=None, max_examples=100)
@given(label_maps, angles, st.booleans(), st.booleans())
def test_an_image_of_the_mask_moves_with_the_mask(
    label_map: np.ndarray, angle: float, hflip: bool, vflip: bool
) -> None:
    """The nearest pixel has at least a quarter of the bilinear weight, whatever the angle."""
    masks = torch.from_numpy(label_map)[None, None]
    parameters = Parameters(hflip=one(hflip), vflip=one(vflip), angle=one(angle))
    for label in (1, 2, 4):
        moved, moved_masks = apply((masks == label).float(), masks, parameters)
        assert (moved[moved_masks == label] >= 0.25 - 1e-4).all()
        assert (moved_masks[moved > 0.75 + 1e-4] == label).all()


@settings(deadline=None)
@given(label_maps, st.booleans(), st.booleans())
def test_flips_are_exact(label_map: np.ndarray, hflip: bool, vflip: bool) -> None:
    masks = torch.from_numpy(label_map)[None, None]
    axes = [dim for dim, is_flipped in ((3, hflip), (2, vflip)) if is_flipped]
    moved, moved_masks = apply(
        masks.float() / 3, masks, Parameters(hflip=one(hflip), vflip=one(vflip))
    )
    assert torch.equal(moved, (masks.float() / 3).flip(axes))
    assert torch.equal(moved_masks, masks.flip(axes))


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("vflip", [False, True])
def test_flips_within_a_rotation_are_the_same_flips(hflip: bool, vflip: bool) -> None:
    images, masks = brains(1), labels(1)
    flips = Parameters(hflip=one(hflip), vflip=one(vflip))
    flipped = apply(images, masks, flips)
    angle = Parameters(angle=one(11.0))
    in_two_steps = apply(*flipped, angle)
    at_once = apply(images, masks, replace(flips, angle=angle.angle))
    torch.testing.assert_close(at_once[0], in_two_steps[0])
    assert torch.equal(at_once[1], in_two_steps[1])


@pytest.mark.parametrize("shape", [(33, 33), (24, 40)])
@pytest.mark.parametrize("angle", [-90.0, -5.0, 3.0, 120.0])
def test_rotation_is_kornias_with_zeros_outside(shape: tuple[int, int], angle: float) -> None:
    from kornia.geometry.transform import rotate

    images = brains(2, 3, *shape) + 1
    masks = labels(2, *shape)
    moved, _ = apply(images, masks, Parameters(angle=torch.tensor([angle, 0.0])))
    torch.testing.assert_close(moved[:1], rotate(images[:1], one(angle)), atol=1e-3, rtol=0)
    torch.testing.assert_close(moved[1], images[1], atol=1e-4, rtol=0)


def test_positive_angles_turn_image_and_mask_counter_clockwise() -> None:
    masks = torch.zeros(1, 1, 33, 33, dtype=torch.uint8)
    masks[..., 16, 28] = 1  # at three o'clock
    moved, moved_masks = apply(masks.float(), masks, Parameters(angle=one(90.0)))
    assert moved_masks.nonzero().tolist() == [[0, 0, 4, 16]]  # at twelve o'clock
    assert moved.argmax() == moved_masks.argmax()


def test_a_quarter_turn_and_back_restores_the_inner_image() -> None:
    images, masks = brains(1, 2, 32, 32), labels(1, 32, 32)
    there = apply(images, masks, Parameters(angle=one(90.0)))
    back = apply(*there, Parameters(angle=one(-90.0)))
    torch.testing.assert_close(back[0], images, atol=1e-4, rtol=0)
    assert torch.equal(back[1], masks)


# Intensity: the brain alone, about its mean


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_intensity_leaves_masks_and_background_alone(name: str) -> None:
    images, masks = brains(), labels()
    images[0, 0] = 0  # a modality without a brain of its own
    background = (images == 0).all(1, keepdim=True).expand_as(images)
    moved, moved_masks = apply(images, masks, draw_for(EACH[name], images))
    assert torch.equal(moved_masks, masks)
    assert (moved[background] == 0).all()


def test_a_modality_that_a_sample_lacks_stays_zero() -> None:
    images, masks = brains(), labels()
    images[2, 1] = 0
    moved, _ = apply(images, masks, draw_for(replace(EVERYTHING, modality_dropout=0), images))
    assert (moved[2, 1] == 0).all()
    assert (moved[2, 0] != 0).any()


def test_background_is_not_brightened_by_moving() -> None:
    """With everything on, what is not within a pixel of the brain's new place is still zero."""
    images = brains()
    is_brain = (images != 0).any(1, keepdim=True)
    parameters = draw_for(EVERYTHING, images)
    moved, moved_brain = apply(images, is_brain.to(torch.uint8), parameters)
    near = torch.nn.functional.max_pool2d(moved_brain.float(), 3, stride=1, padding=1) > 0
    assert (moved[~near.expand_as(moved)] == 0).all()
    assert (~near).any()


def brain_values(images: Tensor, sample: int, modality: int, like: Tensor) -> Tensor:
    return images[sample, modality][(like[sample] != 0).any(0)]


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 2, width=32), st.floats(0, 2, width=32))
def test_brightness_scales_and_contrast_stretches_about_the_brains_mean(
    brightness: float, contrast: float
) -> None:
    images, masks = brains(2, 3) + 0.7 * (brains(2, 3) != 0), labels(2)
    factors = torch.ones(2, 3)
    changed = Parameters(brightness=factors.clone(), contrast=factors.clone())
    assert changed.brightness is not None
    assert changed.contrast is not None
    changed.brightness[1, 2], changed.contrast[1, 2] = brightness, contrast
    moved, _ = apply(images, masks, changed)
    values = brain_values(images, 1, 2, images)
    expected = brightness * (values.mean() + contrast * (values - values.mean()))
    torch.testing.assert_close(brain_values(moved, 1, 2, images), expected, atol=1e-5, rtol=1e-5)
    untouched = torch.ones(2, 3, dtype=torch.bool)
    untouched[1, 2] = False
    torch.testing.assert_close(moved[untouched], images[untouched], atol=1e-6, rtol=1e-6)


def test_intensities_are_not_clamped() -> None:
    images = 100 * brains()
    moved, _ = apply(images, labels(), Parameters(brightness=torch.full((6, 4), 1.5)))
    torch.testing.assert_close(moved, 1.5 * images)


@pytest.mark.parametrize(("factor", "spread"), [(0.0, 0.0), (1.0, 1.0), (1.5, 1.5)])
def test_saturation_blends_towards_the_mean_of_the_modalities(factor: float, spread: float) -> None:
    images = brains(2)
    moved, _ = apply(images, labels(2), Parameters(saturation=torch.full((2,), factor)))
    torch.testing.assert_close(moved.mean(1), images.mean(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(moved.std(1), spread * images.std(1), atol=1e-5, rtol=1e-5)


# What is drawn


NUM_DRAWN = 20_000


def drawn(config: AugmentConfig, **changes: int) -> Parameters:
    arguments = {"num_samples": NUM_DRAWN, "num_modalities": 3, "seed": 0, "epoch": 0, "step": 0}
    return draw(config, **(arguments | changes), device="cpu")


@pytest.mark.parametrize("field", ["hflip", "vflip"])
@pytest.mark.parametrize("probability", [0.1, 0.5, 1.0])
def test_flips_happen_as_often_as_stated(field: str, probability: float) -> None:
    flips = getattr(drawn(replace(OFF, **{field: probability})), field)  # type: ignore[arg-type]
    test = stats.binomtest(int(flips.sum()), NUM_DRAWN, probability)
    assert test.pvalue > 1e-3


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        ("angle", -5, 5),
        ("brightness", 0.4, 1.6),
        ("contrast", 0.4, 1.6),
        ("saturation", 0.4, 1.6),
    ],
)
def test_factors_are_uniform_over_their_range(field: str, low: float, high: float) -> None:
    values = getattr(drawn(EVERYTHING), field).reshape(NUM_DRAWN, -1)
    assert values.min() >= low - 1e-6
    assert values.max() <= high + 1e-6
    for column in values.T:
        assert stats.kstest(column.numpy(), "uniform", (low, high - low)).pvalue > 1e-3


def test_all_draws_are_independent() -> None:
    """But for dropped modalities, of which there is at most one in a sample."""
    parameters = replace(drawn(EVERYTHING), kept=None)
    columns = [value.reshape(NUM_DRAWN, -1).double() for value in parameters.drawn().values()]
    correlations = torch.corrcoef(torch.cat(columns, 1).T)
    # Of a sample: two flips, an angle, a zoom, a saturation, a blur; of each of three modalities:
    # brightness, contrast, gamma and five coefficients of the bias field.
    assert correlations.shape == (30, 30)
    assert (correlations - torch.eye(30)).abs().max() < 5 / NUM_DRAWN**0.5


def test_further_operations_stay_in_their_range_and_happen_as_often_as_stated() -> None:
    parameters = drawn(replace(EVERYTHING, modality_dropout=0.4, probability=0.25))
    zoom, gamma, bias, blur, kept = (
        torch.as_tensor(getattr(parameters, name))
        for name in ("zoom", "gamma", "bias", "blur", "kept")
    )
    assert 1 / 1.4 - 1e-6 <= zoom.min() < 0.75 < 1.35 < zoom.max() <= 1.4 + 1e-6
    assert 1 / 1.5 - 1e-6 <= gamma.min() < 0.7 < 1.45 < gamma.max() <= 1.5 + 1e-6
    assert 0.29 < bias.abs().max() <= 0.3
    assert 0.95 < blur.max() <= 1
    for happened in ((gamma != 1).all(1), (bias != 0).any(2).all(1), blur > 0):
        assert stats.binomtest(int(happened.sum()), NUM_DRAWN, 0.25).pvalue > 1e-3
    dropped = kept.shape[1] - kept.sum(1)
    assert set(dropped.tolist()) == {0, 1}
    assert stats.binomtest(int(dropped.sum()), NUM_DRAWN, 0.4).pvalue > 1e-3
    for modality in kept.T:
        share = 0.4 / kept.shape[1]
        assert stats.binomtest(int((modality == 0).sum()), NUM_DRAWN, share).pvalue > 1e-3


def test_zoom_enlarges_about_the_centre() -> None:
    images = torch.zeros(1, 1, 32, 32)
    images[..., 12:20, 12:20] = 1
    for zoom, side in ((2.0, 16), (0.5, 4), (1.0, 8)):
        moved, _ = apply(images, images.to(torch.uint8), Parameters(zoom=one(zoom)))
        assert moved.sum() == pytest.approx(side**2, rel=0.02)
        assert torch.allclose(moved, moved.flip(2).flip(3), atol=1e-5)


def test_gamma_of_one_and_a_weight_of_zero_change_nothing() -> None:
    images, masks = brains(), labels()
    still = Parameters(
        gamma=torch.ones(6, 4),
        bias=torch.zeros(6, 4, 5),
        blur=torch.zeros(6),
        kept=torch.ones(6, 4),
    )
    torch.testing.assert_close(apply(images, masks, still)[0], images)


@pytest.mark.parametrize("mean", [3.0, 0.0])
def test_a_bias_field_is_what_multiplying_raw_intensities_gives(mean: float) -> None:
    """Normalised anew by the same mean and deviation; some normalisations subtract no mean."""
    raw = brains() + mean * (brains() != 0).any(1, keepdim=True)
    is_brain = (raw != 0).any(1, keepdim=True)
    coefficients = torch.rand(6, 4, 5, generator=torch.Generator().manual_seed(0)) - 0.5
    y, x = torch.linspace(-1, 1, 24)[:, None], torch.linspace(-1, 1, 20)
    terms = torch.stack(torch.broadcast_tensors(x, y, x * y, x * x, y * y))
    field = 1 + torch.einsum("bck,khw->bchw", coefficients, terms)
    expected = (raw * field - mean) * is_brain
    found, _ = apply(brains(), labels(), Parameters(bias=coefficients), raw_zero=-mean)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_same_step_draws_the_same_and_every_other_differs() -> None:
    positions = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 2, 3), (3, 2, 1), (2, 1, 3)]

    def angle(position: tuple[int, int, int]) -> Tensor:
        seed, epoch, step = position
        values = drawn(PAPER, seed=seed, epoch=epoch, step=step, num_samples=50).angle
        assert values is not None
        return values

    for i, position in enumerate(positions):
        assert torch.equal(angle(position), angle(position))
        assert not any(torch.equal(angle(position), angle(other)) for other in positions[:i])


def test_drawing_leaves_torchs_global_generator_alone() -> None:
    before = torch.get_rng_state()
    drawn(EVERYTHING)
    assert torch.equal(torch.get_rng_state(), before)


def test_switching_one_operation_off_leaves_the_others_draws() -> None:
    assert torch.equal(
        torch.as_tensor(drawn(replace(EVERYTHING, hflip=0, brightness=0)).contrast),
        torch.as_tensor(drawn(EVERYTHING).contrast),
    )


# Ranks, precision, layout, device


@each
@pytest.mark.parametrize("cuts", [(0, 6), (0, 3, 6), (0, 1, 5, 6)])
def test_ranks_that_slice_the_parameters_make_the_global_batch(
    config: AugmentConfig, cuts: tuple[int, ...]
) -> None:
    images, masks = brains(), labels()
    parameters = draw_for(config, images)
    whole = apply(images, masks, parameters)
    parts = [apply(images[a:b], masks[a:b], parameters.slice(a, b)) for a, b in pairwise(cuts)]
    assert torch.equal(torch.cat([part[0] for part in parts]), whole[0])
    assert torch.equal(torch.cat([part[1] for part in parts]), whole[1])


@each
def test_autocast_does_not_lower_the_precision(config: AugmentConfig) -> None:
    images, masks = brains(), labels()
    expected = apply(images, masks, draw_for(config, images))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved, moved_masks = apply(images, masks, draw_for(config, images))
    assert moved.dtype == torch.float32
    assert torch.equal(moved, expected[0])
    assert torch.equal(moved_masks, expected[1])


@each
def test_no_graph_is_recorded(config: AugmentConfig) -> None:
    images = brains().requires_grad_()
    assert not apply(images, labels(), draw_for(config, images))[0].requires_grad


@each
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_memory_layout_is_kept(config: AugmentConfig, layout: torch.memory_format) -> None:
    images, masks = brains().contiguous(memory_format=layout), labels()
    moved, _ = apply(images, masks, draw_for(config, images))
    assert moved.stride() == images.stride()
    expected, _ = apply(brains(), masks, draw_for(config, images))
    torch.testing.assert_close(moved, expected)


class _OperationNames(TorchDispatchMode):
    """Collects what torch executes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(  # type: ignore[no-untyped-def]
        self, func: Callable[..., object], types, args=(), kwargs=None
    ) -> object:
        self.names.add(str(func).split(".")[1])
        return func(*args, **(kwargs or {}))


WAITS_FOR_THE_DEVICE = {
    "_local_scalar_dense",
    "equal",
    "index",
    "is_nonzero",
    "linalg_inv_ex",
    "linalg_solve_ex",
    "masked_select",
    "nonzero",
    "unique",
}
ROUNDED_UNDER_TF32 = {"addmm", "affine_grid_generator", "baddbmm", "bmm", "mm"}


def test_nothing_waits_for_the_device_or_is_rounded_by_tf32() -> None:
    images, masks = brains(), labels()
    with _OperationNames() as executed:
        apply(images, masks, draw_for(EVERYTHING, images))
    assert "grid_sampler_2d" in executed.names
    assert not executed.names & (WAITS_FOR_THE_DEVICE | ROUNDED_UNDER_TF32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_nothing_synchronises_and_results_agree_with_the_cpu() -> None:
    images, masks = brains(), labels()
    on_device = images.cuda(), masks.cuda()
    apply(*on_device, draw_for(EVERYTHING, on_device[0]))  # loading kernels may synchronise
    torch.cuda.set_sync_debug_mode("error")
    try:
        parameters = draw_for(EVERYTHING, on_device[0])
        moved, moved_masks = apply(*on_device, parameters.slice(0, 6))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    drawn_on_host = {name: value.cpu() for name, value in parameters.drawn().items()}
    on_host = replace(parameters, **drawn_on_host)
    expected, expected_masks = apply(images, masks, on_host)
    torch.testing.assert_close(moved.cpu(), expected, atol=1e-3, rtol=1e-3)
    assert (moved_masks.cpu() != expected_masks).float().mean() < 0.01


# Mistakes


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hflip", 1.5),
        ("vflip", -0.1),
        ("rotate_degrees", 181),
        ("brightness", 1.1),
        ("contrast", float("nan")),
        ("saturation", -1),
        ("hue", 0.6),
    ],
)
def test_a_setting_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"for AugmentConfig\n{field}\n  "):
        replace(PAPER, **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [EVERYTHING, OFF], ids=["everything", "nothing"])
def test_float16_is_widened_first(config: AugmentConfig) -> None:
    images, masks = brains().half(), labels()
    parameters = draw_for(config, images)
    widened, moved = apply(images, masks, parameters)
    expected, expected_masks = apply(images.float(), masks, parameters)
    assert widened.dtype == torch.float32
    assert torch.equal(widened, expected)
    assert torch.equal(moved, expected_masks)


def test_wrong_tensors_are_refused() -> None:
    images, masks = brains(), labels()
    parameters = draw_for(PAPER, images)
    with pytest.raises(ValueError, match=r"float64.*expected torch.float16 or torch.float32"):
        apply(images.double(), masks, parameters)
    with pytest.raises(ValueError, match=r"masks are \(6, 1, 24, 19\)"):
        apply(images, masks[..., :19], parameters)
    with pytest.raises(ValueError, match="sliced by rank"):
        apply(images, masks, parameters.slice(0, 1))


# The window


def window_of(images: Tensor, masks: Tensor, window: int, shift: Tensor) -> tuple[Tensor, Tensor]:
    return apply(images, masks, Parameters(window=window, shift=shift))


@given(
    st.integers(0, 40), st.integers(0, 40), st.integers(2, 24), st.integers(2, 24), st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_a_window_shows_a_brain_that_fits_into_it_whole(
    top: int, left: int, height: int, width: int, moves: bool
) -> None:
    images = torch.zeros(1, 2, 64, 64)
    images[:, :, top : top + height, left : left + width] = torch.rand(1, 2, height, width) + 0.5
    masks = (images[:, :1] > 1).to(torch.uint8)
    shift = torch.full((1, 2), float(moves))
    shown, shown_masks = window_of(images, masks, 32, shift)
    assert shown.shape == (1, 2, 32, 32)
    torch.testing.assert_close(shown.sum(), images.sum())
    assert shown_masks.sum() == masks.sum()
    torch.testing.assert_close((shown[:, :1] > 1).to(torch.uint8), shown_masks)


@pytest.mark.parametrize(("shift", "start"), [(-1.0, 8), (0.0, 16), (1.0, 24)])
def test_a_window_moves_within_a_brain_that_is_larger(shift: float, start: int) -> None:
    images = torch.zeros(1, 1, 64, 64)
    images[:, :, 8:56, 16:48] = torch.rand(1, 1, 48, 32) + 0.5  # 48 rows, of which 32 are shown
    masks = torch.randint(0, 4, (1, 1, 64, 64), dtype=torch.uint8)
    shown, shown_masks = window_of(images, masks, 32, torch.tensor([[shift, shift]]))
    torch.testing.assert_close(shown, images[:, :, start : start + 32, 16:48])
    assert torch.equal(shown_masks, masks[:, :, start : start + 32, 16:48])


@given(st.floats(0.01, 1), st.integers(1, 512), st.sampled_from([32, 64]))
def test_a_window_is_a_multiple_that_is_no_smaller_than_asked(
    share: float, size: int, multiple: int
) -> None:
    window = window_pixels(AugmentConfig(window=share), size, multiple)
    assert window == 0 or (window % multiple == 0 and round(share * size) <= window < size)
