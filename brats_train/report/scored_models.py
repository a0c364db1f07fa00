"""The models of an evaluation, loaded again from where they lie now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from brats_train.evaluation.results import ScoredModel
from brats_train.inference.case_models import CaseModels
from brats_train.inference.ensemble import average, make_ensemble
from brats_train.models.loaded_model import LoadedModel
from brats_train.models.sources import fingerprint_of_file, load_models

__all__ = ["load_scored"]


def load_scored(scored: Sequence[ScoredModel], run_path: Path, device: torch.device) -> CaseModels:
    """Loads scored models with the post-processing that they were scored with.

    Args:
        scored: The models of an evaluation.
        run_path: The run directory where it lies now.
        device: Where to compute.

    Raises:
        RunNotFoundError: A checkpoint is not there any more.
        CheckpointError: A file cannot be used.
    """
    by_fold = {}
    for one in scored:
        networks = _networks(one, run_path)
        ensemble = average([make_ensemble(network, device) for network in networks])
        spec = replace(ensemble.spec, postprocessing=one.postprocessing)
        by_fold[one.fold] = replace(ensemble, spec=spec)
    return CaseModels(by_fold=by_fold)


def _networks(scored: ScoredModel, run_path: Path) -> list[LoadedModel]:
    """The networks of a scored model; an exported folder holds those of other folds as well."""
    paths = dict.fromkeys(_find_checkpoint(one, run_path) for one in scored.checkpoints)
    loaded = [network for path in paths for network in load_models(path)]
    fingerprints = [checkpoint["fingerprint"] for checkpoint in scored.checkpoints]
    # Where none is left, the caller says that they have changed.
    return [network for network in loaded if network.fingerprint in fingerprints] or loaded


def _find_checkpoint(checkpoint: Mapping[str, str], run_path: Path) -> Path:
    """The path of a scored checkpoint, in its run's folder if that was moved.

    Another run may lie at its old path now, so the file that was scored is known by its content.
    """
    path = Path(checkpoint["path"])
    candidates = (path, run_path / path.parent.name / path.name, run_path / path.name)
    there = [one for one in candidates if one.is_file()]
    same = (one for one in there if fingerprint_of_file(one) == checkpoint.get("fingerprint"))
    return next(same, there[0] if there else run_path / path.name)
