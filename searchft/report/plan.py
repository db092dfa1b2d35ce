"""What a run would do, worked out beforehand: per group of configurations what trains, what it remembers, keeps and takes.

A group is what shares a network and an opening: its configurations differ in head, rates and batch size only. Times are
measured on the spot, on a few images and at most one step per group, so they hold for this machine as it is now;
whoever plans on a busy machine gets a busy machine's answer.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from searchft.features import Split, split_model
from searchft.models import set_modes
from searchft.recipe import Recipe, ResolvedTrial, SpaceFacts, open_parameters, resolve, trained_parameters
from searchft.space import Space
from searchft.train.memory import Keeping, keeping_of, saved_bytes, training_model

BATCHES = (1, 64)
"""Batch sizes that activation memory is told for."""
MEASURED_IMAGES = 4
MOST_CONFIGURATIONS = 20_000
"""A larger space is sampled: its enqueued rows and so many of its first configurations."""


@dataclass
class Group:
    """Configurations that share a network and an opening."""

    name: str
    """`torchvision/resnet18, layer4 open`."""
    trial: ResolvedTrial
    """One of them."""
    configurations: int = 0
    fewest: int = 0
    """Trained parameters with the smallest head among them."""
    most: int = 0
    frozen: int = 0
    """Backbone parameters that do not train."""
    epochs: float = 0.0
    """Mean over its configurations."""
    activations: dict[int, int] = dataclasses.field(default_factory=dict)
    """Batch size to bytes that autograd keeps."""
    stored_bytes: int = 0
    """Of the frozen part's values of all train and validation images, as far as they are stored."""
    keeping: Keeping | None = None
    """What a study created now would keep, and why; None: not looked at yet."""
    store_name: str = ""
    """Equal for groups that share their stored values."""
    epoch_s: float | None = None
    """Measured length of an epoch; None: not measured."""
    first_s: float = 0.0
    """Measured length of the one pass through the frozen part."""


def groups_of(space: Space, facts: SpaceFacts) -> tuple[list[Group], int | None]:
    """The groups in the order of the space's configurations, and how many distinct configurations there are.

    The number is None for a space beyond MOST_CONFIGURATIONS combinations, whose enqueued rows alone are grouped then.
    """
    groups: dict[tuple[str, str], Group] = {}
    every = space.size() <= MOST_CONFIGURATIONS
    recipes = [recipe for _, recipe in space.recipes(facts)] if every else list(_rows(space))
    for recipe in recipes:
        backbone = facts.backbones[recipe.architecture()]
        opening = open_parameters(recipe, backbone)
        count = trained_parameters(recipe, facts)
        found = groups.get((recipe.architecture(), opening.digest))
        if found is None:
            total = sum(p.size for p in backbone.parameters)
            open_size = sum(p.size for p in backbone.parameters if p.name in set(opening.parameters))
            trial = resolve(recipe, facts)
            found = Group(_name(trial), trial, fewest=count, most=count, frozen=total - open_size)
            groups[recipe.architecture(), opening.digest] = found
        found.configurations += 1
        found.fewest, found.most = min(found.fewest, count), max(found.most, count)
        found.epochs += recipe.epochs
    for group in groups.values():
        group.epochs /= group.configurations
    return list(groups.values()), len(recipes) if every else None


def measure(groups: list[Group], space: Space, facts: SpaceFacts, store: Path, budget_s: float) -> None:
    """Fills in memory, storage and times, group by group. Beyond `budget_s` seconds no more times are measured.

    `store` is the feature store's folder.
    """
    started = time.perf_counter()
    side, classes = space.data.image_size, len(facts.data.classes)
    for group in groups:
        trial = group.trial
        model = training_model(trial.recipe, trial.backbone, trial.opening, classes)
        group.activations = {batch: saved_bytes(model, side, batch, classes) for batch in BATCHES}
        split = _split(model, trial, side)
        dtype = getattr(torch, trial.numerics.frozen_dtype)
        size = split.bytes_per_image(dtype) if split.prefix is not None else 0
        group.keeping = keeping_of(size, trial.recipe, facts.data, store, split.reason)
        if group.keeping.keep != "recompute":
            # The digest is of the operations; different weights behind the same operations are another store.
            group.store_name, group.stored_bytes = f"{split.digest}:{trial.recipe.architecture()}", group.keeping.size_bytes
        if time.perf_counter() - started < budget_s:
            _measure_times(group, model, split, facts, side)


