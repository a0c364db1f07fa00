"""Model, optimizer, gradient scaler, EMA, and the training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import xxhash
from torch import Tensor, nn

from brats_cache.format.reader import Cache
from brats_train.data import augmentation as augment
from brats_train.data.case_labels import SliceLabels
from brats_train.data.channels import all_modalities
from brats_train.data.context import num_slices
from brats_train.data.intensity import RAW_ZERO
from brats_train.data.loader import Batch
from brats_train.data.targets import region_targets
from brats_train.models.checkpoint import SegmenterSpec
from brats_train.models.looks import ScanLook
from brats_train.models.network import split_output, try_model
from brats_train.runtime.compile import CompileMode, compile_model, compiling
from brats_train.runtime.distributed import World
from brats_train.runtime.precision import autocast, choose_amp, cudnn_autotuning
from brats_train.training import losses
from brats_train.training.initial_state import (
    bare_model,
    initial_model,
    make_ema,
    make_optimizer,
    model_config,
)
from brats_train.training.micro_batch import choose_micro_batch
from brats_train.training.recipe import Recipe
from brats_train.training.setup import accepts_missing, check_batch, common_scheme, side_of
from brats_train.training.validation import sums_of

__all__ = ["NEVER", "TrainStep", "split_evenly"]

NEVER = 2**62  # in place of a step, where every loss was finite


class TrainStep:
    """Model, optimizer, gradient scaler, EMA, and the training step of one rank.

    Attributes:
        model: The network, channels_last, whose parameters are the run's.
        ddp_model: The network as it is called: compiled, gradients averaged over ranks.
        ema: The exponential moving average of the weights, or None.
        amp: "bf16", "fp16" or "off".
        micro_batch: Samples computed at once.
        step_bytes: Memory of a GPU that a step takes beside the model; 0 on a CPU.
        num_slices: Slices of a sample, whose channels are stacked.
        window: Pixels of a slice that are trained on along each axis, 0 for all.
        first_nonfinite: () int64 on the device: the first step of this process whose loss was not
            finite, `NEVER` for none.
    """

    def __init__(
        self,
        recipe: Recipe,
        caches: Sequence[Cache],
        world: World,
        *,
        largest: int,
        least: int,
        micro_batch: str,
        init_from: Path | None,
        compile_mode: CompileMode,
        weights_from: str | None = None,
        resident_bytes: int = 0,
        labels: SliceLabels | None = None,
        looks: Sequence[ScanLook] = (),
    ) -> None:
        """Builds model, optimizer, scaler and averaged weights.

        Args:
            recipe: What to train.
            caches: The caches of the training rows.
            world: This process among its peers.
            largest: Samples that this rank sees at most in a step.
            least: Samples that any rank sees at least in a step.
            micro_batch: See `choose_micro_batch`.
            init_from: A checkpoint to take the whole model from.
            compile_mode: How to compile the network.
            weights_from: Where the first weights came from, of a run that goes on with those of its
                checkpoint; none are loaded then.
            resident_bytes: Of rows that will be kept on the device.
            labels: The labels of the training rows, None without a second head.
            looks: Of the training scans, which the model remembers.

        Raises:
            BratsError: The network does not exist or cannot be trained on such slices.
        """
        self.recipe, self.world, self.largest, device = recipe, world, largest, world.device
        self.amp = choose_amp(recipe.amp, device)
        torch.manual_seed(recipe.seed)  # the same first weights on every rank
        self.num_slices = num_slices(recipe.context)
        self._raw_zero = RAW_ZERO[caches[0].preparation.normalize]
        side = side_of(recipe, caches[0].shape[-1])
        self.window = side if side < caches[0].shape[-1] else 0
        modalities = all_modalities(caches)
        num_labels = len(labels.names) if labels else 0
        config = model_config(recipe, len(modalities) * self.num_slices, num_labels)
        if weights_from is None:
            self.model, weights_from = initial_model(
                config, recipe.encoder_weights, init_from, modalities
            )
        else:
            self.model = bare_model(config)
        smallest = side // 2 if recipe.half_resolution else side
        # On the CPU, where a whole batch would take gigabytes: two samples show what more would.
        is_whole = try_model(self.model, config, smallest, min(least, 2))
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = make_ema(self.model, recipe.ema)
        # Before batch norms are synchronised: ranks may try a different number of sizes.
        self.micro_batch, self.step_bytes = choose_micro_batch(
            micro_batch,
            self.model,
            largest,
            (config.in_channels, side, side),
            self.amp,
            world,
            resident_bytes=resident_bytes,
        )
        check_batch(recipe, self.micro_batch, largest, compile_mode)
        if recipe.sync_batchnorm and device.type == "cuda" and world.size > 1:
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        self.ddp_model = world.wrap(
            compile_model(self.model, compile_mode), has_unused=not is_whole
        )
        self.optimizer = make_optimizer(self.model, recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp == "fp16")
        self._labels = None if labels is None else _LabelTensors.of(labels, device)
        self.segmenter = SegmenterSpec(
            model=config,
            regions=recipe.regions,
            preparation=replace(caches[0].preparation, modalities=modalities),
            accepts_missing=accepts_missing(recipe, caches),
            context=recipe.context,
            label_scheme=common_scheme(caches),
            weights_from=weights_from,
            postprocessing=recipe.postprocessing,
            labels=labels.names if labels else (),
            looks=tuple(looks),
        )
        self.first_nonfinite = torch.full((), NEVER, dtype=torch.int64, device=device)

    @property
    def eval_model(self) -> nn.Module:
        """The model that is validated and kept as best: the EMA where there is one."""
        return self.model if self.ema is None else self.ema.module

    def __call__(
        self, batch: Batch, epoch: int, lr: float, totals: Tensor, *, is_coarse: bool = False
    ) -> None:
        """Takes one step of the optimizer; the host waits for nothing in it.

        Args:
            batch: This rank's part of a global batch.
            epoch: The running epoch, which decides the augmentation with `batch.step`.
            lr: The learning rate.
            totals: (4,) float64 on the device, to which the batch's `sums_of` are added.
            is_coarse: Take the step at half the pixels along each axis.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        images, masks = self._augment(batch, epoch)
        labels = self._labels_of(batch)
        self.optimizer.zero_grad(set_to_none=True)
        pieces = split_evenly(len(images), self._num_pieces(batch.global_size))
        for piece in pieces:
            # Gradients travel between ranks once a step, with the last piece.
            is_last = piece == pieces[-1]
            with nullcontext() if is_last else self.world.no_sync(self.ddp_model):
                piece_labels = None if labels is None else labels[piece]
                self._accumulate(
                    images[piece], masks[piece], piece_labels, batch, totals, is_coarse
                )
        if self.recipe.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update_parameters(self.model)

    def _num_pieces(self, global_size: int) -> int:
        """How many micro-batches every rank cuts its part of a global batch into.

        Equal on all ranks, for collectives within forward passes (SyncBatchNorm) come once a piece.
        Where a rank holds fewer samples than the largest part has pieces, pieces are one larger.
        """
        size = self.world.size
        largest, least = -(-global_size // size), max(1, global_size // size)
        return min(-(-largest // self.micro_batch), least)

    def _accumulate(
        self,
        images: Tensor,
        masks: Tensor,
        labels: Tensor | None,
        batch: Batch,
        totals: Tensor,
        is_coarse: bool,
    ) -> None:
        """Forward and backward pass of a piece of this rank's part of `batch`."""
        targets = region_targets(masks, self.recipe.regions)
        if is_coarse:
            images = F.avg_pool2d(images, 2)
            targets = F.avg_pool2d(targets.float(), 2) >= 0.5
        # An epoch's last and smaller batch comes once; its shapes are not worth preparing for.
        is_usual = -(-batch.global_size // self.world.size) == self.largest
        with cudnn_autotuning(is_usual):
            with autocast(self.amp, self.world.device), compiling(is_usual):
                logits, label_logits = split_output(
                    self.ddp_model(images.contiguous(memory_format=torch.channels_last))
                )
            terms = losses.compute(
                self.recipe.loss, logits, targets, reduce=self._sum_over_ranks(batch.weight)
            )
            # Gradients are averaged over ranks; scaled so, they are the mean over the global batch
            # even where ranks hold unequal parts of it.
            total = terms.total.sum()
            if labels is not None and label_logits is not None:
                assert self._labels is not None
                each = losses.label_loss(label_logits, labels, self._labels.weights)
                total = total + self.recipe.label_weight * each.sum()
            loss = total * (batch.weight * self.world.size / batch.global_size)
            self.scaler.scale(loss).backward()
        with torch.no_grad():  # sums stay on the device
            totals += batch.weight * sums_of(terms, logits, targets)
            bad = torch.where(loss.isfinite(), NEVER, batch.step)
            self.first_nonfinite = torch.minimum(self.first_nonfinite, bad)

    def _labels_of(self, batch: Batch) -> Tensor | None:
        """(B,) int64, the labels of this rank's part of a batch; None without a second head."""
        if self._labels is None:
            return None
        indices = torch.from_numpy(batch.indices)
        return self._labels.indices[indices.to(self.world.device, non_blocking=True)]

    def _sum_over_ranks(self, weight: float) -> Callable[[Tensor], Tensor] | None:
        """The sum over ranks of counts times `weight`, differentiable."""
        total = self.world.differentiable_sum
        return total and (lambda counts: total(counts * weight))

    def _augment(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """This rank's images and masks, augmented as drawn for the global batch."""
        parameters = augment.draw(
            self.recipe.augment,
            num_samples=batch.global_size,
            num_modalities=batch.images.shape[1] // self.num_slices,
            num_slices=self.num_slices,
            window=self.window,
            seed=self.recipe.seed,
            epoch=epoch,
            step=batch.step,
            device=self.world.device,
        )
        part = parameters.slice(batch.part.start, batch.part.stop)
        return augment.apply(batch.images, batch.masks, part, raw_zero=self._raw_zero)

    def checksum(self) -> int:
        """xxh3_64 of the weights, to compare what several ranks have loaded."""
        digest = xxhash.xxh3_64()
        for value in self.model.state_dict().values():
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.intdigest()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the weights that the next step depends on."""
        state = {
            "averaged": self.ema.state_dict() if self.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generator": torch.get_rng_state(),
        }
        if self.world.device.type == "cuda":  # dropout draws there
            state["cuda_generator"] = torch.cuda.get_rng_state(self.world.device)
        return state

    def load_state_dict(self, content: Mapping[str, Any]) -> None:
        """Takes the weights and the state of a checkpoint.

        Raises:
            KeyError, ValueError, RuntimeError: They do not fit.
        """
        self.model.load_state_dict(content["model"])
        if self.ema is not None:
            self.ema.load_state_dict(content["averaged"])
        self.optimizer.load_state_dict(content["optimizer"])
        if content["scaler"]:  # empty without fp16, which another device may have used
            self.scaler.load_state_dict(content["scaler"])
        torch.set_rng_state(content["generator"])
        if self.world.device.type == "cuda" and "cuda_generator" in content:
            torch.cuda.set_rng_state(content["cuda_generator"], self.world.device)


class _LabelTensors(NamedTuple):
    """`SliceLabels` on the device."""

    indices: Tensor
    weights: Tensor

    @classmethod
    def of(cls, labels: SliceLabels, device: torch.device) -> _LabelTensors:
        return cls(
            indices=torch.from_numpy(labels.indices).to(device),
            weights=torch.from_numpy(labels.weights).to(device),
        )


def split_evenly(num: int, num_pieces: int) -> list[slice]:
    """`num` samples in `num_pieces` runs whose lengths differ by at most one."""
    return [
        slice(num * index // num_pieces, num * (index + 1) // num_pieces)
        for index in range(num_pieces)
    ]
