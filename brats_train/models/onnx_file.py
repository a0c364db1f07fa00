"""A model as an ONNX file, which onnxruntime computes without torch's network classes.

The graph takes `pixels` (batch, C, S, S) float32, prepared slices, and gives `logits` (batch, K, S,
S); of several networks, the logits of their mean probability. A model that tells labels of whole
cases gives `labels` (batch, L) as well, logits for a softmax. Its metadata hold the description of
the model (`brats`, JSON) and a digest of the whole file (`brats_digest`), which reading compares
before onnxruntime sees a byte.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import xxhash
from torch import Tensor, nn

from brats_cache.common.errors import BratsError, CheckpointError, first_line, printable
from brats_cache.common.files import open_regular_file
from brats_train.models.checkpoint import SegmenterSpec
from brats_train.models.description import Description, canonical_json
from brats_train.models.loaded_model import LoadedModel
from brats_train.models.network import split_output

__all__ = ["OPSET", "has_onnx", "is_onnx", "load_onnx", "make_onnx", "parse_onnx"]

OPSET = 18  # the oldest that torch's exporter makes; onnxruntime knows it since 1.14
MAX_BYTES = (1 << 31) - 1  # of a protocol buffer
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_DESCRIPTION, _DIGEST = "brats", "brats_digest"
_MARK = b"xxh3_128:"
_STAMP = re.compile(re.escape(_MARK) + rb"([0-9a-f]{32})")
_AGAIN = "Copy the file again, or export the model again with brats export."


def is_onnx(path: Path) -> bool:
    """Whether a source is meant as an ONNX file, by its name."""
    return path.suffix.lower() == ".onnx"


def has_onnx() -> bool:
    """Whether the packages that ONNX files need are installed."""
    return all(importlib.util.find_spec(name) for name in _PACKAGES)


def make_onnx(models: Sequence[LoadedModel], description: Description) -> bytes:
    """Makes the content of an ONNX file.

    Args:
        models: The networks, on the CPU; their probabilities are averaged.
        description: Of these models.

    Raises:
        BratsError: A package is missing, the network cannot be exported, or is too large.
    """
    _require(*_PACKAGES)
    spec = description.spec
    pixels = torch.zeros(2, spec.model.in_channels, spec.preparation.size, spec.preparation.size)
    network = _Average([model.network for model in models]).eval()
    try:
        with warnings.catch_warnings():  # of the exporter's own code
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (pixels,),
                input_names=["pixels"],
                output_names=["logits", "labels"] if spec.labels else ["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
        assert program is not None
        proto = program.model_proto
    except Exception as error:  # the exporter raises nearly anything for what it cannot express
        raise BratsError(
            f"{spec.model.architecture} with the encoder {spec.model.encoder} cannot be exported "
            f"to ONNX ({first_line(error)}). --format hub takes any network."
        ) from error
    _drop_traces(proto)
    for key, value in (
        (_DESCRIPTION, canonical_json(description.pack())),
        (_DIGEST, (_MARK + b"0" * 32).decode()),
    ):
        proto.metadata_props.add(key=key, value=value)
    if proto.ByteSize() > MAX_BYTES:
        raise BratsError(
            f"an ONNX file holds at most 2 GiB, and {len(models)} networks need "
            f"{proto.ByteSize():,} bytes. Export fewer, or use --format hub."
        )
    content: bytes = proto.SerializeToString()
    stamp = list(_STAMP.finditer(content))[-1]
    return content[: stamp.start(1)] + _digest(content, stamp) + content[stamp.end(1) :]


def load_onnx(path: Path) -> LoadedModel:
    """Reads an ONNX file of `brats export`. It is computed on the CPU.

    Raises:
        BratsError: onnxruntime is not installed.
        CheckpointError: It is no such file, or not as it was written.
    """
    try:
        with open_regular_file(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{printable(path)}: cannot be read ({error.strerror}).") from error
    return parse_onnx(content, path)


def parse_onnx(content: bytes, path: Path) -> LoadedModel:
    """Makes a network of the content of an ONNX file.

    Args:
        content: As `make_onnx` makes it.
        path: Where it lies, for messages.

    Raises:
        BratsError: As `load_onnx`.
    """
    (onnxruntime,) = _require("onnxruntime")
    stamps = list(_STAMP.finditer(content))
    if not stamps:
        raise CheckpointError(
            f"{printable(path)}: not an ONNX file of brats export, which tells how scans are "
            "prepared: it has no digest. Make one with brats export --format onnx."
        )
    if stamps[-1][1] != _digest(content, stamps[-1]):
        raise CheckpointError(
            f"{printable(path)}: damaged or changed: it does not have the digest that it was "
            f"exported with. {_AGAIN}"
        )
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        texts = session.get_modelmeta().custom_metadata_map
        description = Description.unpack(json.loads(texts[_DESCRIPTION]))
    except Exception as error:  # onnxruntime's own, and what json and the description raise
        raise CheckpointError(
            f"{printable(path)}: cannot be used by onnxruntime {onnxruntime.__version__} "
            f"({first_line(error)}). {_AGAIN}"
        ) from error
    return LoadedModel(
        spec=description.spec,
        network=_OnnxNetwork(session, description.spec, path).eval(),
        path=path,
        fingerprint=xxhash.xxh3_64_hexdigest(content),
    )


class _OnnxNetwork(nn.Module):
    """A session of onnxruntime as a network of torch."""

    def __init__(self, session: Any, spec: SegmenterSpec, path: Path) -> None:
        super().__init__()
        self._session, self._path = session, path
        self._num_classes = [one for one in (len(spec.regions), len(spec.labels)) if one]

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What `build_model`'s networks return, on the device of the pixels.

        Raises:
            CheckpointError: The graph is another than the file says of it.
        """
        values = pixels.detach().cpu().contiguous().numpy()
        try:
            outputs = self._session.run(None, {"pixels": values})
        except Exception as error:  # onnxruntime's own
            raise self._unfit(first_line(error)) from error
        num, _, *size = values.shape
        expected = [(num, classes) for classes in self._num_classes]
        expected[0] = (*expected[0], *size)
        found = [np.shape(output) for output in outputs]
        if found != expected:
            raise self._unfit(f"it gives {found} of {values.shape}, expected {expected}")
        tensors = tuple(torch.from_numpy(output).to(pixels.device) for output in outputs)
        return tensors if len(tensors) > 1 else tensors[0]

    def _unfit(self, found: str) -> CheckpointError:
        return CheckpointError(
            f"{printable(self._path)}: its graph is not what its description says ({found}). "
            f"{_AGAIN}"
        )


