"""What is true of the losses, whatever their arithmetic looks like inside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import Tensor

from brats_train.data.case_labels import UNLABELLED
from brats_train.training.losses import LOSS_NAMES, LossConfig, compute, label_loss

SMOOTH = 1.0


def example(
    batch: int = 3, regions: int = 2, size: int = 12, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Logits and targets; every region of every sample has true and false pixels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn((batch, regions, size, size), generator=generator)
    targets = (torch.rand(logits.shape, generator=generator) < 0.3).float()
    return logits, targets


# Agreement with other implementations


def test_bce_is_torchs_own() -> None:
    logits, targets = example()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(compute(LossConfig(), logits, targets).bce.mean(), expected)


@pytest.mark.parametrize("overlap", ["sample", "batch"])
@pytest.mark.parametrize("name", ["iou", "dice", "tversky"])
def test_overlaps_agree_with_monai(name: str, overlap: str) -> None:
    losses = pytest.importorskip("monai.losses")
    logits, targets = example()
    options = {"sigmoid": True, "batch": overlap == "batch"}
    if name == "tversky":
        smooth = {"smooth_nr": SMOOTH, "smooth_dr": SMOOTH}
        monai_loss = losses.TverskyLoss(alpha=0.3, beta=0.7, **smooth, **options)
    else:
        # MONAI's Jaccard counts everything twice, and so its smoothing.
        twice = 2 * SMOOTH if name == "iou" else SMOOTH
        smooth = {"smooth_nr": twice, "smooth_dr": twice}
        monai_loss = losses.DiceLoss(jaccard=name == "iou", **smooth, **options)
    total = compute(LossConfig(name=name, overlap=overlap, smooth=SMOOTH), logits, targets).total
    torch.testing.assert_close(total.mean(), monai_loss(logits, targets))


@pytest.mark.parametrize("name", ["iou", "dice", "tversky"])
def test_batch_overlaps_agree_with_smp_where_every_region_is_present(name: str) -> None:
    from segmentation_models_pytorch import losses

    logits, targets = example()
    smp_losses = {
        "iou": losses.JaccardLoss("multilabel", smooth=SMOOTH),
        "dice": losses.DiceLoss("multilabel", smooth=SMOOTH / 2),
        "tversky": losses.TverskyLoss("multilabel", smooth=SMOOTH, alpha=0.3, beta=0.7),
    }
    total = compute(LossConfig(name=name, overlap="batch", smooth=SMOOTH), logits, targets).total
    torch.testing.assert_close(total.mean(), smp_losses[name](logits, targets))


def test_focal_agrees_with_smp() -> None:
    from segmentation_models_pytorch import losses

    logits, targets = example()
    config = LossConfig(name="focal+dice", overlap_weight=0)
    expected = losses.FocalLoss("multilabel", gamma=2.0)(logits, targets)
    torch.testing.assert_close(compute(config, logits, targets).total.mean(), expected)


def test_focal_without_focus_is_cross_entropy() -> None:
    logits, targets = example()
    terms = compute(LossConfig(name="focal+dice", focal_gamma=0, overlap_weight=0), logits, targets)
    torch.testing.assert_close(terms.total, terms.bce)


def test_tversky_with_equal_halves_is_dice() -> None:
    logits, targets = example()
    halves = LossConfig(name="tversky", tversky_alpha=0.5, tversky_beta=0.5, smooth=0.5)
    dice = LossConfig(name="dice", smooth=1.0)
    torch.testing.assert_close(
        compute(halves, logits, targets).total, compute(dice, logits, targets).total
    )


@settings(deadline=None, max_examples=50)
@given(npst.arrays(bool, (2, 6, 6)), st.floats(0.1, 10))
def test_iou_of_certain_predictions_is_the_iou_of_sets(masks: np.ndarray, smooth: float) -> None:
    predicted, truth = masks
    logits = torch.where(torch.from_numpy(predicted), 60.0, -60.0)[None, None]
    terms = compute(LossConfig(smooth=smooth), logits, torch.from_numpy(truth)[None, None])
    union = (predicted | truth).sum() + smooth
    assert terms.iou_loss.item() == pytest.approx(
        1 - ((predicted & truth).sum() + smooth) / union, abs=1e-6
    )


# The parts of a loss


def test_the_papers_loss_is_cross_entropy_plus_iou() -> None:
    terms = compute(LossConfig(), *example())
    torch.testing.assert_close(terms.total, terms.bce + terms.iou_loss)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_recorded_terms_do_not_depend_on_the_loss_that_is_minimised(name: str) -> None:
    recorded, papers = compute(LossConfig(name=name), *example()), compute(LossConfig(), *example())
    torch.testing.assert_close(recorded.bce, papers.bce)
    torch.testing.assert_close(recorded.iou_loss, papers.iou_loss)


@pytest.mark.parametrize("name", ["bce+iou", "bce+dice", "focal+dice"])
def test_weights_scale_their_terms(name: str) -> None:
    def total(pixel: float, overlap: float) -> Tensor:
        config = LossConfig(name=name, pixel_weight=pixel, overlap_weight=overlap)
        return compute(config, *example()).total

    torch.testing.assert_close(total(0.5, 3.0), 0.5 * total(1, 0) + 3.0 * total(0, 1))


# Gradients


@pytest.mark.parametrize("overlap", ["sample", "batch"])
@pytest.mark.parametrize("name", LOSS_NAMES)
def test_gradients_are_those_of_the_function(name: str, overlap: str) -> None:
    logits, targets = example(batch=2, size=3)
    logits = logits.double().requires_grad_()
    targets[0, 0] = 0  # an empty mask among them
    config = LossConfig(name=name, overlap=overlap)
    assert torch.autograd.gradcheck(lambda x: compute(config, x, targets).total, (logits,))


@pytest.mark.parametrize("overlap", ["sample", "batch"])
@pytest.mark.parametrize("name", LOSS_NAMES)
def test_descent_reaches_the_truth(name: str, overlap: str) -> None:
    logits, targets = example(size=6)
    targets[0] = 0
    logits = logits.requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.5)
    for _ in range(60):
        optimiser.zero_grad()
        compute(LossConfig(name=name, overlap=overlap), logits, targets).total.mean().backward()
        optimiser.step()
    assert torch.equal(logits.detach() > 0, targets > 0)


@pytest.mark.parametrize("name", LOSS_NAMES)
@pytest.mark.parametrize("truth", [0.0, 1.0])
@pytest.mark.parametrize("magnitude", [0.0, 20.0, 6e4])
def test_uniform_masks_and_extreme_logits_stay_finite(
    name: str, truth: float, magnitude: float
) -> None:
    for sign in (-1.0, 1.0):
        logits = torch.full((2, 1, 8, 8), sign * magnitude, requires_grad=True)
        total = compute(LossConfig(name=name), logits, torch.full_like(logits, truth)).total
        total.sum().backward()
        assert logits.grad is not None
        assert torch.isfinite(total).all()
        assert torch.isfinite(logits.grad).all()


# Empty masks


@pytest.mark.parametrize("overlap", ["sample", "batch"])
@pytest.mark.parametrize("name", LOSS_NAMES)
def test_on_an_empty_mask_every_false_pixel_costs_and_silence_is_free(
    name: str, overlap: str
) -> None:
    config = LossConfig(name=name, overlap=overlap)
    empty = torch.zeros(1, 1, 8, 8)
    costs = []
    for num_false in (0, 1, 5, 64):
        logits = torch.full((1, 1, 64), -30.0)
        logits[..., :num_false] = 30.0
        costs.append(compute(config, logits.view(1, 1, 8, 8), empty).total.item())
    assert costs[0] == pytest.approx(0, abs=1e-5)
    assert costs == sorted(set(costs))

    undecided = torch.zeros(1, 1, 8, 8, requires_grad=True)
    compute(config, undecided, empty).total.sum().backward()
    assert undecided.grad is not None
    assert (undecided.grad > 0).all()


def test_smp_lets_false_positives_on_an_absent_region_pass() -> None:
    """Why smp's overlap losses are not used: if this ever fails, they may be looked at again."""
    from segmentation_models_pytorch import losses

    everywhere, empty = torch.full((1, 1, 8, 8), 30.0), torch.zeros(1, 1, 8, 8)
    assert losses.DiceLoss("multilabel")(everywhere, empty) == 0
    assert losses.JaccardLoss("multilabel")(everywhere, empty) == 0
    assert compute(LossConfig(name="dice"), everywhere, empty).total > 0.9


