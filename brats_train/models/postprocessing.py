"""The rules that turn a model's probabilities into masks, by region; no torch here."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from brats_train.runtime.settings import SETTINGS

__all__ = ["Postprocessing", "RegionRule"]

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class RegionRule:
    """How the probabilities of one region become its mask.

    Attributes:
        threshold: Probability from which a voxel belongs to the region, 0 to 1.
        min_component_share: 26-connected components smaller than this share of the largest are
            dropped, 0 to 1; 0 for none.
        min_component_voxels: Smaller components are dropped; 0 for none. Older versions chose it.
        min_voxels: A region that has fewer voxels in all is left empty. What was enhancing tumour
            is then tumour core, as winners of the BraTS challenge do (Isensee et al. 2018,
            arXiv:1809.10483).
    """

    threshold: Share = 0.5
    min_component_share: Share = 0.0
    min_component_voxels: Count = 0
    min_voxels: Count = 0


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Postprocessing:
    """What follows the network.

    Attributes:
        tta: Whether probabilities are averaged over flips (test-time augmentation).
        rules: By region; one that is not named has the rule's defaults.
    """

    tta: bool = False
    rules: Mapping[str, RegionRule] = field(default_factory=dict)

    def rule(self, region: str) -> RegionRule:
        """The rule of a region."""
        return self.rules.get(region, RegionRule())

    def with_threshold(self, threshold: float, regions: Sequence[str]) -> Postprocessing:
        """A copy with one threshold for all regions."""
        rules = {region: replace(self.rule(region), threshold=threshold) for region in regions}
        return replace(self, rules=rules)

    @classmethod
    def mean(cls, several: Sequence[Postprocessing], regions: Sequence[str]) -> Postprocessing:
        """What an average of models takes: mean thresholds and sizes, and flips where any does."""
        if len(several) == 1:
            return several[0]
        rules = {}
        for region in regions:
            theirs = [one.rule(region) for one in several]
            rules[region] = RegionRule(
                threshold=statistics.fmean(rule.threshold for rule in theirs),
                min_component_share=statistics.fmean(rule.min_component_share for rule in theirs),
                min_component_voxels=round(
                    statistics.fmean(rule.min_component_voxels for rule in theirs)
                ),
                min_voxels=round(statistics.fmean(rule.min_voxels for rule in theirs)),
            )
        return cls(tta=any(one.tta for one in several), rules=rules)

    @classmethod
    def unpack(cls, values: Mapping[str, Any]) -> Postprocessing:
        """Undoes `dataclasses.asdict`. Raises KeyError, TypeError or ValueError for all else."""
        rules = {region: RegionRule(**rule) for region, rule in values["rules"].items()}
        return cls(tta=bool(values["tta"]), rules=rules)

    @classmethod
    def unpack_flat(cls, values: Mapping[str, Any], regions: Sequence[str]) -> Postprocessing:
        """Of checkpoints and summaries of older versions, whose one rule stood for all regions."""
        rule = RegionRule(
            threshold=values["threshold"], min_component_voxels=values["min_component_voxels"]
        )
        return cls(tta=values["tta"], rules=dict.fromkeys(regions, rule))

    def describe(self, regions: Sequence[str]) -> str:
        """The rules in words, those of several regions one after another."""
        texts = {region: _describe(self.rule(region)) for region in regions}
        if len(set(texts.values())) == 1:
            text = next(iter(texts.values()))
        else:
            text = "; ".join(f"{region.upper()} {text}" for region, text in texts.items())
        return f"{text}{', averaged over flips' if self.tta else ''}"


def _describe(rule: RegionRule) -> str:
    text = f"threshold {rule.threshold:g}"
    if rule.min_component_share:
        text += f", components below {rule.min_component_share:g} of the largest dropped"
    if rule.min_component_voxels:
        text += f", components below {rule.min_component_voxels} voxels dropped"
    if rule.min_voxels:
        text += f", empty below {rule.min_voxels} voxels"
    return text
