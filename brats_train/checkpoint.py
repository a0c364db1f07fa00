"""Checkpoints: one file that says everything needed to go on, or to segment a scan elsewhere.

A checkpoint holds tensors and plain values only, so that it is read without executing anything
(`weights_only=True`). Writing happens in a thread, from a snapshot, while training goes on.
"""

from __future__ import annotations

import pickle
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brats_cache.errors import BratsError, printable
from brats_cache.files import write_atomically
from brats_cache.preprocess import Preparation

from .model import ModelConfig, build_model

__all__ = ["Saver", "Segmenter", "load", "load_segmenter", "pack"]

FORMAT_VERSION = 1
_READING_ERRORS = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    AttributeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """What a model needs to be used: its shape, its regions, and how its images are prepared.

    regions       of each output channel
    label_scheme  of the training masks, for scans whose names do not tell theirs
    weights_from  where the encoder's first weights came from
    threshold     probability from which a voxel belongs to a region
    tta           whether probabilities are averaged over flips
    min_component_voxels  smaller connected components of a region are dropped; 0 for none
    """

    model: ModelConfig
    regions: tuple[str, ...]
    preparation: Preparation
    label_scheme: str
    weights_from: str
    threshold: float = 0.5
    tta: bool = False
    min_component_voxels: int = 0


def pack(segmenter: Segmenter, model: Mapping[str, Tensor], **state: Any) -> dict[str, Any]:
    """The content of a checkpoint: the model's state dict, unwrapped, and whatever `state` training
    needs to go on, plain values and tensors. Tensors are copied, where they are."""
    content = {"format_version": FORMAT_VERSION, "segmenter": asdict(segmenter), "model": model}
    copied = _copied({**content, **state})
    assert isinstance(copied, dict)
    return copied


class Saver:
    """Writes packed checkpoints in a thread; a context manager that waits for the last of them.

    A newer checkpoint of a path replaces an older one that still waits. A failed write leaves the
    file before it intact and is raised, as `BratsError`, by the next call.
    """

    def __init__(self) -> None:
        self._waiting: dict[Path, tuple[dict[str, Any], torch.cuda.Event | None]] = {}
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._closing = self._writing = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="saver")
        self._thread.start()

    def submit(self, path: Path, content: dict[str, Any]) -> None:
        """Has `content`, which must not change any more, written to `path`."""
        ready = None
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            ready = torch.cuda.Event()
            ready.record()
        with self._changed:
            self._raise_failure()
            self._waiting[path] = (content, ready)
            self._changed.notify_all()

    def wait(self) -> None:
        """Returns when everything submitted is on the disk."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or not (self._waiting or self._writing))
            self._raise_failure()

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            self._thread.join()

    def _raise_failure(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                path = next(iter(self._waiting))
                content, ready = self._waiting.pop(path)
                self._writing = True
            failure: BaseException | None = None
            try:
                # Under the same name, so that a snapshot on a GPU is freed before the disk is slow.
                content = _fetched(content, ready)
                write_atomically(path, partial(torch.save, content))
            except BaseException as error:  # raised in the training thread
                failure = error
            del content, ready
            with self._changed:
                self._writing, self._error = False, self._error or failure
                self._changed.notify_all()


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. Raises `BratsError` for anything else."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BratsError(f"{path}: no such checkpoint. Train first, or name another.") from None
    except _READING_ERRORS as error:
        reason = printable(str(error).splitlines()[0] if str(error) else type(error).__name__)
        if isinstance(error, pickle.UnpicklingError):  # torch's advice is to trust the file
            reason = "it holds more than tensors and plain values, or is no such file at all"
        raise BratsError(f"{path}: no readable checkpoint ({reason}).") from error
    if not isinstance(content, dict) or "segmenter" not in content:
        raise BratsError(f"{path}: a torch file, but no checkpoint of brats train.")
    if content.get("format_version") != FORMAT_VERSION:
        version = printable(content.get("format_version"))
        raise BratsError(f"{path}: checkpoint version {version}, expected {FORMAT_VERSION}.")
    return content


def load_segmenter(path: Path) -> tuple[Segmenter, nn.Module, dict[str, Any]]:
    """The description, the model with its weights, in evaluation mode, and the whole content."""
    content = load(path)
    try:
        described = dict(content["segmenter"])
        preparation = dict(described["preparation"])
        preparation["modalities"] = tuple(preparation["modalities"])
        described["preparation"] = Preparation(**preparation)
        described["model"] = ModelConfig(**described["model"])
        described["regions"] = tuple(described["regions"])
        segmenter = Segmenter(**described)
        model = build_model(segmenter.model)
        model.load_state_dict(content["model"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = printable(str(error).splitlines()[0])
        raise BratsError(f"{path}: its parts do not fit this program ({reason}).") from error
    return segmenter, model.eval(), content


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(inner) for inner in value)
    return value


def _fetched(content: dict[str, Any], ready: torch.cuda.Event | None) -> dict[str, Any]:
    """`content` in the host's memory, once the training thread's stream has made it."""
    if ready is None:
        return content
    stream = torch.cuda.Stream(device=ready.device)
    stream.wait_event(ready)
    with torch.cuda.stream(stream):
        fetched = _on_cpu(content)
    assert isinstance(fetched, dict)
    return fetched


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(inner) for inner in value)
    return value
