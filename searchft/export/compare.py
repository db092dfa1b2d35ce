"""How far two networks' parameters lie apart, tensor by tensor: relative change |b - a| / |a|, and the cosine between a and b.

Two exports are compared by name; against `pretrained`, an export is compared with the weights it started from, which have no head.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from searchft.errors import InputError
from searchft.export.load import load_exported, read_config

PRETRAINED = "pretrained"
"""The word for the weights that an export started from."""


@dataclass(frozen=True)
class Row:
    """One parameter tensor, `layer.kind` by name."""

    layer: str
    kind: str
    size: int
    relative_change: float
    """|b - a| / |a|; infinite where a is zero and b is not."""
    cosine: float
    """NaN where a or b is zero."""


@dataclass(frozen=True)
class Comparison:
    """All rows in the order of the network, and the names that could not be compared."""

    a: str
    b: str
    rows: tuple[Row, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    other_shape: tuple[str, ...]

    def summary(self) -> dict[str, dict[str, float]]:
        """Median relative change and cosine of weights and of biases, where they are numbers."""
        kinds = {kind: [row for row in self.rows if row.kind == kind] for kind in ("weight", "bias")}
        return {
            kind: {
                "tensors": float(len(rows)),
                "median_relative_change": _median(row.relative_change for row in rows),
                "median_cosine": _median(row.cosine for row in rows),
            }
            for kind, rows in kinds.items()
        }

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data; infinities and NaN become null on output."""
        return {**asdict(self), "summary": self.summary()}


def compare(a: str, b: str) -> Comparison:
    """Compares two exported folders, or one with `pretrained` (in either place).

    Raises InputError where a folder is no export, both are `pretrained`, or the starting weights cannot be had (any more).
    """
    if a == PRETRAINED and b == PRETRAINED:
        raise InputError("must name at least one exported folder beside pretrained", "A B")
    return compare_parameters(_load_parameters(a, b), _load_parameters(b, a), a, b)


def compare_parameters(first: Mapping[str, Tensor], second: Mapping[str, Tensor], a: str = "a", b: str = "b") -> Comparison:
    """As `compare`, from tensors by name; the order is the first's."""
    common = [name for name in first if name in second]
    other = [name for name in common if first[name].shape != second[name].shape]
    rows = [_compare_tensors(name, first[name], second[name]) for name in common if name not in other]
    only_in_a, only_in_b = (tuple(n for n in x if n not in y) for x, y in ((first, second), (second, first)))
    return Comparison(a, b, tuple(rows), only_in_a, only_in_b, tuple(other))


def _compare_tensors(name: str, a: Tensor, b: Tensor) -> Row:
    layer, _, kind = name.rpartition(".")
    x, y = a.detach().double().flatten(), b.detach().double().flatten()
    size_x, size_y, apart = float(x.norm()), float(y.norm()), float((y - x).norm())
    change = apart / size_x if size_x else math.inf if apart else 0.0
    return Row(layer, kind, a.numel(), change, float(torch.dot(x / size_x, y / size_y)) if size_x and size_y else math.nan)


def _load_parameters(side: str, other: str) -> dict[str, Tensor]:
    """Parameters by name of an export, or of the weights that the other one started from."""
    if side != PRETRAINED:
        model, _ = load_exported(Path(side))
        return {name: parameter.detach() for name, parameter in model.named_parameters()}
    from searchft.models import build_model, describe_backbone
    from searchft.models.weights import random_seed
    from searchft.recipe import Recipe

    config = read_config(Path(other))
    recipe, wanted = Recipe.from_json(config["recipe"]), config["weights"]["sha256"]
    seed = random_seed(wanted)
    facts = describe_backbone(recipe, recipe.seed if seed is None else seed)
    if facts.weights_sha256 != wanted:
        here = f"the ones here ({facts.weights_sha256[:12]}): they cannot be compared with"
        raise InputError(f"started from weights (SHA-256 {wanted[:12]}) that are not {here}", other)
    model = build_model(recipe, facts, 2, 0)
    return {name: p.detach() for name, p in model.named_parameters() if not name.startswith(facts.head + ".")}


def _median(values: Iterable[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return statistics.median(finite) if finite else math.nan


def draw(comparison: Comparison, path: Path) -> None:
    """Writes a figure: relative change and cosine of every layer's weights and biases, in order. PNG, SVG or PDF by name.

    Raises InputError where the file's kind is unknown.
    """
    from matplotlib.figure import Figure

    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError(f"must end in .png, .svg or .pdf but got {path.name!r}", "--figure")
    layers = list(dict.fromkeys(row.layer for row in comparison.rows))
    place = {layer: i for i, layer in enumerate(layers)}
    figure = Figure(figsize=(max(8.0, min(30.0, len(layers) * 0.22)), 7.0), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    for kind, mark in (("weight", "o"), ("bias", "x")):
        rows = [row for row in comparison.rows if row.kind == kind]
        places = [place[row.layer] for row in rows]
        top.plot(places, [row.relative_change for row in rows], mark, markersize=4, label=kind)
        bottom.plot(places, [row.cosine for row in rows], mark, markersize=4, label=kind)
    top.set(ylabel="relative change", title=f"{comparison.a} against {comparison.b}")
    top.legend()
    bottom.set(ylabel="cosine similarity", ylim=(-1.05, 1.05))
    bottom.set_xticks(range(len(layers)), layers, rotation=90, fontsize=6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
