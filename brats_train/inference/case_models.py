"""Which model predicts which case: one for all, or for each fold the one that never saw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from brats_cache.common.errors import CheckpointError
from brats_cache.format.reader import Cache
from brats_train.inference.ensemble import Ensemble, average, make_ensemble
from brats_train.models.checkpoint import SegmenterSpec
from brats_train.models.sources import load_models

__all__ = ["CaseModels", "load_case_models"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseModels:
    """The models of a run.

    Attributes:
        by_fold: One model under None; or of a cross-validation the model of each fold, which was
            trained on all others.
    """

    by_fold: Mapping[int | None, Ensemble]

    @cached_property
    def whole(self) -> Ensemble:
        """All models averaged."""
        return average(list(self.by_fold.values()))

    @property
    def spec(self) -> SegmenterSpec:
        """The description that the models have in common."""
        return self.whole.spec

    def for_case(self, cache: Cache, index: int) -> Ensemble:
        """The model that predicts a case; a case that is in no fold is predicted by all of them."""
        fold = None if None in self.by_fold else int(cache.cases["fold"][index])
        return self.by_fold.get(fold, self.whole)

    def overruled(self, tta: bool | None, threshold: float | None) -> CaseModels:
        """A copy with other post-processing; None leaves what was chosen in training."""
        return CaseModels(
            by_fold={fold: one.overruled(tta, threshold) for fold, one in self.by_fold.items()}
        )


def load_case_models(
    sources: Sequence[str | Path],
    device: torch.device,
    amp: str = "auto",
    checkpoint: str = "best",
) -> CaseModels:
    """Loads sources whose networks are averaged, those of each fold by themselves.

    Args:
        sources: What `sources.load_models` takes, one or more.
        device: Where to compute.
        amp: "auto", "bf16", "fp16" or "off".
        checkpoint: "best" or "last", of run directories.

    Raises:
        RunNotFoundError: A directory holds no model.
        CheckpointError: A file cannot be used, or the sources do not fit together.
    """
    by_source = [load_models(source, checkpoint) for source in sources]
    for source, loaded in zip(sources, by_source, strict=True):
        if {model.fold for model in loaded} != {model.fold for model in by_source[0]}:
            raise CheckpointError(
                f"{sources[0]} and {source} cannot be averaged: they have other folds. Name "
                "single runs, such as their fold folders."
            )
    by_fold: dict[int | None, list[Ensemble]] = {}
    for loaded in by_source:
        for model in loaded:
            by_fold.setdefault(model.fold, []).append(make_ensemble(model, device, amp))
    models = CaseModels(by_fold={fold: average(members) for fold, members in by_fold.items()})
    _ = models.whole  # says whether they fit together
    return models
