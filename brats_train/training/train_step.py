"""The network, its optimiser, and one step of learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brats_cache.format.reader import Cache
from brats_train.data import augmentation as augment
from brats_train.data.loader import Batch
from brats_train.data.targets import region_targets
from brats_train.models.checkpoint import Segmenter
from brats_train.models.unet import ModelConfig
from brats_train.runtime.compile import compiled
from brats_train.runtime.distributed import World
from brats_train.runtime.precision import autocast, choose_amp, tuned_convolutions
from brats_train.training import losses
from brats_train.training.micro_batch import choose_micro_batch
from brats_train.training.recipe import Recipe
from brats_train.training.setup import common_scheme, initial_model, make_ema
from brats_train.training.validation import sums_of

__all__ = ["NEVER", "Learner"]

NEVER = 2**62  # a step that no loss was bad at


class Learner:
    """What learns, on one rank.

    plain       the network, whose parameters are the run's
    model       the network as it is called: compiled, its gradients averaged over ranks
    averaged    the moving average of its weights, or None
    first_bad   () int64 on the device: the first step of this process whose loss was not finite
    """

    def __init__(
        self,
        recipe: Recipe,
        caches: Sequence[Cache],
        world: World,
        *,
        largest: int,
        micro_batch: str,
        init_from: Path | None,
        is_compiled: bool,
    ) -> None:
        """`largest` is the number of samples that this rank sees at most in a step."""
        self.recipe, self.world, self.largest, device = recipe, world, largest, world.device
        self.amp = choose_amp(recipe.amp, device)
        torch.manual_seed(recipe.seed)  # the same first weights on every rank
        config = ModelConfig(
            in_channels=caches[0].shape[1], classes=len(recipe.regions), encoder=recipe.encoder
        )
        self.plain, weights_from = initial_model(config, recipe.encoder_weights, init_from)
        if recipe.sync_batchnorm and device.type == "cuda" and world.size > 1:
            self.plain = nn.SyncBatchNorm.convert_sync_batchnorm(self.plain)
        self.plain.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = world.wrap(compiled(self.plain) if is_compiled else self.plain)
        self.averaged = make_ema(self.plain, recipe.ema)
        self.optimizer = torch.optim.AdamW(
            self.plain.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp == "fp16")
        self.segmenter = Segmenter(
            model=config,
            regions=recipe.regions,
            preparation=caches[0].preparation,
            label_scheme=common_scheme(caches),
            weights_from=weights_from,
        )
        self.micro_batch = choose_micro_batch(
            micro_batch, self.plain, largest, caches[0].shape, self.amp, world
        )
        self.first_bad = torch.full((), NEVER, dtype=torch.int64, device=device)

    @property
    def judged(self) -> nn.Module:
        """The model that is validated and kept as best: the average where there is one."""
        return self.plain if self.averaged is None else self.averaged.module

    def step(self, batch: Batch, epoch: int, rate: float, totals: Tensor) -> None:
        """One step of the optimiser at learning rate `rate`. Adds the batch's `sums_of` to
        `totals`. The host waits for nothing in it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images, masks = self._augment(batch, epoch)
        self.optimizer.zero_grad(set_to_none=True)
        starts = range(0, len(images), self.micro_batch)
        for start in starts:
            piece = slice(start, start + self.micro_batch)
            # Gradients travel between ranks once a step, with the last piece.
            is_last = start == starts[-1]
            with nullcontext() if is_last else self.world.no_sync(self.model):
                self._learn(images[piece], masks[piece], batch, totals)
        if self.recipe.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.plain.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(self.plain)

    def _learn(self, images: Tensor, masks: Tensor, batch: Batch, totals: Tensor) -> None:
        """Forward and backward pass of a piece of this rank's part of `batch`."""
        targets = region_targets(masks, self.recipe.regions)
        # An epoch's last and smaller batch comes once; its shapes are not worth preparing for.
        is_usual = -(-batch.global_size // self.world.size) == self.largest
        model = self.model if is_usual or self.world.size > 1 else self.plain
        with tuned_convolutions(is_usual):
            with autocast(self.amp, self.world.device):
                logits = model(images.contiguous(memory_format=torch.channels_last))
            terms = losses.compute(
                self.recipe.loss, logits, targets, reduce=self.world.differentiable_sum
            )
            # Gradients are averaged over ranks; scaled so, they are the mean over the global batch
            # even where ranks hold unequal parts of it.
            loss = terms.total.sum() * (self.world.size / batch.global_size)
            self.scaler.scale(loss).backward()
        with torch.no_grad():  # sums stay on the device
            totals += sums_of(terms, logits, targets)
            bad = torch.where(loss.isfinite(), NEVER, batch.step)
            self.first_bad = torch.minimum(self.first_bad, bad)

    def _augment(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """The batch as the parameters drawn for the global batch change this rank's part of it."""
        parameters = augment.draw(
            self.recipe.augment,
            num_samples=batch.global_size,
            num_modalities=batch.images.shape[1],
            seed=self.recipe.seed,
            epoch=epoch,
            step=batch.step,
            device=self.world.device,
        )
        part = parameters.slice(batch.part.start, batch.part.stop)
        return augment.apply(batch.images, batch.masks, part)

    def state(self) -> dict[str, Any]:
        """All that learning depends on beside the network's weights."""
        return {
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generator": torch.get_rng_state(),
        }

    def load(self, content: Mapping[str, Any]) -> None:
        """Takes the weights and the state of a checkpoint. Raises KeyError, ValueError or
        RuntimeError where they do not fit."""
        self.plain.load_state_dict(content["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(content["averaged"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        torch.set_rng_state(content["generator"])
