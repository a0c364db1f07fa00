"""The description that an exported model carries, as JSON: all that using it needs but weights.

A folder of the hub's layout holds it as config.json, an ONNX file in its metadata. Keys that a
reader does not know are left aside, so that later versions may add some; what older programs must
not ignore needs a new `FORMAT_VERSION`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from brats_train.models.checkpoint import SegmenterSpec, unpack_spec
from brats_train.models.loaded_model import LoadedModel
from brats_train.models.looks import pool_looks
from brats_train.models.postprocessing import Postprocessing
from brats_train.runtime.settings import first_fault

__all__ = ["FORMAT", "Description", "Member", "canonical_json"]

FORMAT = "brats segmenter"
FORMAT_VERSION = 1


class _Training(BaseModel):
    """What is read of `Description.training`; others may stand there."""

    model_config = ConfigDict(strict=True)
    recipe: str | None = None
    rows: str = "all"
    fold: Annotated[int, Field(ge=0)] | Literal["all"] | None = None
    caches: list[str] = []
    num_cases: dict[str, int] = {}
    num_rows: dict[str, int] = {}
    versions: dict[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Member:
    """One of the networks of an exported model.

    Attributes:
        fold: The fold that it was not trained on, None for an ordinary run.
        fingerprint: Of the checkpoint that it was exported from.
        postprocessing: What follows it where it predicts alone.
    """

    fold: int | None
    fingerprint: str
    postprocessing: Postprocessing


@dataclass(frozen=True, kw_only=True)
class Description:
    """An exported model without its weights.

    Attributes:
        spec: What its networks have in common; its post-processing is that of their average.
        members: The networks, at least one.
        training: What the model was trained on, see `training.trained_on`; empty where that is not
            known.
    """

    spec: SegmenterSpec
    members: tuple[Member, ...]
    training: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, models: Sequence[LoadedModel], training: Mapping[str, Any]) -> Description:
        """Describes models that are averaged; they must fit together, see `ensemble.average`."""
        members = tuple(
            Member(
                fold=model.fold,
                fingerprint=model.fingerprint,
                postprocessing=model.spec.postprocessing,
            )
            for model in models
        )
        looks = pool_looks(model.spec.looks for model in models)
        spec = replace(_averaged(models[0].spec, members), looks=looks)
        return cls(spec=spec, members=members, training=training)

    def member_spec(self, number: int) -> SegmenterSpec:
        """The description of one network, with its own post-processing."""
        return replace(self.spec, postprocessing=self.members[number].postprocessing)

    def pack(self) -> dict[str, Any]:
        """Plain values for JSON."""
        packed = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "segmenter": asdict(self.spec),
            "members": [asdict(member) for member in self.members],
            "training": dict(self.training),
        }
        plain: dict[str, Any] = json.loads(json.dumps(packed, allow_nan=False))
        return plain

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> Description:
        """Undoes `pack`. Raises KeyError, TypeError, AttributeError or ValueError for all else."""
        if packed["format"] != FORMAT:
            raise ValueError(f"format {packed['format']!r}, expected {FORMAT!r}")
        if packed["format_version"] != FORMAT_VERSION:
            raise ValueError(
                f"format version {packed['format_version']!r}, expected {FORMAT_VERSION}"
            )
        members = tuple(
            Member(
                fold=one["fold"],
                fingerprint=str(one["fingerprint"]),
                postprocessing=Postprocessing.unpack(one["postprocessing"]),
            )
            for one in packed["members"]
        )
        if not members:
            raise ValueError("no members")
        training = dict(packed["training"])
        try:
            _Training.model_validate(training)
        except ValidationError as error:
            raise ValueError(f"training.{first_fault(error)}") from None
        return cls(
            spec=_averaged(unpack_spec(packed["segmenter"]), members),
            members=members,
            training=training,
        )


def canonical_json(values: Mapping[str, Any]) -> str:
    """JSON that is equal for equal values, whatever the order of their keys."""
    return json.dumps(values, sort_keys=True, allow_nan=False)


def _averaged(spec: SegmenterSpec, members: Sequence[Member]) -> SegmenterSpec:
    rules = Postprocessing.mean([member.postprocessing for member in members], spec.regions)
    return replace(spec, postprocessing=rules)
