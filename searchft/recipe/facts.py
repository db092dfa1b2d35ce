"""What backbones and data really are: plain data, found once before a study exists and kept with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from searchft.machine import Processor
from searchft.recipe.fields import architecture_now
from searchft.wording import to_plain, to_tuples


@dataclass(frozen=True)
class ParameterFacts:
    """One parameter tensor of a backbone (the replaced head's are not listed)."""

    name: str
    size: int
    stage: str
    kind: str
    """`weight`, `bias`, `norm_weight`, `norm_bias`, `other` (tokens, position embeddings, layer scales), or `adapter`: a side
    branch that is there to be trained, whatever is open."""


@dataclass(frozen=True)
class StageFacts:
    """One stage: its name and the modules (dotted prefixes) that belong to it, in order of execution."""

    name: str
    modules: tuple[str, ...]


@dataclass(frozen=True)
class BackboneFacts:
    """What a backbone with given weights, edits and `head_replaces` really is."""

    backbone: str
    weights: str
    """What was really loaded (after a fallback): never what was only wished for."""
    weights_sha256: str
    """Of the weights file; `random:SEED` for random weights."""
    weights_source: str
    """Where they came from, for people: a path, a package, or `random`."""
    fell_back: str
    """Why the fallback was taken, if it was."""
    stages: tuple[StageFacts, ...]
    """Stem first; the head is not among them."""
    parameters: tuple[ParameterFacts, ...]
    """Ordered by stage, then as in the model."""
    batch_norms: tuple[tuple[str, str], ...]
    """(module, stage) of every BatchNorm with running statistics, in the same order."""
    head: str
    """Dotted name of the module that our head replaces."""
    num_features: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    input_size: int
    """Side in pixels that the weights were trained at."""
    has_auxiliary_heads: bool = False
    notes: tuple[str, ...] = ()
    """For a person: a head dropped from a weights file, and the like."""
    depthwise_weights: tuple[str, ...] = ()
    """Names of the weights of depthwise convolutions (as many groups as input channels)."""

    @cached_property
    def depthwise(self) -> frozenset[str]:
        return frozenset(self.depthwise_weights)

    @cached_property
    def stage_names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)

    @cached_property
    def kinds(self) -> Mapping[str, str]:
        """Parameter name to kind."""
        return {p.name: p.kind for p in self.parameters}

    @cached_property
    def openings(self) -> dict[Any, Any]:
        """Memo of `open_parameters`: the driver asks for the same few openings thousands of times."""
        return {}


@dataclass(frozen=True)
class DataFacts:
    """What the data really are."""

    source: str
    fingerprint: str
    """Digest of the decoded images, labels, split and preprocessing."""
    classes: tuple[str, ...]
    counts: tuple[tuple[str, tuple[int, ...]], ...]
    """(split, images per class in the order of `classes`)."""
    unreadable: tuple[str, ...] = ()
    leaks: tuple[tuple[str, ...], ...] = ()
    """Groups of byte-identical images that stand in more than one split."""
    notes: tuple[str, ...] = ()

    def size(self, split: str) -> int:
        """Number of images of a split; 0 where there is none."""
        return sum(dict(self.counts).get(split, ()))

    @property
    def train_size(self) -> int:
        return self.size("train")


@dataclass(frozen=True)
class SpaceFacts:
    """What a space's backbones, weights and data really are. Made once by `searchft.facts.describe`."""

    data: DataFacts
    backbones: Mapping[str, BackboneFacts]
    """By `Recipe.architecture()`."""
    processor: Processor = field(default_factory=Processor)
    """What the study's numbers are computed on, found when it was created: going on elsewhere changes no numerics."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data; `from_json` gives equal facts back."""
        return to_plain(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SpaceFacts:
        """The facts that `to_json` wrote, here or in a study of an earlier version."""

        def backbone(raw: Mapping[str, Any]) -> BackboneFacts:
            values = {name: to_tuples(value) for name, value in raw.items()}
            values["stages"] = tuple(StageFacts(s["name"], tuple(s["modules"])) for s in raw["stages"])
            values["parameters"] = tuple(ParameterFacts(**p) for p in raw["parameters"])
            return BackboneFacts(**values)

        return cls(
            data=DataFacts(**{name: to_tuples(value) for name, value in data["data"].items()}),
            backbones={architecture_now(name): backbone(raw) for name, raw in data["backbones"].items()},
            processor=Processor(**data.get("processor", {})),
        )
