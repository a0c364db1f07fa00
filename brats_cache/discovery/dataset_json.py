"""Reading dataset.json, of the Medical Segmentation Decathlon and of nnU-Net, versions 1 and 2.

"modality": {"0": "FLAIR", …}        or  "channel_names": {"0": "Flair", …}
"labels": {"0": "background", …}     or  {"background": 0, "whole tumor": [1, 2, 3], …}
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from brats_cache.common.errors import file_fault
from brats_cache.common.files import read_json
from brats_cache.discovery.file_names import modality_of

__all__ = ["DatasetDescription", "read_dataset_json"]

_MAX_DIGITS = 6  # of a label
_MAX_QUOTED = 300  # characters of a value that is no use
_EXPECTED_LABELS = (
    '"labels" with a name for each value, such as {"0": "background"}, or with values or regions '
    'for each name, such as {"background": 0, "whole tumor": [1, 2, 3]}'
)
# Short names of labels, spelled out for whoever looks up what they mean.
_SPELLED_OUT = {
    "ncr": "necrotic core",
    "net": "non-enhancing tumor",
    "netc": "non-enhancing tumor core",
    "ed": "edema",
    "oedema": "edema",
    "snfh": "surrounding FLAIR hyperintensity",
    "et": "enhancing tumor",
    "rc": "resection cavity",
}
_REGIONS = (
    ("wt", re.compile(r"\bwt\b|whole", re.IGNORECASE)),
    ("tc", re.compile(r"\btc\b|core", re.IGNORECASE)),
    ("et", re.compile(r"\bet\b|(?<!non-)(?<!non)(?<!non )enhanc", re.IGNORECASE)),
    ("rc", re.compile(r"\brc\b|cavity", re.IGNORECASE)),
)
# The regions that hold a value, and the label they make it.
_LABEL_OF_REGIONS = {
    ("wt",): "edema",
    ("tc", "wt"): "non-enhancing tumor",
    ("et", "tc", "wt"): "enhancing tumor",
    ("rc",): "resection cavity",
}


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """What a dataset.json says.

    Attributes:
        channels: The modality of each channel, None for one that is none of the four.
        labels: Value and name of each label; empty where there is only one kind of tumour.
        num_training: Number of training cases, None where it is not told.
        file_ending: Suffix of the images of nnU-Net version 2, else "".
    """

    channels: tuple[str | None, ...]
    labels: tuple[tuple[int, str], ...]
    num_training: int | None
    file_ending: str


def read_dataset_json(path: Path) -> DatasetDescription:
    """Reads a dataset.json.

    Args:
        path: The file.

    Raises:
        DataFaults: It is no JSON, or does not say what channels and labels are; the fault names
            the file, and the line where one is wrong.
    """
    try:
        content = read_json(path)
    except ValueError as error:
        raise file_fault(path, str(error), "JSON in UTF-8") from error
    except OSError as error:
        raise file_fault(
            path, error.strerror or str(error), "a JSON file that can be read"
        ) from error
    content = content if isinstance(content, dict) else {}
    key = "channel_names" if "channel_names" in content else "modality"
    num_training = content.get("numTraining")
    ending = content.get("file_ending", "")
    if ending not in ("", ".nii", ".nii.gz"):
        raise file_fault(path, f'"file_ending": {_quoted(ending)}', ".nii.gz or .nii")
    return DatasetDescription(
        channels=_channels(path, key, content.get(key)),
        labels=_labels(path, content.get("labels")),
        num_training=num_training if isinstance(num_training, int) else None,
        file_ending=ending,
    )


def _channels(path: Path, key: str, modality: object) -> tuple[str | None, ...]:
    expected = f'"{key}" with one of FLAIR, T1w, t1gd, T2w for each of "0", "1", …, each once'
    fault = file_fault(path, f'"{key}": {_quoted(modality)}', expected)
    if not isinstance(modality, dict) or set(modality) != {str(i) for i in range(len(modality))}:
        raise fault
    channels = tuple(modality_of(str(modality[str(i)])) for i in range(len(modality)))
    known = [channel for channel in channels if channel is not None]
    if not known or len(set(known)) < len(known):
        raise fault
    return channels


def _labels(path: Path, labels: object) -> tuple[tuple[int, str], ...]:
    fault = file_fault(path, f'"labels": {_quoted(labels)}', _EXPECTED_LABELS)
    if not isinstance(labels, dict) or not labels:
        raise fault
    if all(name.isascii() and name.isdecimal() and len(name) <= _MAX_DIGITS for name in labels):
        named = {int(value): str(name) for value, name in labels.items()}
    elif any(isinstance(value, list) for value in labels.values()):
        named = _of_regions(labels)
    elif all(isinstance(value, int) for value in labels.values()) and len(labels) > 1:
        named = {value: name for name, value in labels.items()}
    else:
        raise fault
    if not named or any(not isinstance(v, int) or abs(v) >= 10**_MAX_DIGITS for v in named):
        raise fault
    if set(named) == {0, 1} and _is_tumor_alone(named[1]):
        return ()
    return tuple(sorted((value, _spelled_out(name)) for value, name in named.items()))


def _of_regions(labels: dict[str, object]) -> dict[int, str]:
    """The name of each value by the regions that hold it; none where the regions are unknown."""
    holders: dict[int, set[str]] = {}
    for name, values in labels.items():
        listed = values if isinstance(values, list) else [values]
        members = [value for value in listed if isinstance(value, int)]
        if len(members) < len(listed):
            return {}
        region = next((key for key, pattern in _REGIONS if pattern.search(name)), "")
        for value in members:
            holders.setdefault(value, set()).add("" if name == "background" else region)
    named = {}
    for value, regions in holders.items():
        if value == 0:
            named[value] = "background"
        else:
            key = tuple(sorted(regions - {""}))
            named[value] = _LABEL_OF_REGIONS.get(key, f"in {', '.join(key) or 'no known region'}")
    return named


def _is_tumor_alone(name: str) -> bool:
    """Whether the one label there is means any tumour, so that the masks are binary."""
    words = re.findall(r"[a-z]+", name.lower())
    kinds = {"edema", "oedema", "enhancing", "core", "necrosis", "cavity", *_SPELLED_OUT}
    return not kinds & set(words)


def _spelled_out(name: str) -> str:
    full = _SPELLED_OUT.get(name.strip().lower())
    return f"{name} ({full})" if full else name


def _quoted(value: object) -> str:
    """The start of a value as JSON."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return "values nested too deep"
    return text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "…"
