"""Each peer's way from scans to training data, run as a command of its own:

    python -m peers.builders monai|torchio|plain CASES.json OUT SIZE WORKERS

What each does and does not do is said in `peers.cache`, beside its result.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from peers.job import PeerCase, read_cases

__all__ = ["link_nnunet_raw"]


def build_monai(cases: Sequence[PeerCase], out: Path, size: int, workers: int) -> None:
    """MONAI's PersistentDataset, filled by a DataLoader."""
    import torch
    from monai import transforms
    from monai.data import DataLoader, PersistentDataset

    modalities = list(cases[0].images)
    both = ["image", "mask"]
    prepare = transforms.Compose(
        [
            transforms.LoadImaged(keys=[*modalities, "mask"]),
            transforms.EnsureChannelFirstd(keys=[*modalities, "mask"]),
            transforms.ConcatItemsd(keys=modalities, name="image"),
            transforms.DeleteItemsd(keys=modalities),
            transforms.NormalizeIntensityd(keys="image", nonzero=True, channel_wise=True),
            transforms.Resized(
                keys=both, spatial_size=(size, size, -1), mode=["trilinear", "nearest-exact"]
            ),
            transforms.CastToTyped(keys=both, dtype=[torch.float16, torch.uint8]),
        ]
    )
    items = [case.images | {"mask": case.mask} for case in cases]
    dataset = PersistentDataset(items, prepare, cache_dir=out)
    loader = DataLoader(dataset, batch_size=1, num_workers=workers, collate_fn=len)
    assert sum(loader) == len(cases)


def build_torchio(cases: Sequence[PeerCase], out: Path, size: int, workers: int) -> None:
    """TorchIO's SubjectsDataset in a SubjectsLoader, whose workers write a file for each case."""
    import torchio as tio

    out.mkdir()
    subjects = [
        tio.Subject(
            id=case.id,
            mask=tio.LabelMap(case.mask),
            **{name: tio.ScalarImage(path) for name, path in case.images.items()},
        )
        for case in cases
    ]
    dataset = tio.SubjectsDataset(subjects, transform=partial(_prepare_subject, size=size))
    loader = tio.SubjectsLoader(
        dataset, batch_size=1, num_workers=workers, collate_fn=partial(_save_subjects, out=out)
    )
    assert sum(loader) == len(cases)


def _prepare_subject(subject: Any, size: int) -> Any:
    import torchio as tio

    # Resize with -1 as depth would keep that of the first case for all that follow.
    shape = (size, size, subject.spatial_shape[-1])
    steps = [tio.ZNormalization(masking_method=_is_brain), tio.Resize(shape)]
    return tio.Compose(steps)(subject)


def _is_brain(volume: Any) -> Any:
    return volume != 0


def _save_subjects(subjects: Sequence[Any], out: Path) -> int:
    import numpy as np

    for subject in subjects:
        images = [image.numpy()[0] for image in subject.get_images(intensity_only=True)]
        mask = subject["mask"].numpy().astype(np.uint8)
        np.savez(out / f"{subject['id']}.npz", images=np.stack(images).astype("f2"), mask=mask)
    return len(subjects)


def build_plain(cases: Sequence[PeerCase], out: Path, size: int, workers: int) -> None:
    """A plain script, as people share them."""
    from multiprocessing import Pool

    out.mkdir()
    with Pool(workers) as pool:
        pool.starmap(_build_plain_case, [(case, out / f"{case.id}.h5", size) for case in cases])


def _build_plain_case(case: PeerCase, path: Path, size: int) -> None:
    import h5py
    import nibabel
    import numpy as np
    from scipy.ndimage import zoom

    volumes = np.stack(
        [nibabel.load(file).get_fdata(dtype=np.float32) for file in case.images.values()]
    )
    mask = nibabel.load(case.mask).get_fdata(dtype=np.float32).astype(np.uint8)
    for volume in volumes:
        inside = volume != 0
        volume[inside] = (volume[inside] - volume[inside].mean()) / volume[inside].std()
    x, y = (size / length for length in mask.shape[:2])
    depth = mask.shape[-1]
    with h5py.File(path, "w") as file:
        images = np.stack([zoom(volumes[..., z], (1, x, y), order=1) for z in range(depth)])
        masks = np.stack([zoom(mask[..., z], (x, y), order=0) for z in range(depth)])
        file.create_dataset("images", data=images.astype(np.float16), compression="gzip")
        file.create_dataset("masks", data=masks, compression="gzip")


def link_nnunet_raw(
    cases: Sequence[PeerCase],
    folder: Path,
    *,
    regions: Mapping[str, Sequence[int]] | None = None,
    written: Mapping[str, int] | None = None,
) -> None:
    """Lays the cases out as nnU-Net's raw data set 1, by symbolic links.

    The values of the masks stay as they are: labels that a data set does not use are declared all
    the same, because nnU-Net wants them without a gap.

    Args:
        cases: The cases.
        folder: For raw data sets.
        regions: Overlapping regions to be learnt instead of values, each with its values.
        written: The value that is written for a region.

    Raises:
        ValueError: The scans are partly compressed, and nnU-Net takes one ending.
    """
    endings = {
        ".nii.gz" if path.name.endswith(".gz") else ".nii" for c in cases for path in c.paths
    }
    if len(endings) > 1:
        raise ValueError("scans are partly .nii and partly .nii.gz; nnU-Net takes one of them")
    (ending,) = endings
    dataset = folder / "Dataset001_Peers"
    for name in ("imagesTr", "labelsTr"):
        (dataset / name).mkdir(parents=True)
    for case in cases:
        for channel, path in enumerate(case.images.values()):
            (dataset / "imagesTr" / f"{case.id}_{channel:04d}{ending}").symlink_to(path)
        (dataset / "labelsTr" / f"{case.id}{ending}").symlink_to(case.mask)
    labels: Mapping[str, Any] = {f"label {value}": value for value in (1, 2, 3, 4)}
    if regions:
        labels = {name: v if len(v) > 1 else v[0] for name, v in regions.items()}
    content: dict[str, Any] = {
        "channel_names": {str(i): name for i, name in enumerate(cases[0].images)},
        "labels": {"background": 0, **labels},
        "numTraining": len(cases),
        "file_ending": ending,
    }
    if written:
        content["regions_class_order"] = list(written.values())
    (dataset / "dataset.json").write_text(json.dumps(content))


BUILDERS = {"monai": build_monai, "torchio": build_torchio, "plain": build_plain}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    name, cases_path, out_path, side, num_workers = sys.argv[1:]
    BUILDERS[name](read_cases(Path(cases_path)), Path(out_path), int(side), int(num_workers))
