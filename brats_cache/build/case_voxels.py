"""The voxels that the rows of a case are made of, read once where memory allows.

A worker process that surveys a case keeps what it decoded until it writes the rows of the case.
Only the box around the brain is kept, a third of a scan of BraTS. Cases are kept as long as
`RESERVED_SHARE` of the memory stays available; the scans of the others are read again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from brats_cache.build.journal import file_states
from brats_cache.build.survey import LoadedCase, Source, Survey
from brats_cache.common.errors import DataFaults, Fault
from brats_cache.common.memory_limits import available_memory, memory_limit
from brats_cache.discovery.cases import Scan
from brats_cache.imaging.nifti import Contents, read_contents, read_labels, read_volume
from brats_cache.imaging.nifti_header import read_header
from brats_cache.imaging.preprocess import brain_of
from brats_cache.imaging.window import Window

__all__ = ["KEPT_CASES", "RESERVED_SHARE", "CaseVoxels", "KeptCases", "read_voxels"]

RESERVED_SHARE = 0.5  # of the memory that this process may use


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseVoxels:
    """What the rows of a case are made of.

    Attributes:
        window: The box around the brain.
        volumes: (Z, Y, X) of that box in modality order, in the dtype they were read in.
        brain: (Z, Y, X) bool of that box.
        labels_window: The box around everything that is labelled.
        labels: (Z, Y, X) uint8 of that box, source values; empty for a case without a mask.
    """

    window: Window
    volumes: tuple[np.ndarray, ...]
    brain: np.ndarray
    labels_window: Window
    labels: np.ndarray

    @classmethod
    def of(
        cls, volumes: tuple[np.ndarray, ...], labels: np.ndarray | None, brain: np.ndarray
    ) -> CaseVoxels:
        """Cuts the boxes out of whole (Z, Y, X) arrays, as views."""
        labels = np.zeros(brain.shape, np.uint8) if labels is None else labels
        window, labels_window = Window.around(brain), Window.around(labels)
        return cls(
            window=window,
            volumes=tuple(window.cut(volume) for volume in volumes),
            brain=window.cut(brain),
            labels_window=labels_window,
            labels=labels_window.cut(labels),
        )

    @property
    def num_bytes(self) -> int:
        """Bytes of the boxes."""
        return sum(array.nbytes for array in (*self.volumes, self.brain, self.labels))

    def copied(self) -> CaseVoxels:
        """Returns copies of the boxes, so that the memory of the whole arrays can be freed."""
        return CaseVoxels(
            window=self.window,
            volumes=tuple(volume.copy() for volume in self.volumes),
            brain=self.brain.copy(),
            labels_window=self.labels_window,
            labels=self.labels.copy(),
        )


class KeptCases:
    """The cases that this process has surveyed and not written yet, as far as memory allows."""

    def __init__(self) -> None:
        self._cases: dict[str, tuple[list[list[Any]], tuple[Source, ...], CaseVoxels]] = {}

    def keep(self, loaded: LoadedCase, states: list[list[Any]]) -> None:
        """Keeps a case, unless too little memory would stay available.

        Args:
            loaded: The case.
            states: The `file_states` from before its files were read.
        """
        voxels = CaseVoxels.of(loaded.volumes, loaded.labels, loaded.brain)
        if available_memory() - voxels.num_bytes >= RESERVED_SHARE * memory_limit():
            survey = loaded.survey
            self._cases[survey.case.id] = (states, survey.sources, voxels.copied())

    def take(self, survey: Survey) -> CaseVoxels | None:
        """Returns a case and keeps it no longer; None for one not kept, or changed since then."""
        states, sources, voxels = self._cases.pop(survey.case.id, (None, None, None))
        is_current = states == file_states(survey.case) and sources == survey.sources
        return voxels if is_current else None


# Nothing else of a worker process outlives a task.
KEPT_CASES = KeptCases()


def read_voxels(survey: Survey) -> CaseVoxels:
    """Reads the scans of a case again.

    Args:
        survey: What they held before.

    Raises:
        DataFaults: A file is not the one that was surveyed, by size and checksum.
    """
    case = survey.case
    scans: list[Scan] = [*case.images.values(), *([case.mask] if case.mask else [])]
    volumes: list[np.ndarray] = []
    labels: np.ndarray | None = None
    contents: Contents | None = None
    for number, (scan, source) in enumerate(zip(scans, survey.sources, strict=True)):
        try:
            if contents is None or contents.header.path != scan.path:  # a 4-D file is read once
                contents = None
                contents = read_contents(read_header(scan.path))
            if (contents.num_bytes, contents.checksum) != (source.num_bytes, source.checksum):
                raise _changed(case.id, scan)
            if number == len(case.images):
                labels = read_labels(contents, scan.channel)
            else:
                volumes.append(read_volume(contents, scan.channel))
        except DataFaults as error:
            raise _changed(case.id, scan) from error
    return CaseVoxels.of(tuple(volumes), labels, brain_of(volumes))


def _changed(case: str, scan: Scan) -> DataFaults:
    fault = Fault(
        case=case,
        path=scan.path,
        found="a scan that has changed since it was checked",
        expected="scans that stay as they are during a build",
        remedy="Leave the scans alone, then type the same command again.",
    )
    return DataFaults([fault], "Nothing lies under the final name; what was done is kept.")
