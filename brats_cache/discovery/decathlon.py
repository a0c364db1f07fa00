"""Task01 of the Medical Segmentation Decathlon: four modalities in one 4-D file, told apart by
dataset.json.

    Task01_BrainTumour/dataset.json
                       imagesTr/BRATS_001.nii.gz   (X, Y, Z, 4)
                       labelsTr/BRATS_001.nii.gz   (X, Y, Z)
                       imagesTs/BRATS_485.nii.gz
"""

from __future__ import annotations

from pathlib import Path

from brats_cache.discovery.dataset_json import DatasetDescription
from brats_cache.discovery.file_names import FileRole
from brats_cache.discovery.namings import MASK

__all__ = ["decathlon_roles"]


def decathlon_roles(
    case: str, scan: Path, mask: Path | None, data_dir: Path, description: DatasetDescription
) -> list[FileRole]:
    """Returns the roles of one case: a channel of its 4-D file for each modality, and its mask.

    Args:
        case: Id of the case.
        scan: The 4-D file.
        mask: The file of its labels, None where it has none.
        data_dir: The DATA argument that holds it.
        description: What dataset.json says.
    """

    def role_of(role: str, path: Path, channel: int | None) -> FileRole:
        return FileRole(
            case=case,
            role=role,
            path=path,
            data_dir=data_dir,
            folder=path.parent,
            channel=channel,
            naming="msd" if description.labels else "plain",
            labels=description.labels,
        )

    roles = [
        role_of(modality, scan, channel)
        for channel, modality in enumerate(description.channels)
        if modality is not None
    ]
    return roles + ([role_of(MASK, mask, None)] if mask else [])
