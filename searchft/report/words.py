"""What a person would say of a recipe and of a study: the words that every view shares.

A recipe's opening, head, batch size and learning rate are always said; every other field only where the search varies it
(`varying`) and it has an effect.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Collection, Iterator

from searchft.recipe import HEAD, BackboneFacts, Opening, Recipe, SpaceFacts, norm_matters, open_parameters
from searchft.recipe.fields import AUGMENTATION, NETWORK, NEW_HEAD, RECIPE, STRATEGIES, TRAINING, names_that_decide
from searchft.report.formats import rate_text
from searchft.search.records import TrialRecord
from searchft.space import Space
from searchft.space.validate import frozen_over_random

_SAID_APART = frozenset(
    ("backbone", "weights", "head_widths", "head_activation", "dropout", "input_dropout", "optimizer", "lr", "batch_size")
)
"""The code below words these; the table of fields words all others."""

_NORM_WORDS = {
    "frozen": ", norms frozen",
    "affine": ", norm statistics frozen",
    "stats": ", norms adapt",
    "running": ", norm statistics alone adapt",
}


def varying_fields(space: Space) -> frozenset[str]:
    """The recipe fields that the space leaves open."""
    fields = {dimension.name.partition(".")[0] for dimension in space.dimensions if len(dimension.choices) > 1}
    if "strategy" in fields:
        fields = (fields - {"strategy"}) | {field for values in STRATEGIES.values() for field in values}
    return frozenset(fields)


def trial_in_words(record: TrialRecord, facts: SpaceFacts, varying: Collection[str]) -> str:
    """The recipe in words, after the name of the enqueued row if it is one."""
    words = recipe_in_words(record.recipe, facts, varying)
    return f"{record.name}: {words}" if record.name else words


def recipe_in_words(recipe: Recipe, facts: SpaceFacts, varying: Collection[str] = ()) -> str:
    """The whole recipe in one line: `last 2 stages open, head 256+128 with dropout 0.5, batch 64, lr 1e-3 (top ×0.6)`."""
    return f"{architecture_in_words(recipe, facts, varying)}, {training_in_words(recipe, facts, varying)}"


def architecture_in_words(recipe: Recipe, facts: SpaceFacts, varying: Collection[str] = ()) -> str:
    """What the network is and how much of it trains."""
    backbone = facts.backbones.get(recipe.architecture())
    parts = []
    if "backbone" in varying:
        parts.append(recipe.backbone.partition("/")[2] or recipe.backbone)
    if "weights" in varying:
        parts.append(f"weights {backbone.weights if backbone else recipe.weights}")
    parts += [opening_in_words(recipe, facts, varying), _head_words(recipe, varying)]
    # Edits written for another backbone have no effect here.
    return ", ".join([*parts, *_phrases(dataclasses.replace(recipe, edits=recipe.own_edits()), varying, NETWORK, NEW_HEAD)])


def training_in_words(recipe: Recipe, facts: SpaceFacts, varying: Collection[str] = ()) -> str:
    """How the network is trained."""
    canonical, _, opening = find_opening(recipe, facts)
    parts = [f"batch {canonical.batch_size}"]
    if "optimizer" in varying:
        parts.append(canonical.optimizer)
    order = {HEAD: 0, "top": 1, "deep": 2}
    multipliers = sorted(canonical.lr_multipliers, key=lambda pair: (order.get(pair[0], 3), pair[0]))
    factors = [f"{g} ×{f:g}" for g, f in multipliers if f != 1.0 and (opening is None or g in opening.groups)]
    if canonical.layer_decay != 1.0:
        factors.append(f"×{canonical.layer_decay:g} a stage")
    rate = f"lr {rate_text(canonical.lr)}"
    parts.append(f"{rate} ({', '.join(factors)})" if factors else rate)
    # What canonical() put back at its default has no effect in this recipe: silence is truer than a number.
    effective = {name for name in varying if getattr(canonical, name) == getattr(recipe, name)}
    return ", ".join([*parts, *_phrases(canonical, effective, TRAINING, AUGMENTATION)])


def opening_in_words(recipe: Recipe, facts: SpaceFacts, varying: Collection[str] = ()) -> str:
    """How much of the backbone trains: `head only`, `last 2 stages open`, `everything open (norms only)`."""
    _, backbone, opening = find_opening(recipe, facts)
    if backbone is None or opening is None:
        words = f"open: {recipe.unfrozen}"
    elif not opening.parameters:
        return "head only"
    elif recipe.unfrozen_tensors is not None:
        words = f"last {len(opening.parameters)} tensors open"
    elif opening.spelling == "all":
        words = "everything open"
    elif opening.spelling is not None:
        count = len(backbone.stages) - backbone.stage_names.index(opening.spelling)
        words = "last stage open" if count == 1 else f"last {count} stages open"
    elif recipe.stages is not None:
        words = f"{' and '.join(recipe.stages)} open"
    else:
        words = f"open from {recipe.unfrozen} on"
    if recipe.parameters != "all":
        words += " (biases only)" if recipe.parameters == "bias" else " (norms only)"
    if "norm" in varying and (backbone is None or opening is None or norm_matters(backbone, opening)):
        words += _NORM_WORDS.get(recipe.norm, "")
    return words


def find_opening(recipe: Recipe, facts: SpaceFacts) -> tuple[Recipe, BackboneFacts | None, Opening | None]:
    """The canonical recipe with its facts; the recipe alone where these facts do not know it (an older study's trial)."""
    try:
        backbone = facts.backbones[recipe.architecture()]
        return recipe.canonical(facts), backbone, open_parameters(recipe, backbone)
    except (KeyError, ValueError):
        return recipe, None, None


def _phrases(recipe: Recipe, varying: Collection[str], *deciding: str) -> Iterator[str]:
    """The varying fields that decide one of these, as the table words them."""
    for name in names_that_decide(*deciding):
        if name in varying and name not in _SAID_APART and RECIPE[name].row.says is not None:
            value = getattr(recipe, name)
            yield RECIPE[name].in_words(value, rate_text(value) if isinstance(value, float) else "")


def _head_words(recipe: Recipe, varying: Collection[str]) -> str:
    words = f"head {'+'.join(map(str, recipe.head_widths))}" if recipe.head_widths else "linear head"
    if recipe.head_widths and "head_activation" in varying:
        words += " without activation" if recipe.head_activation == "none" else f" {recipe.head_activation}"
    dropouts = []
    if recipe.head_widths and (recipe.dropout or "dropout" in varying):
        dropouts.append(f"dropout {recipe.dropout:g}")
    if recipe.input_dropout or "input_dropout" in varying:
        dropouts.append(f"input dropout {recipe.input_dropout:g}")
    return f"{words} with {' and '.join(dropouts)}" if dropouts else words


def data_in_words(facts: SpaceFacts) -> str:
    """`orl_faces, 40 classes, 80 train, 120 val, 200 test`."""
    sizes = ", ".join(f"{facts.data.size(split)} {split}" for split, _ in facts.data.counts)
    return f"{facts.data.source}, {len(facts.data.classes)} classes, {sizes}"


def weights_in_words(backbone: BackboneFacts) -> str:
    """`weights IMAGENET1K_V1 from /cache/resnet18.pth`, `weights from package …`, `random weights`."""
    if backbone.weights == "none":
        return "random weights"
    if backbone.weights == "package":
        return f"weights from {backbone.weights_source}"
    source = f" from {backbone.weights_source}" if backbone.weights_source != backbone.weights else ""
    return f"weights {backbone.weights}{source}"


def ground_lines(space: Space, facts: SpaceFacts) -> list[tuple[str, str]]:
    """(name, value) of the data, every backbone, how the search goes about, and the command that made the study."""
    search = space.search
    overrides = (word for override in space.overrides for word in ("--set", override))
    return [
        ("data", f"{data_in_words(facts)}, {space.data.image_size} px"),
        *backbone_lines(space, facts),
        ("search", f"{search.sampler}, pruner {search.pruner}, {search.trials} trials, seed {search.seed}"),
        ("command", shlex.join(["searchft", "run", space.source or "SPACE", *overrides])),
    ]


def backbone_lines(space: Space, facts: SpaceFacts) -> list[tuple[str, str]]:
    """("backbone", its name and weights) of each that the facts know."""
    known = [facts.backbones[name] for name in space.architectures() if name in facts.backbones]
    return list(dict.fromkeys(("backbone", f"{b.backbone}, {weights_in_words(b)}") for b in known))


def weights_warnings(space: Space, facts: SpaceFacts) -> list[str]:
    """A sentence in capitals for every fallback, and for frozen layers over random weights."""
    warnings = []
    for name, recipe in space.architectures().items():
        backbone = facts.backbones.get(name)
        if backbone is not None and backbone.fell_back:
            used = "RANDOM WEIGHTS" if backbone.weights == "none" else f"WEIGHTS {backbone.weights}"
            warnings.append(
                f"FALLBACK: {backbone.backbone} STARTS FROM {used}, NOT FROM {recipe.weights}: {backbone.fell_back}"
            )
    for name, frozen in frozen_over_random(space, facts):
        warnings.append(f"FROZEN LAYERS ARE RANDOM: up to {frozen:,} parameters of {name} stay frozen at random values")
    return list(dict.fromkeys(warnings))
