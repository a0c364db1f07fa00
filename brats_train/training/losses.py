"""Differentiable losses on logits, sample by sample, so that ranks and last batches weigh right.

Everything is computed in at least float32: in float16 the sum over one slice already overflows
(65504 pixels of probability one) and in bfloat16 counts above 256 are rounded.

A pixel term (binary cross-entropy or focal) and an overlap term (IoU, Dice or Tversky) add up. The
overlap terms rest on soft counts of one sample and region, with p = sigmoid(logit), target t in
{0, 1} and a smoothing of s pixels:

    tp = sum(p t)    fp = sum(p) - tp    fn = sum(t) - tp
    IoU     = (tp + s) / (tp + fp + fn + s)
    Dice    = (2 tp + s) / (2 tp + fp + fn + s)
    Tversky = (tp + s) / (tp + a fp + b fn + s)       Salehi et al. 2017, arXiv:1706.05721

and the loss is one minus the mean over the regions.

**Empty masks.** Where a region has no true pixel the IoU loss is fp / (fp + s): 0 for an empty
prediction, 1/2 for s falsely predicted pixels, towards 1 for many, and its gradient pushes every
false probability down. So a false positive costs something and a rightly empty prediction costs
nothing. The default s = 1 pixel is the scale of a count, biases a region of n pixels by at most
1 / n, and keeps the gradient finite. The common alternatives fail here: smp counts such a region as
loss 0 whatever is predicted, and the 1e-5 of MONAI makes the loss a plateau at 1 without a slope.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from brats_train.runtime.settings import SETTINGS

__all__ = ["LOSS_NAMES", "LossConfig", "LossTerms", "compute", "label_loss"]

LossName = Literal["bce+iou", "bce+dice", "focal+dice", "bce", "iou", "dice", "tversky"]
LOSS_NAMES: tuple[str, ...] = get_args(LossName)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class LossConfig:
    """Which loss; the default is the paper's.

    Attributes:
        name: The pixel term and the overlap term, or one of them.
        overlap: "sample" takes the overlap of each sample and region, then their mean. "batch" sums
            the counts over the batch first, so that small tumours weigh less and an empty slice
            costs as much as its false pixels add to the rest; it needs the whole batch at once.
        pixel_weight: Factor of the cross-entropy or focal term.
        overlap_weight: Factor of the IoU, Dice or Tversky term.
        smooth: s above, in pixels.
        tversky_alpha: Weight of false positives.
        tversky_beta: Weight of false negatives; more than alpha favours sensitivity.
        focal_gamma: Exponent of Lin et al. 2017 (arXiv:1708.02002); 0 is the cross-entropy.

    Raises:
        pydantic.ValidationError: A `ValueError` that names the field and what is allowed.
    """

    name: LossName = "bce+iou"
    overlap: Literal["sample", "batch"] = "sample"
    pixel_weight: Annotated[float, Field(ge=0)] = 1.0
    overlap_weight: Annotated[float, Field(ge=0)] = 1.0
    smooth: Annotated[float, Field(gt=0)] = 1.0
    tversky_alpha: Annotated[float, Field(ge=0)] = 0.3
    tversky_beta: Annotated[float, Field(ge=0)] = 0.7
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0

    @property
    def terms(self) -> tuple[str | None, str | None]:
        """The pixel term and the overlap term, None where the loss has none."""
        pixel, _, overlap = self.name.rpartition("+")
        if self.name == "bce":
            return "bce", None
        return pixel or None, overlap


@plain_dataclass(frozen=True)
class LossTerms:
    """One value a sample, each (B,) float32 (float64 for float64 logits), means over regions.

    `bce` and `iou_loss` are recorded whatever the loss is; only `total` carries gradients.

    Attributes:
        total: What to minimise: its mean over all samples of the global batch.
        bce: Binary cross-entropy, mean over pixels.
        iou_loss: 1 - soft IoU; with overlap "batch" every sample holds the batch's value.
    """

    total: Tensor
    bce: Tensor
    iou_loss: Tensor


class _SoftCounts(NamedTuple):
    """True positives, false positives and false negatives, each (B, K) or (1, K) in pixels."""

    tp: Tensor
    fp: Tensor
    fn: Tensor


def compute(
    config: LossConfig,
    logits: Tensor,
    targets: Tensor,
    *,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> LossTerms:
    """The loss of B samples with K regions.

    Where ranks hold unequal parts of a global batch of G samples, `total.sum() / G`, summed over
    ranks, is the loss of the global batch, and so are the gradients. A `total` of infinite or NaN
    logits is not finite: the caller looks for that.

    Args:
        config: Which loss.
        logits: (B, K, H, W) of any floating type.
        targets: (B, K, H, W) in {0, 1}, of any type.
        reduce: Only with overlap "batch", across ranks: takes this rank's (3, K) counts and returns
            the sum over ranks. It must be differentiable as a sum is: its backward pass adds up the
            gradients of all ranks (`torch.distributed.nn.functional.all_reduce` does).

    Raises:
        ValueError: The shapes differ.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"logits are {tuple(logits.shape)}, targets {tuple(targets.shape)}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = targets.to(logits.dtype)
    pixel, overlap = config.terms

    total = logits.new_zeros(len(logits))
    with torch.set_grad_enabled(torch.is_grad_enabled() and pixel is not None):
        cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        bce = cross_entropy.mean((1, 2, 3))
    if pixel == "bce":
        total = total + config.pixel_weight * bce
    elif pixel == "focal":
        focal = _miss_factor(logits, targets, config.focal_gamma) * cross_entropy
        total = total + config.pixel_weight * focal.mean((1, 2, 3))

    with torch.set_grad_enabled(torch.is_grad_enabled() and overlap is not None):
        counts = _soft_counts(config, logits, targets, reduce)
    if overlap is not None:
        loss = 1 - _score(overlap, counts, config).mean(1)
        total = total + config.overlap_weight * loss.expand(len(logits))
    iou_loss = 1 - _score("iou", counts, config).mean(1)
    return LossTerms(total, bce.detach(), iou_loss.detach().expand(len(logits)))


