"""Trainings of a peer on the folds of a cache, one process each, and the masks they predict.

Each fold is trained on the cases of the others, and predicts its own. What is finished in the
folder is not done again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import open_cache
from brats_cache.imaging.labels import REGIONS
from peers.job import PeerCase, find_peer_cases

__all__ = ["FoldsJob", "predict_folds", "publish", "train_from_command_line"]


@dataclass(frozen=True, kw_only=True)
class FoldsJob:
    """What a peer trains on.

    Attributes:
        cases: All cases.
        folds: Case ids by fold.
        regions: Of each region, the values of the segmentations that are in it.
        written: The value that is written for a region; later ones over earlier ones.
        minutes: Of training, for each fold.
        masks: The folder for masks, CASE.nii.gz or CASE.nii.
        folder: For whatever else the peer writes.
    """

    cases: Sequence[PeerCase]
    folds: Mapping[int, Sequence[str]]
    regions: Mapping[str, Sequence[int]]
    written: Mapping[str, int]
    minutes: float
    masks: Path
    folder: Path

    @classmethod
    def read(cls, path: Path) -> FoldsJob:
        """Reads what `write` wrote."""
        held = json.loads(path.read_text())
        held["cases"] = [PeerCase(**case) for case in held["cases"]]
        held["folds"] = {int(fold): ids for fold, ids in held["folds"].items()}
        return cls(**held | {name: Path(held[name]) for name in ("masks", "folder")})

    def write(self, path: Path) -> None:
        """Writes the job for a peer's own process."""
        path.write_text(json.dumps(asdict(self), default=str))

    def unseen(self, fold: int) -> list[PeerCase]:
        """The cases of a fold."""
        return [case for case in self.cases if case.id in self.folds[fold]]

    def seen(self, fold: int) -> list[PeerCase]:
        """The cases of all other folds."""
        return [case for case in self.cases if case.id not in self.folds[fold]]


def predict_folds(
    peer: str,
    python: Path,
    cache_path: Path,
    data: Sequence[Path],
    modalities: Sequence[str],
    *,
    minutes: float,
    out: Path,
) -> Path:
    """Trains a peer on every fold of a cache.

    Args:
        peer: "monai" or "nnunet".
        python: An interpreter that has brats and its peers.
        cache_path: A cache of the cases, with folds.
        data: The folders of scans that the cache was built from.
        modalities: Channels.
        minutes: Of training, for each fold.
        out: A folder.

    Returns:
        The folder of masks, CASE.nii.gz or CASE.nii, in the values of the cases' segmentations.

    Raises:
        BratsError: The cases are not what the peers can take, or a training failed.
    """
    masks = out / "masks"
    masks.mkdir(parents=True, exist_ok=True)
    job = _job(cache_path, data, modalities, minutes=minutes, out=out.resolve())
    path = out / "job.json"
    job.write(path)
    scripts = Path(__file__).resolve().parent.parent
    places = [str(scripts.parent), str(scripts), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    for fold in sorted(job.folds):
        if all(_is_predicted(case, masks) for case in job.unseen(fold)):
            continue
        print(f"{peer}: fold {fold} of {len(job.folds)}", flush=True)
        command = [python, "-m", f"peers.train_{peer}", path, fold]
        if subprocess.run(list(map(str, command)), env=environment, check=False).returncode:
            raise BratsError(f"{peer}: fold {fold} failed, as said above. {out} keeps the others.")
    return masks


def train_from_command_line() -> tuple[FoldsJob, int]:
    """The job and the fold that a peer's process is given."""
    path, fold = sys.argv[1:]
    return FoldsJob.read(Path(path)), int(fold)


def publish(made: Path, job: FoldsJob, case: PeerCase) -> None:
    """Puts a finished mask under its name, all at once."""
    partial = job.masks / f"{case.id}.partial"
    shutil.copyfile(made, partial)
    partial.replace(job.masks / (case.id + (".nii.gz" if made.suffix == ".gz" else ".nii")))


def _is_predicted(case: PeerCase, masks: Path) -> bool:
    return any((masks / f"{case.id}{ending}").is_file() for ending in (".nii.gz", ".nii"))


def _job(
    cache_path: Path, data: Sequence[Path], modalities: Sequence[str], *, minutes: float, out: Path
) -> FoldsJob:
    cache = open_cache(cache_path)
    ids = cache.case_ids
    schemes = {cache.scheme(index).name: cache.scheme(index) for index in range(len(ids))}
    if len(schemes) > 1:
        raise BratsError(
            f"{cache_path}: its cases have the label schemes {', '.join(sorted(schemes))}, and the "
            "peers are trained on one. Leave --peer out, or name folders of one scheme."
        )
    (scheme,) = schemes.values()
    regions = {
        region: [value for value, label in scheme.to_canonical.items() if label in REGIONS[region]]
        for region in scheme.regions
    }
    innermost = {"wt": 2, "tc": 1, "et": 3}  # the canonical label that only counts as the region
    return FoldsJob(
        cases=find_peer_cases(data, modalities),
        folds={
            fold: [ids[index] for index in np.flatnonzero(cache.cases["fold"] == fold)]
            for fold in sorted(set(cache.cases["fold"].tolist()) - {-1})
        },
        regions=regions,
        written={region: scheme.from_canonical[innermost[region]] for region in regions},
        minutes=minutes,
        masks=out / "masks",
        folder=out / "work",
    )
