"""What is saved under a NIfTI name and is something else is called what it is, with a way out."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brats_cache.common.errors import DataFaults
from brats_cache.imaging.foreign_files import describe_foreign_file
from brats_cache.imaging.nifti_header import read_header
from tests.cache.scans import LPS, SHAPE

LFS = b"""version https://git-lfs.github.com/spec/v1
oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
size 12345
"""
KINDS = [
    (LFS, "Git LFS pointer", "git lfs pull"),
    (b"../../.git/annex/objects/Xk/9M/MD5E-s1--ab.nii.gz/MD5E-s1--ab.nii.gz\n", "git-annex",
     "datalad get"),
    (b"/annex/objects/MD5E-s2--cd.nii.gz\n", "git-annex", "git annex get"),
    (b"<!DOCTYPE html>\n<html><head><title>403</title>" + b" " * 400, "an HTML page", "login"),
    (b"\xef\xbb\xbf\r\n  <HTML><body>Sign in</body></HTML>", "an HTML page", "login"),
    (b"<html lang='de'><p>F\xfcr Mitglieder</p></html>", "an HTML page", "login"),
    (b'<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code></Error>', "an XML document", "again"),
    (b"<Error><Code>AccessDenied</Code></Error>", "an XML document", "again"),
    (b'{"message": "Not Found", "status": 404}', "a JSON document", "again"),
    (b'[\n  {"error": 1}\n]', "a JSON document", "again"),
    (b"404: Not Found", "a text file ('404: Not Found')", "again"),
    (b"case,grade\n001,HGG\n", "a text file ('case,grade')", "again"),
    (b"PK\x03\x04\x14\0\0\0" + bytes(900), "a ZIP archive", "Unpack"),
    (bytes(128) + b"DICM" + bytes(900), "a DICOM file", "Convert"),
    (b"NRRD0004\ntype: short\n", "an NRRD image", "Convert"),
    (b"\x89HDF\r\n\x1a\n" + bytes(900), "an HDF5 file", "Convert"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "kind", "remedy"), KINDS)
@pytest.mark.parametrize("name", ["P-7_t1c.nii.gz", "P-7_t1c.nii"])
@pytest.mark.parametrize("is_packed", [False, True])
def test_each_kind_is_named_with_a_way_out(
    tmp_path: Path, content: bytes, kind: str, remedy: str, name: str, is_packed: bool
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if is_packed else content)
    with pytest.raises(DataFaults) as refusal:
        read_header(path)
    (fault,) = refusal.value.faults
    assert fault.path == path
    assert kind in fault.found
    assert fault.expected == "a NIfTI file"
    assert remedy in fault.remedy
    assert str(fault).isprintable()


def test_a_scan_that_was_packed_twice_is_told_to_be_unpacked(tmp_path: Path) -> None:
    """As by a browser that packs what is packed already."""
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.int16), LPS), path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataFaults, match=r"gzip data within gzip data.*gunzip"):
        read_header(path)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_scan_with_text_in_its_header_is_a_scan(tmp_path: Path, kind: type) -> None:
    made = kind(np.ones(SHAPE, np.int16), LPS)
    made.header["descrip"] = b"<html> version https://git-lfs.github.com/spec/v1"
    nib.save(made, tmp_path / "a.nii")
    assert read_header(tmp_path / "a.nii").shape == SHAPE


@pytest.mark.parametrize("content", [b"", b"\0" * 400, b"\x01\x02\x03", b"\xff\xfe" * 200])
def test_binary_data_of_no_kind_is_left_to_the_header_checks(content: bytes) -> None:
    assert describe_foreign_file(content) is None