def label_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The weighted cross-entropy of each sample's label; 0 for those without one.

    Args:
        logits: (B, L) of any floating type.
        labels: (B,) int64, negative for a sample without a label.
        weights: (L,) float32.

    Returns:
        (B,) float32.
    """
    ignored = -1
    return F.cross_entropy(
        logits.float(), labels.clamp_min(ignored), weights, ignore_index=ignored, reduction="none"
    )


def _miss_factor(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """(1 - probability given to the truth) ** gamma, from logs: stable where that is 0 or 1."""
    return torch.exp(gamma * F.logsigmoid(-logits * (2 * targets - 1)))


def _soft_counts(
    config: LossConfig,
    logits: Tensor,
    targets: Tensor,
    reduce: Callable[[Tensor], Tensor] | None,
) -> _SoftCounts:
    probabilities = torch.sigmoid(logits)
    tp = (probabilities * targets).sum((2, 3))
    counts = torch.stack([tp, probabilities.sum((2, 3)) - tp, targets.sum((2, 3)) - tp])
    if config.overlap == "batch":
        batch = counts.sum(1)
        counts = (batch if reduce is None else reduce(batch)).unsqueeze(1)
    return _SoftCounts(*counts.unbind())


def _score(name: str, counts: _SoftCounts, config: LossConfig) -> Tensor:
    """Overlap in [0, 1] of each row of `counts` and region: (B, K) or (1, K)."""
    tp, fp, fn = counts
    smooth = config.smooth
    if name == "iou":
        return (tp + smooth) / (tp + fp + fn + smooth)
    if name == "dice":
        return (2 * tp + smooth) / (2 * tp + fp + fn + smooth)
    weighted = config.tversky_alpha * fp + config.tversky_beta * fn
    return (tp + smooth) / (tp + weighted + smooth)
