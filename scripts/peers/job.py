"""What one call of scripts/bench_peers measures, and the cases it measures with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from brats_cache.build.find import find_build_cases
from brats_cache.common.errors import BratsError, DataFaults
from brats_cache.discovery.cases import Case

__all__ = ["Job", "PeerCase", "find_peer_cases", "read_cases", "write_cases"]


@dataclass(frozen=True, kw_only=True)
class PeerCase:
    """The files of a case, as every peer is handed them.

    Attributes:
        id: The case.
        images: A 3-D NIfTI file for each modality.
        mask: The segmentation.
    """

    id: str
    images: dict[str, str]
    mask: str

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of its files."""
        return (*map(Path, self.images.values()), Path(self.mask))


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to measure.

    Attributes:
        data: Folders of scans.
        about: The cases in words, without the place where they lie.
        cases: The cases in these folders.
        modalities: Channels.
        size: Side of a slice in pixels.
        workers: Worker processes of a way, or its threads.
        rounds: Timed rounds.
        batch_size: Slices of a batch when feeding.
        epoch_slices: Slices of an epoch.
        epoch_batch_size: Slices of its batches.
        peers: Whom to measure beside brats.
        folder: For temporary files.
    """

    data: tuple[Path, ...]
    about: str
    cases: tuple[PeerCase, ...]
    modalities: tuple[str, ...]
    size: int
    workers: int
    rounds: int
    batch_size: int
    epoch_slices: int
    epoch_batch_size: int
    peers: tuple[str, ...]
    folder: Path

    @property
    def cache_path(self) -> Path:
        """A cache of the brain slices of all cases, all of them for training."""
        return self.folder / "cache.h5"


def find_peer_cases(data: Sequence[Path], modalities: Sequence[str]) -> tuple[PeerCase, ...]:
    """Finds the cases as `brats build-cache` does.

    Raises:
        BratsError: There are none, or the peers could not take them as they are.
    """
    findings = find_build_cases(data, modalities)
    if findings.faults:
        raise DataFaults(findings.faults, "Mend these, or name other folders or --modalities.")
    return tuple(map(_peer_case, findings.cases))


def _peer_case(case: Case) -> PeerCase:
    if case.mask is None:
        raise BratsError(f"{case.id}: has no segmentation. Name folders of cases that have one.")
    if any(scan.channel is not None for scan in (*case.images.values(), case.mask)):
        raise BratsError(f"{case.id}: is a 4-D file, which the peers are not measured with.")
    return PeerCase(
        id=case.id,
        images={name: str(scan.path.resolve()) for name, scan in case.images.items()},
        mask=str(case.mask.path.resolve()),
    )


def write_cases(cases: Sequence[PeerCase], path: Path) -> None:
    """Writes the cases for a peer's own process."""
    path.write_text(json.dumps([vars(case) for case in cases]))


def read_cases(path: Path) -> list[PeerCase]:
    """Reads what `write_cases` wrote."""
    return [PeerCase(**values) for values in json.loads(path.read_text())]
