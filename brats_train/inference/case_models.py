"""Which model predicts which case: one for all, or for each fold the one that never saw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from brats_cache.format.reader import Cache
from brats_train.inference.ensemble import Ensemble, average, load_ensemble
from brats_train.models.checkpoint import SegmenterSpec

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
            by_fold={fold: _overrule(one, tta, threshold) for fold, one in self.by_fold.items()}
        )


def load_case_models(
    paths: Mapping[int | None, Sequence[Path]], device: torch.device, amp: str = "auto"
) -> CaseModels:
    """Loads the checkpoints of each fold, or under None those of ordinary runs.

    Raises:
        CheckpointError: See `load_ensemble`.
    """
    models = CaseModels(
        by_fold={fold: load_ensemble(files, device, amp) for fold, files in paths.items()}
    )
    _ = models.whole  # says whether they fit together
    return models


def _overrule(ensemble: Ensemble, tta: bool | None, threshold: float | None) -> Ensemble:
    rules = ensemble.spec.postprocessing
    if tta is not None:
        rules = replace(rules, tta=tta)
    if threshold is not None:
        rules = rules.with_threshold(threshold, ensemble.spec.regions)
    return replace(ensemble, spec=replace(ensemble.spec, postprocessing=rules))