class _Average(nn.Module):
    """Networks whose probabilities are averaged, as logits."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        outputs = [split_output(network(pixels)) for network in self.networks]
        logits = _mean_logits([masks for masks, _ in outputs])
        labels = [label for _, label in outputs if label is not None]
        if not labels:
            return logits
        # A softmax of the logarithm of the mean probability, up to a constant, is that mean.
        return logits, torch.stack([one.log_softmax(1) for one in labels]).logsumexp(0)


def _mean_logits(logits: Sequence[Tensor]) -> Tensor:
    """The logits of the mean of several probabilities, each given by its logits."""
    if len(logits) == 1:
        return logits[0]
    # log(p / (1 - p)) of the mean p, from sums in logarithms that no logit can overflow.
    stack = torch.stack(list(logits))
    inside, outside = (F.logsigmoid(sign * stack).logsumexp(0) for sign in (1, -1))
    return inside - outside


def _require(*names: str) -> list[ModuleType]:
    """Imports the packages of the extra [onnx]. Raises `BratsError` where one is missing."""
    try:
        return [importlib.import_module(name) for name in names]
    except ImportError as error:
        raise BratsError(
            f"ONNX files need packages that are not installed ({first_line(error)}): "
            "pip install -e '.[onnx]' in the checkout."
        ) from error


def _drop_traces(proto: Any) -> None:
    """Removes what the exporter notes of the program, which names folders of this machine."""
    graph = proto.graph
    parts = [graph, *graph.node, *graph.input, *graph.output, *graph.value_info]
    for part in [*parts, *graph.initializer, *proto.functions]:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for function in proto.functions:
        for node in function.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")


def _digest(content: bytes, stamp: re.Match[bytes]) -> bytes:
    """xxh3_128 of a file without the 32 digits of the digest itself, as 32 hexadecimal digits."""
    state = xxhash.xxh3_128(content[: stamp.start(1)])
    state.update(content[stamp.end(1) :])
    return state.hexdigest().encode()
