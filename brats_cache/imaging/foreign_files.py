"""Recognises what is saved under the name of a NIfTI file and is none: pointers of version control,
error pages of a server, archives, images of other formats."""

from __future__ import annotations

import re

from brats_cache.common.errors import printable

__all__ = ["describe_foreign_file"]

_DOWNLOAD = "Download it again; the server may ask for a login."
_CONVERT = "Convert it to NIfTI first."
_UNPACK = "Unpack it first."
_NUM_QUOTED = 60  # characters of a text file
_DICOM_PREAMBLE = 128  # bytes before the signature of a DICOM file
# First bytes of the file -> what it is, what to do.
_SIGNATURES = (
    (b"PK\x03\x04", "a ZIP archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"BZh", "bzip2 data", _UNPACK),
    (b"\x1f\x8b", "gzip data within gzip data", "Unpack it once: gunzip."),
    (b"\xfd7zXZ\0", "xz data", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "Zstandard data", _UNPACK),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _CONVERT),
    (b"NRRD000", "an NRRD image", _CONVERT),
    (b"\x89PNG", "a PNG image", _CONVERT),
    (b"%PDF-", "a PDF document", _DOWNLOAD),
)
# Beginnings of text files, without leading space and in lower case.
_TEXTS = (
    (
        re.compile(r"version https://git-lfs\.github\.com/spec/"),
        "a Git LFS pointer instead of the file it stands for",
        "Fetch the files with git lfs pull.",
    ),
    (
        re.compile(r"\S*/annex/objects/"),
        "a git-annex pointer instead of the file it stands for",
        "Fetch the files with git annex get (datalad get).",
    ),
    (re.compile(r"<!doctype html|<html|<head|<body"), "an HTML page", _DOWNLOAD),
    (re.compile(r"<\?xml|<!--|<\w+[\s/>]"), "an XML document", _DOWNLOAD),
    (re.compile(r"[\[{]\s*[\"\]}\[{\d]"), "a JSON document", _DOWNLOAD),
)


def describe_foreign_file(start: bytes) -> tuple[str, str] | None:
    """Describes a file that cannot be a NIfTI file.

    Args:
        start: Its first bytes, inflated where they were gzipped; a few hundred are enough.

    Returns:
        What it is and what a person can do about it; None for what may be a NIfTI file, or is of
        no known kind.
    """
    for signature, what, remedy in _SIGNATURES:
        if start.startswith(signature):
            return what, remedy
    if start[_DICOM_PREAMBLE : _DICOM_PREAMBLE + 4] == b"DICM":
        return "a DICOM file", _CONVERT
    text = _as_text(start)
    if text is None:
        return None
    for pattern, what, remedy in _TEXTS:
        if pattern.match(text.lower()):
            return f"{what} ({_quoted(text)})", remedy
    return f"a text file ({_quoted(text)})", _DOWNLOAD


def _as_text(start: bytes) -> str | None:
    """The bytes as text without a byte order mark and leading space; None for binary data.

    A NIfTI header is binary: it holds zero bytes.
    """
    text = start.decode("utf-8-sig", errors="replace").strip()
    is_printable = all(character.isprintable() or character in "\t\r\n\f" for character in text)
    is_encoded_else = text.count("\N{REPLACEMENT CHARACTER}") > len(text) // 10
    return text if text and is_printable and not is_encoded_else else None


def _quoted(text: str) -> str:
    """The first line of a text, shortened."""
    line = printable(text.splitlines()[0].strip())
    return repr(line if len(line) <= _NUM_QUOTED else f"{line[:_NUM_QUOTED]}...")
