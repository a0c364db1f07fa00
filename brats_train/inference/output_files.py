"""The files that `predict` makes: their names, and whether those that exist may stay."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import nibabel as nib
import numpy as np
import xxhash

from brats_cache.common.errors import BratsError, DataFaults, Fault, printable
from brats_cache.common.names import id_key
from brats_cache.discovery.cases import Case
from brats_cache.imaging.labels import SCHEMES
from brats_cache.imaging.nifti_header import read_header
from brats_train.inference.case_details import made_by
from brats_train.inference.case_sources import fingerprint_of_scans
from brats_train.inference.ensemble import Ensemble
from brats_train.inference.mask_files import mask_path

__all__ = [
    "OutputFiles",
    "description_of",
    "fingerprint_of_model",
    "is_complete",
    "plan_outputs",
    "remove_outdated",
]

_OF_MODEL = "brats model"  # begins every description
_LONGEST_PARTIAL = len("..4194304.partial")  # what `write_atomically` puts around a name


@dataclass(frozen=True, kw_only=True)
class OutputFiles:
    """The files to make of a case.

    Attributes:
        case: The case.
        mask: `<case>.nii.gz`.
        probabilities: `<case>_prob.nii.gz`, None where it is not asked for.
        uncertainty: `<case>_uncertainty.nii.gz`, likewise.
        details: `<case>.json`.
        unasked: With --overwrite, those of these files that are not asked for.
    """

    case: Case
    mask: Path
    probabilities: Path | None
    uncertainty: Path | None
    details: Path
    unasked: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, the mask last, as they are written."""
        files = (self.probabilities, self.uncertainty, self.details, self.mask)
        return tuple(file for file in files if file is not None)


def plan_outputs(
    cases: Sequence[Case],
    out_dir: Path,
    *,
    with_probabilities: bool,
    with_uncertainty: bool,
    overwrite: bool,
) -> tuple[list[OutputFiles], list[Fault]]:
    """Names the files of every case.

    Returns:
        The files of each case, and a fault for each whose id cannot be a file name or whose label
        scheme is unknown.

    Raises:
        BratsError: Two files would have one name, or one is a scan that is read.
    """
    outputs: list[OutputFiles] = []
    faults: list[Fault] = []
    longest = _longest_name(out_dir)
    for case in cases:
        try:
            mask = mask_path(out_dir, case.id)
            probabilities = mask_path(out_dir, case.id, "_prob.nii.gz")
            uncertainty = mask_path(out_dir, case.id, "_uncertainty.nii.gz")
            details = mask_path(out_dir, case.id, ".json")
        except DataFaults as error:
            faults += error.faults
            continue
        output = OutputFiles(
            case=case,
            mask=mask,
            probabilities=probabilities if with_probabilities else None,
            uncertainty=uncertainty if with_uncertainty else None,
            details=details,
            unasked=(
                *((probabilities,) if overwrite and not with_probabilities else ()),
                *((uncertainty,) if overwrite and not with_uncertainty else ()),
            ),
        )
        if fault := _length_fault(output, longest) or _scheme_fault(case):
            faults.append(fault)
        else:
            outputs.append(output)
    _refuse_equal_names(outputs)
    _refuse_sources(outputs, cases)
    return outputs, faults


def _refuse_sources(outputs: Sequence[OutputFiles], cases: Sequence[Case]) -> None:
    """Raises `BratsError` where a file would replace a scan or mask of any of the cases."""
    scans = [scan for case in cases for scan in (*case.images.values(), case.mask) if scan]
    known = {identity for scan in scans if (identity := _identity(scan.path))}
    for output in outputs:
        for file in (*output.files, *output.unasked):
            if _identity(file) in known:
                raise BratsError(
                    f"{printable(file)}: a scan or mask of these cases, and would be replaced by "
                    f"what is predicted of {printable(output.case.id)}. Choose another --out."
                )


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of a file, whatever its name; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _length_fault(output: OutputFiles, longest: int) -> Fault | None:
    num_bytes = max(len(os.fsencode(file.name)) for file in output.files)
    if num_bytes <= longest:
        return None
    return Fault(
        case=output.case.id,
        path=None,
        found=f"an id that makes a file name of {num_bytes} bytes",
        expected=f"at most {longest} bytes, so that {output.mask.parent} can hold it",
        remedy="Rename its files, or give it another id in a manifest.",
    )


def _scheme_fault(case: Case) -> Fault | None:
    if not case.scheme or case.scheme in SCHEMES:
        return None
    found, expected = f"the label scheme {case.scheme!r}", f"one of {', '.join(SCHEMES)}, or none"
    return Fault(case=case.id, path=None, found=found, expected=expected)


