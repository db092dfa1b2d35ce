"""How far training moved each open layer from its pretrained values: |after - before| / |before|.

Says whether opening a layer did anything, and whether a rate was so high that what had been learnt was overwritten.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from searchft.recipe import Recipe, SpaceFacts, open_parameters


@dataclass(frozen=True)
class Drift:
    """One open layer."""

    layer: str
    """The module."""
    stage: str
    change: float
    """Norm of the difference over the norm of the pretrained values, of the layer's parameters together."""
    parameters: int


def drift(recipe: Recipe, facts: SpaceFacts, delta: Path) -> list[Drift]:
    """The open layers of a trial in the network's order; the head, which had no pretrained values, is left out.

    `delta` is the trial's best.safetensors. Raises FileNotFoundError where it is gone, InputError where the pretrained
    weights are.
    """
    from safetensors.torch import load_file

    from searchft.models import build_model

    backbone = facts.backbones[recipe.architecture()]
    opened = open_parameters(recipe, backbone).parameters
    if not opened:
        return []
    after = load_file(delta)
    model = build_model(recipe, backbone, len(facts.data.classes), head_seed=recipe.seed)
    before = model.state_dict()
    stages = {p.name: p.stage for p in backbone.parameters}
    moved: dict[str, list[float]] = {}
    where: dict[str, str] = {}
    for name in opened:
        if name not in after or name not in before:
            continue
        layer = name.rpartition(".")[0] or name
        old, new = before[name].double(), after[name].double()
        sums = moved.setdefault(layer, [0.0, 0.0, 0.0])
        sums[0] += float((new - old).square().sum())
        sums[1] += float(old.square().sum())
        sums[2] += old.numel()
        where.setdefault(layer, stages.get(name, ""))
    return [
        Drift(layer, where[layer], (d / b) ** 0.5 if b else float("inf") if d else 0.0, int(n))
        for layer, (d, b, n) in moved.items()
    ]
