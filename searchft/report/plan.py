"""What a run would do, worked out beforehand: per group of configurations what trains, and what it keeps and takes.

A group shares a network and an opening: its configurations differ in head, rates and batch size only. Times are measured
on the spot, on a few images and at most one step per group, so they hold for this machine as it is now.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from searchft.features import Split, split_model
from searchft.models import set_modes
from searchft.recipe import ResolvedTrial, SpaceFacts, open_parameters, resolve, trained_parameters
from searchft.report.formats import count_text, duration_text, size_text
from searchft.report.words import data_in_words, opening_in_words, varying_fields, weights_in_words, weights_warnings
from searchft.space import Space
from searchft.train.memory import Keeping, explain, keeping_of, saved_bytes, training_model

BATCHES = (1, 64)  # batch sizes whose activation memory is worked out
MEASURED_IMAGES = 4
MOST_CONFIGURATIONS = 20_000  # of a larger space only the enqueued rows are grouped


COLUMNS = ("group", "configs", "trained", "frozen", f"mem@{BATCHES[-1]}", "stored", "epoch")


@dataclass
class Group:
    """Configurations that share a network and an opening."""

    name: str  # `torchvision/resnet18, last stage open`
    trial: ResolvedTrial  # one of them
    frozen: int  # backbone parameters that do not train
    heads: list[int] = dataclasses.field(default_factory=list)  # trained parameters of each configuration
    epochs: int = 0  # of all its configurations
    activations: dict[int, int] = dataclasses.field(default_factory=dict)  # batch size to bytes that autograd keeps
    keeping: Keeping | None = None  # what a study created now would keep, and why; None: not looked at yet
    stored_bytes: int = 0  # of the frozen part's values of all train and validation images, as far as they are stored
    store_name: str = ""  # equal for groups that share their stored values; empty: nothing is stored
    epoch_s: float | None = None  # measured length of an epoch; None: not measured
    first_s: float = 0.0  # measured length of the one pass through the frozen part


def groups_of(space: Space, facts: SpaceFacts) -> tuple[list[Group], int | None]:
    """The groups in the order of the space's configurations, and how many distinct configurations there are.

    The number is None for a space beyond MOST_CONFIGURATIONS combinations, whose enqueued rows alone are grouped then.
    """
    groups: dict[tuple[str, str], Group] = {}
    every, varying = space.size() <= MOST_CONFIGURATIONS, varying_fields(space)
    if every:
        recipes = [recipe for _, recipe in space.recipes(facts)]
    else:
        recipes = [space.resolve(row.chosen) for row in space.enqueue] or [space.resolve({})]
    for recipe in recipes:
        key = recipe.architecture(), open_parameters(recipe, facts.backbones[recipe.architecture()]).digest
        if key not in groups:
            trial = resolve(recipe, facts)
            opened = set(trial.opening.parameters)
            frozen = sum(p.size for p in trial.backbone.parameters if p.name not in opened)
            parts = [recipe.backbone, opening_in_words(recipe, facts, varying & {"norm"})]
            parts += [recipe.adapters] if recipe.adapters != "none" else []
            parts += ["random weights"] if trial.canonical.weights == "none" else []
            parts += ["pixels from 0 to 1"] if recipe.normalization != "weights" else []
            parts += [f"{len(recipe.own_edits())} edits"] if recipe.own_edits() else []
            groups[key] = Group(", ".join(parts), trial, frozen)
        groups[key].heads.append(trained_parameters(recipe, facts))
        groups[key].epochs += recipe.epochs
    return list(groups.values()), len(recipes) if every else None


def measure(groups: list[Group], space: Space, facts: SpaceFacts, store: Path, budget_s: float) -> None:
    """Fills in memory, storage and times, group by group. Beyond `budget_s` seconds no more times are measured.

    `store` is the feature store's folder.
    """
    started = time.perf_counter()
    side, classes = space.data.image_size, len(facts.data.classes)
    example = torch.randn(MEASURED_IMAGES, 3, side, side, generator=torch.Generator().manual_seed(0))
    for group in groups:
        trial = group.trial
        model = training_model(trial.recipe, trial.backbone, trial.opening, classes)
        group.activations = {batch: saved_bytes(model, side, batch, classes) for batch in BATCHES}
        modes = functools.partial(set_modes, model, trial.backbone, trial.opening)
        split = split_model(model, modes, example[:2], leaves=(trial.backbone.head,))
        size = split.bytes_per_image(getattr(torch, trial.numerics.frozen_dtype)) if split.prefix is not None else 0
        group.keeping = keeping_of(size, trial.recipe, facts.data, store, split.reason)
        if group.keeping.keep != "recompute":
            # The digest is of the operations; different weights behind the same operations are another store.
            group.store_name, group.stored_bytes = f"{split.digest}:{trial.recipe.architecture()}", group.keeping.size_bytes
        if time.perf_counter() - started < budget_s:
            _measure_times(group, model, split, facts, example)


def study_seconds(space: Space, groups: list[Group], distinct: int | None) -> float | None:
    """How long the search would take without pruning on one worker like this process; None if a group was not measured."""
    if not groups or any(group.epoch_s is None for group in groups):
        return None
    trials = min(space.search.trials, distinct) if distinct is not None else space.search.trials
    mean = sum((group.epoch_s or 0.0) * group.epochs for group in groups) / sum(len(group.heads) for group in groups)
    firsts = {group.store_name: group.first_s for group in groups if group.store_name}
    return trials * mean + sum(firsts.values())


def stored_bytes(groups: list[Group]) -> int:
    """Bytes of the feature store once every group has run; values that groups share count once."""
    return sum({group.store_name: group.stored_bytes for group in groups if group.store_name}.values())


def _measure_times(group: Group, model: nn.Module, split: Split, facts: SpaceFacts, images: Tensor) -> None:
    """One forward pass of the frozen part and one training step of the rest, after one of each to warm up."""
    labels = torch.zeros(len(images), dtype=torch.int64)
    trained = [p for p in model.parameters() if p.requires_grad]

    @torch.no_grad()
    def run_prefix() -> tuple[Tensor, ...]:
        return tuple(split.prefix(images)) if split.prefix is not None else (images,)

    def train_step() -> None:
        out = split.suffix.select(True)(*values)
        logits = out[0] if isinstance(out, tuple) else out
        torch.autograd.grad(F.cross_entropy(logits, labels), trained, allow_unused=True)

    @torch.no_grad()
    def evaluate() -> None:
        split.suffix.select(False)(*values)

    values = run_prefix()
    prefix_s = _seconds(run_prefix) if split.prefix is not None else 0.0
    train_step()
    evaluate()
    train, val = facts.data.size("train"), facts.data.size("val")
    group.epoch_s = (_seconds(train_step) * train + _seconds(evaluate) * val) / len(images)
    first_s = prefix_s * (train + val) / len(images)
    if group.store_name:
        group.first_s = first_s
    else:
        group.epoch_s += first_s


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def head_lines(space: Space, facts: SpaceFacts, distinct: int | None) -> list[str]:
    """What would be searched, on what, from which weights."""
    lines = []
    for backbone in facts.backbones.values():
        head = f"head replaces {backbone.head} ({backbone.num_features} inputs)"
        lines.append(f"backbone  {backbone.backbone}, {weights_in_words(backbone)}")
        lines.append(f"          {backbone.backbone}: stages {', '.join(backbone.stage_names)}; {head}")
        lines += [f"          note: {note}" for note in backbone.notes]
    lines += [f"          {text}" for text in weights_warnings(space, facts)]
    shown = f"{distinct:,} that differ" if distinct is not None else "too many to count how many differ (rows alone below)"
    return [
        f"study     {space.name}: {space.search.trials} trials, sampler {space.search.sampler}, pruner {space.search.pruner}",
        f"data      {data_in_words(facts)}, {space.data.image_size} px",
        f"processor {facts.processor}",
        *dict.fromkeys(lines),
        f"space     {space.size():,} combinations, {shown}; {len(space.enqueue)} enqueued",
    ]


def group_rows(groups: list[Group]) -> list[list[str]]:
    """The cells of COLUMNS for each group; a backbone that all of them share is left out, it stands above already."""
    one = len({group.trial.recipe.backbone for group in groups}) == 1
    return [
        [
            group.name.removeprefix(f"{group.trial.recipe.backbone}, ") if one else group.name,
            str(len(group.heads)),
            "–".join(dict.fromkeys(count_text(count) for count in (min(group.heads), max(group.heads)))),
            count_text(group.frozen),
            size_text(group.activations[BATCHES[-1]]),
            size_text(group.stored_bytes) if group.store_name else "–",
            duration_text(group.epoch_s) if group.epoch_s is not None else "–",
        ]
        for group in groups
    ]


def foot_lines(space: Space, groups: list[Group], distinct: int | None, unknown: str) -> list[str]:
    """What the columns mean, how each group is computed, and what all of it takes; `unknown` says why no time is known."""
    seconds, batch = study_seconds(space, groups, distinct), BATCHES[-1]
    pace = "without pruning, on one worker like this, from one step of each group as this machine is now"
    return [
        f"trained, frozen: parameters; mem@{batch}: what autograd keeps for a step of {batch} images in float32",
        "stored: the frozen part's values of all train and val images; epoch: timed now, on this machine",
        *(f"computed  {explain(group.name, group.trial.rule, group.keeping)}" for group in groups if group.keeping),
        f"store     {size_text(stored_bytes(groups))} in all, shared by the groups that freeze the same part",
        f"length    {f'not known: {unknown}' if seconds is None else f'about {duration_text(seconds)} {pace}'}",
    ]


def plan_json(space: Space, facts: SpaceFacts, groups: list[Group], distinct: int | None, remarks: list[str]) -> dict[str, Any]:
    """What `plan --json` prints."""
    sizes = {split: facts.data.size(split) for split in ("train", "val", "test")}
    return {
        "study": space.name,
        "data": {"source": facts.data.source, "classes": len(facts.data.classes), "images": sizes},
        "backbones": [
            {
                **{"backbone": b.backbone, "weights": b.weights, "from": b.weights_source},
                **{"fell_back": b.fell_back, "stages": list(b.stage_names)},
            }
            for b in facts.backbones.values()
        ],
        "configurations": distinct,
        "trials": space.search.trials,
        "openings": [
            {
                **{"opening": g.name, "configurations": len(g.heads), "fewest": min(g.heads), "most": max(g.heads)},
                **{"frozen": g.frozen, "stored_bytes": g.stored_bytes},
                "activation_bytes": {str(batch): size for batch, size in g.activations.items()},
                "not_stored": "" if g.store_name or g.keeping is None else g.keeping.reason,
                "kept": g.keeping and {"keep": g.keeping.keep, "reason": g.keeping.reason},
                "numerics": dataclasses.asdict(g.trial.numerics),
                "epoch_seconds": g.epoch_s,
            }
            for g in groups
        ],
        "stored_bytes": stored_bytes(groups),
        "seconds": study_seconds(space, groups, distinct),
        "notes": remarks,
    }
