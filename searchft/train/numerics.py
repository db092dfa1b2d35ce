"""What `precision: auto` means here, and what is worth keeping: measured once for each network and opening of a space.

The numerics decide numbers: they are measured when a study is created, recorded in its facts, and part of every key.
Running again, on this machine or another, does not measure again, nor does a later study on this machine that asks the same
(see `train.remembered`). Whether the frozen part's values are stored changes
no number; it is decided beside it, from the measured time per image.

On a CUDA card nothing is timed here (the driver never initialises CUDA): bfloat16 and channels_last are taken where
the workers' cards multiply bfloat16, which all since Ampere do.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F

from searchft.data.images import Images
from searchft.data.transforms import Preprocess
from searchft.features import (
    MICRO_BATCH,
    Candidate,
    Prefix,
    Split,
    Suffix,
    agrees,
    calibrate_prefix,
    calibrate_suffix,
    choose_cut,
    find_candidates,
    gathered_bytes_per_s,
    meets_small_maps,
    pad_first,
    padding_of,
    seconds_per_image,
    split_model,
)
from searchft.features.cut import MEMORY_BYTES_PER_S
from searchft.files import store_budget_bytes
from searchft.models import build_model, freeze, set_modes
from searchft.recipe import Keeping, Numerics, Opening, Recipe, SpaceFacts, keeping_name, numerics_name, open_parameters
from searchft.space import Space
from searchft.train.fit import head_alone
from searchft.train.remembered import Budget, Measurement, measurement_name, recall, remember

_BATCH = 16
"""Images that are timed together."""
_LONG_STEP_S = 0.02
"""Where a step on two images takes longer, steps are timed on half of them."""
_PREFIX_BUDGET_S = 0.7
_SUFFIX_BUDGET_S = 0.6

DECIDING = (
    *("strategy", "backbone", "weights", "weights_fallback", "edits", "head_replaces", "adapters", "auxiliary"),
    *("unfrozen", "stages", "unfrozen_tensors", "parameters", "norm", "normalization", "precision"),
)
"""The dimensions that decide network, opening and precision."""


@dataclass
class Measured:
    """By `numerics_name` and `keeping_name`, with a line for people about each opening."""

    numerics: dict[str, Numerics] = field(default_factory=dict)
    keeping: dict[str, Keeping] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(
    space: Space, facts: SpaceFacts, images: Images, store: Path, say: Callable[[str], None] = lambda text: None
) -> Measured:
    """Numerics and keeping for every network and opening of the space that `facts` do not know yet.

    Args:
        store: folder of the feature store: its disk's room counts. Measurements are kept beside it.
        say: told once, before the first measurement.

    Takes one to three seconds per opening on a CPU, and next to nothing where it was measured before.
    """
    found = Measured()
    prefix_ways: dict[str, Numerics] = {}
    unknown: dict[str, tuple[Recipe, Opening]] = {}
    for recipe, opening in _openings(space, facts):
        name = keeping_name(recipe, opening)
        if name not in facts.keeping:
            unknown.setdefault(name, (recipe, opening))
    known = {name: _recall(space, facts, recipe, opening, store) for name, (recipe, opening) in unknown.items()}
    for name, measurement in known.items():
        if measurement is not None and measurement.frozen_part is not None:
            prefix_ways.setdefault(unknown[name][0].architecture(), measurement.frozen_part)
    missing = sum(measurement is None for measurement in known.values())
    if missing:
        count = f"{missing} ways to open a network, " if missing > 1 else ""
        say(f"measuring what is fastest here: {count}a few seconds{' each' if count else ''}")
    for name, (recipe, opening) in unknown.items():
        measurement = known[name]
        if measurement is None:
            measurement = measure_opening(space, facts, recipe, opening, images, store, prefix_ways)
        found.keeping[name] = measurement.keeping
        if recipe.precision == "auto":
            found.numerics[numerics_name(recipe, opening)] = measurement.numerics
        found.notes.append(measurement.note)
    return found


def _beside(store: Path) -> Path:
    return store.parent / "calibrations"


def _recall(space: Space, facts: SpaceFacts, recipe: Recipe, opening: Opening, store: Path) -> Measurement | None:
    return recall(_beside(store), _name(space, facts, recipe, opening), _budget(store))


def _budget(store: Path) -> Budget:
    return Budget(psutil.virtual_memory().available // 2, store_budget_bytes(store))


def _name(space: Space, facts: SpaceFacts, recipe: Recipe, opening: Opening) -> str:
    """Stands for all that a measurement depends on, but for the budget."""
    backbone = facts.backbones[recipe.architecture()]
    asked = {
        "opening": keeping_name(recipe, opening),
        "precision": recipe.precision,
        "numerics": dataclasses.asdict(facts.numerics_for(recipe)) if recipe.precision != "auto" else None,
        "head": [backbone.head, list(recipe.head_widths), len(facts.data.classes)],
        "images": [space.data.image_size, facts.data.train_size, facts.data.size("val")],
        "augmented": [recipe.augments, recipe.augment_views],
        "passes": [recipe.epochs, list(_batch_sizes(space, recipe))],
    }
    return measurement_name(asked)


def _batch_sizes(space: Space, recipe: Recipe) -> Sequence[int]:
    return next((d.choices for d in space.dimensions if d.name == "batch_size"), (recipe.batch_size,))


def measure_opening(
    space: Space,
    facts: SpaceFacts,
    recipe: Recipe,
    opening: Opening,
    images: Images,
    store: Path,
    prefix_ways: dict[str, Numerics],
) -> Measurement:
    """Numerics, keeping and a line for people about one network and opening: as it was measured before, or measured now and kept.

    `prefix_ways` remembers by architecture how the frozen part runs fastest: its layers are the same at every depth.
    """
    known = _recall(space, facts, recipe, opening, store)
    if known is not None:
        return known
    architecture = recipe.architecture()
    backbone = facts.backbones[architecture]
    model = build_model(recipe, backbone, len(facts.data.classes), head_seed=0)
    freeze(model, backbone, opening)
    part, side = images.split("train"), space.data.image_size
    preprocess = Preprocess(backbone.mean, backbone.std, side, torch.device("cpu"), torch.float32, channels_last=False)
    batch = preprocess(torch.from_numpy(part.images[:_BATCH]))
    split = split_model(
        model,
        lambda training: set_modes(model, backbone, opening, training),
        preprocess(torch.from_numpy(part.images[:2])),
        leaves=(backbone.head,),
    )

    # The frozen part: how to run it
    numerics = facts.numerics_for(recipe) if recipe.precision != "auto" else Numerics()
    values: tuple[torch.Tensor, ...] = (batch,)
    if split.prefix is not None and recipe.precision == "auto":
        if architecture not in prefix_ways:
            prefix_ways[architecture] = calibrate_prefix(split.prefix, batch, budget_s=_PREFIX_BUDGET_S)
        numerics = prefix_ways[architecture]
    runner = Prefix(split.prefix, numerics, "cpu") if split.prefix is not None else None
    if runner is not None:
        values = tuple(value.clone() for value in runner.forward_once(batch))  # copies may enter autograd

    # The trained part: one step each way. A linear probe's is so short that only its exactness matters.
    if recipe.precision == "auto" and opening.parameters:
        labels = torch.from_numpy(part.labels[: len(batch)])
        few = _step(model, split.suffix, tuple(value[:2] for value in values), labels[:2])  # BatchNorm needs two
        began = time.perf_counter()
        small_maps = meets_small_maps(model, lambda: few(torch.float32, False, False))
        count = len(batch) if time.perf_counter() - began < _LONG_STEP_S else (len(batch) + 1) // 2
        step = _step(model, split.suffix, tuple(value[:count] for value in values), labels[:count])
        dtype, channels_last, padded = calibrate_suffix(step, budget_s=_SUFFIX_BUDGET_S, small_maps=small_maps)
        channels_last |= numerics.channels_last
        numerics = dataclasses.replace(numerics, suffix_dtype=dtype, channels_last=channels_last, pad_first=padded)
        pad_first(model, False)
        model.to(memory_format=torch.contiguous_format)
        split.suffix.select(False)

    # Which of the frozen part's values to keep, run as the workers will run it
    if split.prefix is not None and runner is not None and numerics != runner.numerics:
        runner = Prefix(split.prefix, numerics, "cpu")
    keeping = _keeping(space, facts, recipe, split, runner, batch, store)
    why = f": {split.reason}" if split.reason else ""
    opened = opening.spelling or recipe.unfrozen
    note = f"{backbone.backbone}, open {opened}: {in_words(numerics)}; frozen values: {keeping.keep} ({keeping.reason}{why})"
    frozen_part = prefix_ways.get(architecture) if recipe.precision == "auto" else None
    measurement = Measurement(numerics, keeping, note, frozen_part)
    remember(_beside(store), _name(space, facts, recipe, opening), measurement, _budget(store))
    return measurement


def in_words(numerics: Numerics) -> str:
    """`frozen part bfloat16, BatchNorm folded; trained part float32, channels last`."""
    layout = ", channels last" if numerics.channels_last else ""
    fold = ", BatchNorm folded" if numerics.fold else ""
    padded = ", small maps padded first" if numerics.pad_first else ""
    return f"frozen part {numerics.prefix_dtype}{fold}; trained part {numerics.suffix_dtype}{layout}{padded}"


def _step(
    model: torch.nn.Module, suffix: Suffix, values: tuple[torch.Tensor, ...], labels: torch.Tensor
) -> Callable[[torch.dtype, bool, bool], None]:
    trained = [p for p in model.parameters() if p.requires_grad]
    suffix.select(True)

    def step(dtype: torch.dtype, channels_last: bool, padded: bool) -> None:
        pad_first(model, padded)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        model.to(memory_format=layout)
        inputs = tuple(v.to(dtype).contiguous(memory_format=layout) if v.dim() == 4 else v.float() for v in values)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
            out = suffix(*inputs)
        loss = F.cross_entropy((out[0] if isinstance(out, tuple) else out).float(), labels)
        torch.autograd.grad(loss, trained, allow_unused=True)

    return step


def _keeping(
    space: Space, facts: SpaceFacts, recipe: Recipe, split: Split, runner: Prefix | None, batch: torch.Tensor, store: Path
) -> Keeping:
    """What to keep of the frozen part that `runner` runs (None: there is none)."""
    views = recipe.augment_views if recipe.augments else 1
    images = facts.data.train_size * max(1, views) + facts.data.size("val")
    constant = not recipe.augments or recipe.augment_views > 0
    seconds, rate, candidates = 0.0, MEMORY_BYTES_PER_S, list[Candidate]()
    if runner is not None:
        seconds, edge_bytes = seconds_per_image(runner, batch), split.bytes_per_image(runner.dtype)
        candidates = [Candidate("", edge_bytes, seconds)]
        if constant:
            candidates = find_candidates(runner, batch, edge_bytes, seconds)
            rate = gathered_bytes_per_s(edge_bytes)
    batch_sizes, budget = _batch_sizes(space, recipe), _budget(store)
    while True:
        cut = choose_cut(
            candidates,
            images,
            passes=float(recipe.epochs),
            memory_bytes=budget.memory_bytes,
            disk_bytes=budget.disk_bytes,
            constant=constant,
            padding=statistics.mean(padding_of(facts.data.train_size, size, MICRO_BATCH) for size in batch_sizes),
            memory_bytes_per_s=rate,
        )
        if not cut.at or (runner is not None and agrees(runner, cut.at, batch)):
            return Keeping(cut.keep, cut.reason, cut.size_bytes, seconds, cut.at, cut.after_s)
        candidates = [candidate for candidate in candidates if candidate.at != cut.at]


def _openings(space: Space, facts: SpaceFacts) -> Iterator[tuple[Recipe, Opening]]:
    """One recipe per network and opening, the least open first: every combination of the dimensions that decide them."""
    dimensions = [d for d in space.dimensions if d.name in DECIDING]
    found: list[tuple[Recipe, Opening]] = []
    for values in itertools.product(*(d.choices for d in dimensions)):
        recipe = space.resolve(dict(zip((d.name for d in dimensions), values, strict=True)))
        opening = open_parameters(recipe, facts.backbones[recipe.architecture()])
        found.append((recipe, opening))
        if recipe.head_first_epochs and opening.parameters:
            head_only = head_alone(recipe)
            found.append((head_only, open_parameters(head_only, facts.backbones[recipe.architecture()])))
    return iter(sorted(found, key=lambda pair: len(pair[1].parameters)))
