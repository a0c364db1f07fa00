"""Stores the predicted masks of cases, so that `eval` and `report` run no model twice.

One file per case, `RUN/eval_store/SPLIT/CASE.masks`, with a key, a hash of what decides it: model,
post-processing, cache, device. A file with another key is passed over, and replaced when its case
is predicted again; so the folder never grows beyond one file per case, and removing it costs only
time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from brats_cache import __version__
from brats_cache.common.errors import BratsError, printable
from brats_cache.common.files import read_small_file, write_atomically
from brats_cache.format.reader import Cache
from brats_train.evaluation.case_masks import MaskRules
from brats_train.inference.mask_files import mask_path

if TYPE_CHECKING:
    from brats_train.inference.ensemble import Ensemble

__all__ = ["InferenceSettings", "MaskStore", "key_of", "seal"]

_MAGIC = b"brats masks 1\n"
_CONTENT = 2  # what `case_masks.encode_masks` packs; 1 had no expected Dice
_KEY = slice(len(_MAGIC), len(_MAGIC) + 16)
_NUM_HEAD_BYTES = _KEY.stop + 16  # a digest follows
Warn = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """Where and how a model computes: its results differ in the last bits between devices.

    Attributes:
        device: "cpu" or "cuda".
        amp: "bf16", "fp16" or "off".
        slice_threshold: Of the masks of slices.
        without: Modalities that were left out.
    """

    device: str
    amp: str
    slice_threshold: float
    without: tuple[str, ...] = ()


def key_of(
    cache: Cache, case: int, ensemble: Ensemble, rules: MaskRules, settings: InferenceSettings
) -> bytes:
    """Everything that decides the masks of a case, as 16 bytes (xxh3_128).

    Args:
        cache: Holds the case.
        case: Its number in the cache.
        ensemble: The model that predicts this very case.
        rules: How its probabilities become masks.
        settings: Where and how.
    """
    post = rules.postprocessing
    facts = {
        "brats": __version__,
        "content": _CONTENT,
        "cache": cache.fingerprint,
        "case": cache.case_id(case),
        "checkpoints": ensemble.fingerprints,
        "regions": rules.regions,
        "rules": [asdict(post.rule(region)) for region in rules.regions],
        "tta": post.tta,
        "slice_rows": rules.slice_rows,
        **asdict(settings),
    }
    return xxhash.xxh3_128_digest(json.dumps(facts, sort_keys=True).encode())


def seal(key: bytes, content: bytes) -> bytes:
    """The file that holds `content`, of `case_masks.encode_masks`, under its key."""
    return _MAGIC + key + xxhash.xxh3_128_digest(key + content) + content


@dataclass(frozen=True, kw_only=True)
class MaskStore:
    """The files of an evaluation.

    Attributes:
        folder: "RUN/eval_store/SPLIT".
        warn: Takes a line for each file that is damaged.
    """

    folder: Path
    warn: Warn

    @classmethod
    def beside(cls, folder: Path, warn: Warn) -> MaskStore:
        """The store of the evaluation in `folder`, "RUN/eval/SPLIT"."""
        return cls(folder=folder.parent.parent / "eval_store" / folder.name, warn=warn)

    def make(self) -> None:
        """Makes the folder, which other processes may make at the same time.

        Raises:
            BratsError: It cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BratsError(
                f"{printable(self.folder)}: cannot be made ({error.strerror})."
            ) from error

    def path(self, cache: Cache, case: int) -> Path:
        """The file of a case. Raises `DataFaults` where its id is no file name."""
        return mask_path(self.folder, cache.case_id(case), ".masks")

    def find(self, cache: Cache, case: int, *keys: bytes) -> bytes | None:
        """The content that is stored for a case under one of `keys`, None where there is none."""
        path = self.path(cache, case)
        try:
            file = read_small_file(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._say_damaged(path, error.strerror or str(error))
            return None
        key, content = file[_KEY], file[_NUM_HEAD_BYTES:]
        if file != seal(key, content):
            self._say_damaged(path, "not as it was written")
            return None
        return content if key in keys else None

    def put(self, cache: Cache, case: int, key: bytes, content: bytes) -> None:
        """Stores the masks of a case, replacing what is there.

        Raises:
            BratsError: It cannot be written.
        """
        self.make()
        write_atomically(self.path(cache, case), seal(key, content))

    def _say_damaged(self, path: Path, found: str) -> None:
        self.warn(f"{path}: damaged ({found}); its case is predicted again.")
