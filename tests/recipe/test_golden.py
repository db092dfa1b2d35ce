"""Keys that must never change by accident: a key that changes orphans every study that anybody has.

Where a change is meant (the same recipe computes something else now, or a default is another), raise KEY_VERSION and write
golden.json again: python -m tests.recipe.test_golden
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from searchft.recipe import KEY_VERSION, BackboneFacts, ParameterFacts, Recipe, SpaceFacts, StageFacts
from searchft.space import Space, load_space
from tests import invented

GOLDEN = Path(__file__).with_name("golden.json")
SPACES = Path(__file__).parents[2] / "spaces"
PATHS = sorted(SPACES.rglob("*.yaml"))
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


def facts_of(space: Space) -> SpaceFacts:
    """Invented: five stages with a convolution and a BatchNorm each, a side branch where there are adapters."""

    def backbone(recipe: Recipe) -> BackboneFacts:
        kinds = {"conv.weight": "weight", "conv.bias": "bias", "bn.weight": "norm_weight", "bn.bias": "norm_bias"}
        side = [ParameterFacts("layer4.side.weight", 8, "layer4", "adapter")] if recipe.adapters != "none" else []
        return invented.backbone(
            recipe.backbone,
            weights=recipe.weights,
            weights_sha256="0" * 64,
            stages=tuple(StageFacts(name, (name,)) for name in STAGES),
            parameters=(*(ParameterFacts(f"{s}.{n}", 4, s, kind) for s in STAGES for n, kind in kinds.items()), *side),
            batch_norms=tuple((f"{stage}.bn", stage) for stage in STAGES),
            has_auxiliary_heads="googlenet" in recipe.backbone,
        )

    return SpaceFacts(invented.data(), {name: backbone(recipe) for name, recipe in space.architectures().items()})


def keys_of(path: Path) -> dict[str, str]:
    """Keys of the first choice of everything, and of each enqueued row."""
    space = load_space(path)
    facts = facts_of(space)
    rows = {"first": {}} | {row.name: row.chosen for row in space.enqueue}
    return {name: space.resolve(chosen).key(facts) for name, chosen in rows.items()}


def golden() -> dict[str, Any]:
    return {
        "key_version": KEY_VERSION,
        "defaults": {name: value for name, value in Recipe("none").to_json().items() if name != "backbone"},
        "keys": {str(path.relative_to(SPACES)): keys_of(path) for path in PATHS},
    }


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(SPACES)))
def test_the_keys_of_a_shipped_space_are_what_they_were(path: Path) -> None:
    known = json.loads(GOLDEN.read_text())["keys"][str(path.relative_to(SPACES))]
    found = keys_of(path)
    assert found == known, f"keys changed: {[name for name in known if found.get(name) != known[name]]}"


def test_defaults_are_what_they_were() -> None:
    """A key leaves out what is at its default: another default would answer new recipes with old results."""
    known = json.loads(GOLDEN.read_text())
    assert known["key_version"] == KEY_VERSION
    now = golden()["defaults"]
    assert {name: now.get(name) for name in known["defaults"]} == known["defaults"]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
