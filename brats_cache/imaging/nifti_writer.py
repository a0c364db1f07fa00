"""Volumes as NIfTI files on the grid of another file."""

from __future__ import annotations

import io

import nibabel as nib
import numpy as np
from isal import igzip

from brats_cache.imaging.header_doubts import shear_of
from brats_cache.imaging.nifti_header import SILENT, Header, header_class

__all__ = ["encode_volume"]

_MAX_SHEAR = 1e-5  # SimpleITK opens 1e-4 and refuses 1e-3


def encode_volume(volume: np.ndarray, like: Header, description: str = "brats") -> bytes:
    """Encodes a volume as a `.nii.gz` on the grid of another file.

    Shape, orientation, affine, qform, sform, their codes and the units are those of the other file,
    so that every program shows the two at one place. Only a sheared sform without a qform, which
    ITK refuses to open, gets the nearest qform that has no shear.

    Args:
        volume: Canonical (Z, Y, X), or (K, Z, Y, X) for a 4-D file of K channels; it is stored in
            its own dtype, unscaled.
        like: Header of the other file.
        description: Up to 79 ASCII characters for the header.

    Returns:
        The bytes of the file, equal for equal arguments.

    Raises:
        ValueError: The volume has another shape than the grid.
    """
    if volume.shape[-3:] != like.canonical_shape:
        raise ValueError(
            f"volume is {volume.shape}, the grid of {like.path} {like.canonical_shape}"
        )
    header = header_class(like.block).from_fileobj(io.BytesIO(like.block), check=False)
    header["vox_offset"] = 0  # nibabel's to choose
    header.check_fix(logger=SILENT, error_level=50)
    header.set_data_dtype(volume.dtype)
    header.set_slope_inter(1.0, 0.0)
    header["cal_min"] = header["cal_max"] = 0
    header["descrip"] = description.encode("ascii")
    header["intent_code"] = 0
    if header["sform_code"] > 0 >= header["qform_code"] and shear_of(like.affine) > _MAX_SHEAR:
        header.set_qform(like.affine, int(header["sform_code"]), strip_shears=True)
    is_second = header.sizeof_hdr == nib.Nifti2Header.sizeof_hdr
    image_class: type[nib.Nifti1Image] = nib.Nifti2Image if is_second else nib.Nifti1Image
    if volume.ndim == 4:
        source = np.stack([like.orientation.to_source(channel).T for channel in volume]).T
    else:
        source = np.asarray(like.orientation.to_source(volume))
    image = image_class(source, None, header=header)
    if volume.ndim == 4:  # a step of 0 between channels is no step to some readers
        image.header.set_zooms((*image.header.get_zooms()[:3], 1.0))
    return igzip.compress(image.to_bytes(), 2, mtime=0)