def study_seconds(space: Space, groups: list[Group], distinct: int | None) -> float | None:
    """How long the search would take without pruning on one worker like this process; None if a group was not measured."""
    if not groups or any(group.epoch_s is None for group in groups):
        return None
    trials = min(space.search.trials, distinct) if distinct is not None else space.search.trials
    weights = sum(group.configurations for group in groups)
    mean = sum((group.epoch_s or 0.0) * group.epochs * group.configurations for group in groups) / weights
    firsts = {group.store_name: group.first_s for group in groups if group.store_name}
    return trials * mean + sum(firsts.values())


def stored_bytes(groups: list[Group]) -> int:
    """Bytes of the feature store once every group has run; values that groups share count once."""
    return sum({group.store_name: group.stored_bytes for group in groups if group.store_name}.values())


def _rows(space: Space) -> Iterator[Recipe]:
    for row in space.enqueue:
        yield space.resolve(row.chosen)
    if not space.enqueue:
        yield space.resolve({})


def _name(trial: ResolvedTrial) -> str:
    recipe, canonical = trial.recipe, trial.canonical
    parts = [f"{recipe.backbone}, {_opened(canonical)} open"]
    if recipe.parameters != "all" and trial.opening.parameters:
        parts.append(f"{recipe.parameters} only")
    if recipe.adapters != "none":
        parts.append(recipe.adapters)
    if canonical.weights == "none":
        parts.append("random weights")
    if recipe.normalization != "weights":
        parts.append("pixels from 0 to 1")
    if recipe.own_edits():
        parts.append(f"{len(recipe.own_edits())} edits")
    return ", ".join(parts)


def _opened(canonical: Recipe) -> str:
    if canonical.unfrozen_tensors is not None:
        return f"last {canonical.unfrozen_tensors} tensors"
    return "+".join(canonical.stages) if canonical.stages is not None else str(canonical.unfrozen)


def _split(model: nn.Module, trial: ResolvedTrial, side: int) -> Split:
    example = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    modes = functools.partial(set_modes, model, trial.backbone, trial.opening)
    return split_model(model, modes, example, leaves=(trial.backbone.head,))


def _measure_times(group: Group, model: nn.Module, split: Split, facts: SpaceFacts, side: int) -> None:
    """One forward pass of the frozen part and one training step of the rest, after one of each to warm up."""
    images = torch.randn(MEASURED_IMAGES, 3, side, side, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(MEASURED_IMAGES, dtype=torch.int64)
    trained = [p for p in model.parameters() if p.requires_grad]

    def through() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(split.prefix(images)) if split.prefix is not None else (images,)

    values = through()
    prefix_s = _time(through) if split.prefix is not None else 0.0

    def step() -> None:
        out = split.suffix.select(True)(*values)
        logits = out[0] if isinstance(out, tuple) else out
        torch.autograd.grad(F.cross_entropy(logits, labels), trained, allow_unused=True)

    def look() -> None:
        with torch.no_grad():
            split.suffix.select(False)(*values)

    step()
    look()
    train, val = facts.data.size("train"), facts.data.size("val")
    group.epoch_s = (_time(step) * train + _time(look) * val) / MEASURED_IMAGES
    if group.store_name:
        group.first_s = prefix_s * (train + val) / MEASURED_IMAGES
    else:
        group.epoch_s += prefix_s * (train + val) / MEASURED_IMAGES


def _time(run: object) -> float:
    assert callable(run)
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
