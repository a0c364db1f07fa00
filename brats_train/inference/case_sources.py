"""Where `predict` takes its cases from: folders, a manifest, or the files of a single case."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

import xxhash

from brats_cache.common.errors import BratsError, LabelSchemeError
from brats_cache.discovery.cases import Case, Findings, Scan, find_cases
from brats_cache.discovery.file_names import parse_name
from brats_cache.discovery.namings import naming_of
from brats_cache.discovery.patients import patient_of
from brats_cache.imaging.labels import SCHEMES, Scheme
from brats_cache.imaging.scheme_detection import detect_scheme
from brats_train.models.checkpoint import SegmenterSpec

__all__ = [
    "case_of_files",
    "find_scans",
    "findings_of_files",
    "fingerprint_of_scans",
    "output_scheme",
]

_WORD = re.compile(r"[^_\-. ]+[_\-. ]*")
_NIFTI_SUFFIX = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)


def find_scans(data: Sequence[Path], spec: SegmenterSpec) -> Findings:
    """Finds the cases in folders; their masks do not matter.

    Args:
        data: Case folders, or folders of them.
        spec: The model that will predict them.
    """
    modalities = spec.preparation.modalities
    return find_cases(data, modalities, with_masks=False, may_lack=spec.accepts_missing)


def case_of_files(files: Mapping[str, Path], spec: SegmenterSpec) -> Case:
    """Makes a case of one file a modality.

    Its id is what the file names have in common, else the name of their folder.

    Args:
        files: Files by modality; those that the model does not need are left aside.
        spec: The model that will predict the case.

    Raises:
        BratsError: A modality is missing that the model does not do without.
    """
    modalities = spec.preparation.modalities
    missing = [name for name in modalities if name not in files]
    if len(missing) == len(modalities) or (missing and not spec.accepts_missing):
        raise BratsError(
            f"no --{', no --'.join(missing)}: the model was trained on {', '.join(modalities)} "
            "and needs a file of each."
        )
    images = {name: Scan(path=Path(files[name])) for name in modalities if name in files}
    paths = [scan.path for scan in images.values()]
    case_id = _common_id(paths)
    return Case(
        id=case_id,
        patient=patient_of(case_id),
        naming=naming_of(case_id),
        data_dir=paths[0].parent,
        images=images,
        mask=None,
    )


def findings_of_files(files: Mapping[str, Path], spec: SegmenterSpec) -> Findings:
    """The single case of `case_of_files`, as folders would give it."""
    return Findings(cases=(case_of_files(files, spec),), faults=(), notes=())


def _common_id(paths: Sequence[Path]) -> str:
    roles = [parse_name(path, path.parent) for path in paths]
    ids = {role.case if role else "" for role in roles}
    if len(ids) == 1 and "" not in ids:
        return ids.pop()
    stems = [_NIFTI_SUFFIX.sub("", path.name) for path in paths]
    words = zip(*(_WORD.findall(stem) for stem in stems), strict=False)
    shared = "".join(group[0] for group in takewhile(lambda group: len(set(group)) == 1, words))
    folder = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    return shared.rstrip("_-. ") or folder.name or "case"


def fingerprint_of_scans(images: Mapping[str, Scan], checksums: Sequence[int]) -> str:
    """Fingerprint of the scans of a case: equal for equal files in equal roles, wherever they lie.

    Args:
        images: The scan of each modality, in the model's order.
        checksums: xxh3_64 of the file of each.

    Returns:
        16 hex digits.
    """
    scans = zip(images.items(), checksums, strict=True)
    text = repr([(name, scan.channel, checksum) for (name, scan), checksum in scans])
    return xxhash.xxh3_64_hexdigest(text.encode())


def output_scheme(case: Case, fallback: str) -> tuple[Scheme, str]:
    """The label scheme of a predicted mask: what a manifest or the names tell, else `fallback`.

    Args:
        case: The case.
        fallback: Name of the scheme of the training masks.

    Returns:
        The scheme, and a warning where a dataset.json names labels that are not understood.
    """
    if case.scheme:
        return SCHEMES[case.scheme], ""
    if case.naming == "plain":
        return SCHEMES[fallback], ""
    try:
        return _detected_scheme(case), ""
    except LabelSchemeError:
        return SCHEMES[fallback], (
            f"dataset.json names labels that are not understood, the mask has those of {fallback}"
        )


def _detected_scheme(case: Case) -> Scheme:
    return detect_scheme(case.naming, {case.id: frozenset()}, dataset_labels=case.labels)