def test_monais_default_smoothing_has_no_slope_on_an_empty_mask() -> None:
    """Why its default smoothing is not used."""
    losses = pytest.importorskip("monai.losses")
    empty = torch.zeros(1, 1, 8, 8)

    def slope(loss: Tensor, logits: Tensor) -> float:
        return float(torch.autograd.grad(loss, logits)[0].mean())

    logits = torch.zeros(1, 1, 8, 8, requires_grad=True)
    monai_slope = slope(losses.DiceLoss(sigmoid=True)(logits, empty), logits)
    our_slope = slope(compute(LossConfig(name="dice"), logits, empty).total.sum(), logits)
    assert our_slope > 1000 * monai_slope


# Precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSS_NAMES)
def test_half_precision_logits_are_summed_in_float32(name: str, dtype: torch.dtype) -> None:
    """A slice of 384 x 384 pixels has more pixels than float16 can count."""
    logits = torch.full((1, 1, 384, 384), 3.0, dtype=dtype)
    targets = torch.ones(logits.shape, dtype=torch.uint8)
    config = LossConfig(name=name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = compute(config, logits, targets)
    expected = compute(config, logits.float(), targets.float())
    for half, full in zip(vars(terms).values(), vars(expected).values(), strict=True):
        assert half.dtype == torch.float32
        assert torch.isfinite(half).all()
        torch.testing.assert_close(half, full, rtol=0, atol=0)


# Samples and ranks


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_a_samples_loss_does_not_depend_on_its_company(name: str) -> None:
    logits, targets = example(batch=4)
    together = compute(LossConfig(name=name), logits, targets)
    alone = [
        compute(LossConfig(name=name), logits[i : i + 1], targets[i : i + 1]) for i in range(4)
    ]
    for term in ("total", "bce", "iou_loss"):
        assert getattr(together, term).shape == (4,)
        separate = torch.cat([getattr(terms, term) for terms in alone])
        torch.testing.assert_close(getattr(together, term), separate)


@pytest.mark.parametrize("overlap", ["sample", "batch"])
@pytest.mark.parametrize("name", LOSS_NAMES)
def test_unequal_ranks_add_up_to_the_global_batch(name: str, overlap: str) -> None:
    config = LossConfig(name=name, overlap=overlap)
    logits, targets = example(batch=5)
    logits = logits.double()
    whole = logits.clone().requires_grad_()
    expected = compute(config, whole, targets).total.mean()
    expected.backward()

    parts = [part.clone().requires_grad_() for part in (logits[:2], logits[2:])]
    part_targets = (targets[:2], targets[2:])
    # A differentiable sum over ranks, of which both live in this process: each rank's own counts
    # are what it would pass in, the other's are seen by recording them first.
    recorded: list[Tensor] = []

    def record(counts: Tensor) -> Tensor:
        recorded.append(counts)
        return counts

    for part, truth in zip(parts, part_targets, strict=True):
        compute(config, part, truth, reduce=record)
    totals = [
        compute(config, part, truth, reduce=lambda _: sum(recorded, torch.zeros(()))).total.sum()
        for part, truth in zip(parts, part_targets, strict=True)
    ]
    loss = torch.stack(totals).sum() / 5
    loss.backward()
    torch.testing.assert_close(loss, expected)
    assert whole.grad is not None
    gradients = [part.grad for part in parts if part.grad is not None]
    torch.testing.assert_close(torch.cat(gradients), whole.grad)


# Mistakes


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "hinge"),
        ("overlap", "volume"),
        ("pixel_weight", -1.0),
        ("overlap_weight", float("nan")),
        ("smooth", 0.0),
        ("tversky_alpha", float("inf")),
        ("tversky_beta", -0.1),
        ("focal_gamma", -2.0),
    ],
)
def test_a_wrong_setting_is_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"for LossConfig\n{field}\n  "):
        LossConfig(**{field: value})  # type: ignore[arg-type]


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="targets"):
        compute(LossConfig(), torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))


# The second head


def test_only_labelled_slices_count_and_rare_labels_weigh_more() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [9.0, -9.0]], requires_grad=True)
    weights = torch.tensor([1.0, 3.0])
    loss = label_loss(logits, torch.tensor([0, 1, UNLABELLED]), weights)
    expected = [np.log1p(np.exp(-2.0)), 3 * np.log1p(np.exp(-1.0)), 0]
    np.testing.assert_allclose(loss.detach(), expected, rtol=1e-6)
    loss.sum().backward()
    assert logits.grad is not None
    assert not logits.grad[2].any()
    assert logits.grad[:2].all()
