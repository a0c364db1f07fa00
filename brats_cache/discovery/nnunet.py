"""Raw folders of nnU-Net, versions 1 and 2: one file a channel, told apart by dataset.json.

Dataset082_BraTS/dataset.json
                 imagesTr/BraTS20_Training_001_0000.nii.gz   channel 0
                 imagesTr/BraTS20_Training_001_0001.nii.gz   channel 1, and so on
                 labelsTr/BraTS20_Training_001.nii.gz
                 imagesTs/BraTS20_Validation_001_0000.nii.gz
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from brats_cache.common.errors import Fault
from brats_cache.discovery.dataset_json import DatasetDescription
from brats_cache.discovery.file_names import FileRole
from brats_cache.discovery.namings import MASK, naming_of

__all__ = ["group_channels", "nnunet_roles"]

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def group_channels(
    scans: Mapping[str, Path], description: DatasetDescription
) -> dict[str, dict[int, Path]] | None:
    """Groups the files of an images folder by case.

    Args:
        scans: Files by name without suffix.
        description: What dataset.json says.

    Returns:
        The file of each channel by case, None where a name has no channel at its end, or a number
        that can be none (BRATS_9485), as in a Decathlon set.
    """
    num_channels = len(description.channels)
    cases: dict[str, dict[int, Path]] = {}
    for stem, path in scans.items():
        match = _CHANNEL.fullmatch(stem)
        if match is None:
            return None
        if not description.file_ending and int(match["channel"]) >= num_channels:
            return None
        cases.setdefault(match["case"], {})[int(match["channel"])] = path
    return cases


def nnunet_roles(
    case: str,
    channels: Mapping[int, Path],
    mask: Path | None,
    data_dir: Path,
    description: DatasetDescription,
) -> tuple[list[FileRole], list[Fault]]:
    """Returns the roles of one case, a file for each channel, and a fault for a missing one.

    Args:
        case: Id of the case.
        channels: File of each channel.
        mask: The file of its labels, None where it has none.
        data_dir: The DATA argument that holds it.
        description: What dataset.json says.
    """
    expected = range(len(description.channels))
    if set(channels) != set(expected):
        return [], [_wrong_channels(case, channels, len(description.channels))]
    files: list[tuple[str, Path]] = []
    for index, modality in enumerate(description.channels):
        if modality is not None:
            files.append((modality, channels[index]))
    if mask is not None:
        files.append((MASK, mask))
    roles = [
        FileRole(
            case=case,
            role=role,
            path=path,
            data_dir=data_dir,
            folder=path.parent,
            naming=naming_of(case),
            labels=description.labels,
        )
        for role, path in files
    ]
    return roles, []


def _wrong_channels(case: str, channels: Mapping[int, Path], num_expected: int) -> Fault:
    def named(indices: Iterable[int]) -> str:
        return ", ".join(f"_{index:04d}" for index in sorted(indices))

    return Fault(
        case=case,
        path=next(iter(channels.values())).parent,
        found=f"channels {named(channels)}",
        expected=f"{named(range(num_expected))}, a file for each channel in dataset.json",
        remedy="Add the missing files, or correct dataset.json.",
    )
