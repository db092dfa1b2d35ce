"""What backbones and data really are: plain data, found once before a study exists and kept with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class ParameterFacts:
    """One parameter tensor of a backbone (the replaced head's are not listed)."""

    name: str
    size: int
    """Number of elements."""
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
    """Why the fallback was taken; empty: it was not."""
    stages: tuple[StageFacts, ...]
    """Stem first; the head is not among them."""
    parameters: tuple[ParameterFacts, ...]
    """Ordered by stage, then as in the model."""
    batch_norms: tuple[tuple[str, str], ...]
    """(module, stage) of every BatchNorm with running statistics, in the same order."""
    head: str
    """Dotted name of the module that our head replaces."""
    num_features: int
    """Inputs of the head."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    input_size: int
    """The side in pixels that the weights were trained at."""
    has_auxiliary_heads: bool = False
    notes: tuple[str, ...] = ()
    """Facts a person should read: a head dropped from a weights file, and the like."""

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


def digest(value: Any) -> str:
    """SHA-256 in hex of a JSON-able value; keys sorted, so equal values have equal digests."""
    text = json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def to_plain(value: Any) -> Any:
    """As plain JSON data: tuples as lists."""
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return value


def to_tuples(value: Any) -> Any:
    """Back: lists as tuples."""
    return tuple(to_tuples(item) for item in value) if isinstance(value, list | tuple) else value
