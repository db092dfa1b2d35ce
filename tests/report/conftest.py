"""A space, facts and records made by hand: what views show needs neither images nor a database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from searchft.recipe import DataFacts, ParameterFacts, SpaceFacts, StageFacts
from searchft.search.records import TrialRecord
from searchft.space import Space, parse_space
from tests import invented

SPACE = """
study: faces
data: {source: orl_faces, image_size: 32}
recipe:
  backbone: torchvision/resnet18
  weights: IMAGENET1K_V1
  weights_fallback: none
  unfrozen: [head, layer4, layer3, all]
  head_widths: [[], [256, 128]]
  dropout: [0.0, 0.5]
  batch_size: [64, 128]
  lr: [1e-3, 3e-4]
  lr_multipliers: {top: [1.0, 0.6], deep: [0.4, 0.1]}
  epochs: 20
search: {trials: 40}
"""


@pytest.fixture
def space() -> Space:
    return parse_space(SPACE)


@pytest.fixture
def facts(space: Space) -> SpaceFacts:
    stages = tuple(StageFacts(name, (name,)) for name in ("stem", "layer1", "layer2", "layer3", "layer4"))
    backbone = invented.backbone(
        "torchvision/resnet18",
        fell_back="/a/very/long/folder/checkpoints/resnet18-f37072fd.pth is not there and cannot be downloaded",
        stages=stages,
        parameters=tuple(ParameterFacts(f"{stage.name}.conv.weight", 100, stage.name, "weight") for stage in stages),
        batch_norms=(),
    )
    classes = tuple(f"s{i:02d}" for i in range(1, 41))
    data = DataFacts("orl_faces", "abc", classes, (("train", (2,) * 40), ("val", (3,) * 40), ("test", (5,) * 40)))
    return SpaceFacts(data, dict.fromkeys(space.architectures(), backbone))


@pytest.fixture
def make_record(space: Space, facts: SpaceFacts) -> Callable[..., TrialRecord]:
    """`make_record(number, state, value, curve, **chosen)`."""

    def make(number: int, state: str = "complete", value: float | None = None, curve: Any = (), **chosen: Any) -> TrialRecord:
        fields = {name: chosen.pop(name) for name in ("name", "answered_from", "reason", "seconds", "extra") if name in chosen}
        recipe = space.resolve(chosen)
        return TrialRecord(number, fields.pop("name", ""), state, {}, recipe, recipe.key(facts), value, tuple(curve), **fields)

    return make