def _longest_name(out_dir: Path) -> int:
    """The longest file name, in bytes, that can be written atomically into a folder to be made."""
    folder = out_dir.absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return os.pathconf(folder, "PC_NAME_MAX") - _LONGEST_PARTIAL


def _refuse_equal_names(outputs: Sequence[OutputFiles]) -> None:
    owners: dict[str, str] = {}
    for output in outputs:
        for file in output.files:
            # Many file systems take names for equal that differ in letter case alone.
            owner = owners.setdefault(id_key(file.name), output.case.id)
            if owner != output.case.id:
                raise BratsError(
                    f"{file}: the cases {owner} and {output.case.id} would both write it. Rename "
                    "one of them, predict them into two folders, or leave out --probabilities and "
                    "--uncertainty."
                )


def fingerprint_of_model(ensemble: Ensemble) -> str:
    """Fingerprint of a model and its post-processing: equal for equal weights and rules.

    Returns:
        16 hex digits.
    """
    text = repr((sorted(ensemble.fingerprints), ensemble.spec.postprocessing))
    return xxhash.xxh3_64_hexdigest(text.encode())


def description_of(model: str, scans: str, scheme: str) -> str:
    """What a mask's header says of how it was made (field `descrip`, 79 bytes).

    Args:
        model: `fingerprint_of_model`.
        scans: `fingerprint_of_scans`.
        scheme: Name of the label scheme; "" for a mask of the whole tumour, which is 1 in any.
    """
    return " ".join(filter(None, (f"{_OF_MODEL} {model} scans {scans}", scheme)))


def remove_outdated(output: OutputFiles, description: str) -> None:
    """Removes files that are not asked for where an earlier prediction of the case left them.

    Those of the same prediction stay, and so does what this program has not made, or made as the
    mask of another case: `A_prob.nii.gz` may be that of a case `A_prob`.
    """
    for path in output.unasked:
        header = _nifti_header(path) if path.exists() else None
        if header is None or header.get_data_dtype() != np.float32:
            continue
        found = _text_of(header)
        if found.startswith(_OF_MODEL) and found != description:
            path.unlink(missing_ok=True)


def is_complete(output: OutputFiles, model: str, scheme: str) -> bool:
    """Whether all files of a case exist, made by this model of these scans with these labels.

    Files are written atomically, so one that exists is whole.

    Args:
        output: The case.
        model: `fingerprint_of_model`.
        scheme: As of `description_of`.

    Raises:
        BratsError: A file exists that was made by another model, of other scans, or by another
            program.
    """
    existing = [path for path in output.files if path.exists()]
    if not existing:
        return False
    scans = _scans_of(output.case)
    for path in existing:
        found = _description(path)
        if not found.startswith(f"{_OF_MODEL} {model} "):
            what = "was not made by this model with these options"
        elif scans is None:
            return False  # predicting the case will tell what is wrong with its scans
        elif found == description_of(model, scans, scheme):
            continue
        elif found.startswith(description_of(model, scans, "")):
            what = f"has the labels of another scheme than {scheme}"
        else:
            folders = {str(scan.path.parent): None for scan in output.case.images.values()}
            what = f"was made of other scans than those in {', '.join(folders)}"
        raise BratsError(
            f"{path}: {what}, so it cannot be kept. Choose another --out, or replace it with "
            "--overwrite."
        )
    return len(existing) == len(output.files)


def _scans_of(case: Case) -> str | None:
    """The fingerprint of a case's scans, None where they cannot be read."""
    try:
        checksums = []
        for scan in case.images.values():
            with open(scan.path, "rb") as file:
                checksums.append(file_digest(file, xxhash.xxh3_64).digest())
    except OSError:
        return None
    return fingerprint_of_scans(case.images, [int.from_bytes(one) for one in checksums])


def _description(path: Path) -> str:
    if path.suffix == ".json":
        return made_by(path)
    header = _nifti_header(path)
    return "" if header is None else _text_of(header)


def _nifti_header(path: Path) -> nib.Nifti1Header | None:
    try:
        block = read_header(path).block
    except DataFaults:
        return None
    kind = nib.Nifti2Header if len(block) == nib.Nifti2Header.sizeof_hdr else nib.Nifti1Header
    return kind.from_fileobj(io.BytesIO(block), check=False)


def _text_of(header: nib.Nifti1Header) -> str:
    text: str = header["descrip"].item().decode("latin-1")
    return text
