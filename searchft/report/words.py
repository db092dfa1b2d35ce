"""A recipe in words: what a person would say of it, not the forty values that define it.

Always said: what is open, the head, the batch size, the learning rate. Everything else only where the search varies it
(`varying`), because what is the same in every trial tells them apart by nothing. The words follow what has effect: a
rate of a group with nothing open, or a dropout without a hidden layer, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from searchft.recipe import HEAD, BackboneFacts, Opening, Recipe, SpaceFacts, open_parameters
from searchft.report.formats import rate_text
from searchft.space import Space

STRATEGY_FIELDS = ("unfrozen", "parameters", "norm", "adapters", "weights")
"""What the macro `strategy` decides: where it varies, these do."""


@dataclass(frozen=True)
class Phrase:
    """How one varying field of a recipe is said."""

    field: str
    words: Callable[[Any], str]


ARCHITECTURE_PHRASES: tuple[Phrase, ...] = (
    Phrase("edits", lambda edits: "edits " + " ".join(f"{name}={value}" for name, value in edits) if edits else "no edits"),
    Phrase("head_replaces", lambda v: "whole classifier replaced" if v == "classifier" else "last layer replaced"),
    Phrase("normalisation", lambda v: "pixels as they are" if v == "none" else "pixels normalised"),
    Phrase("adapters", lambda v: "no adapters" if v == "none" else f"{v} adapters"),
    Phrase("auxiliary", lambda v: "auxiliary heads trained" if v else "no auxiliary heads"),
)
TRAINING_PHRASES: tuple[Phrase, ...] = (
    Phrase("momentum", lambda v: f"momentum {v:g}"),
    Phrase("weight_decay", lambda v: f"weight decay {rate_text(v)}"),
    Phrase("schedule", lambda v: f"{v} schedule"),
    Phrase("lr_gamma", lambda v: f"gamma {v:g}"),
    Phrase("lr_step_epochs", lambda v: f"a drop every {v} epochs"),
    Phrase("warmup_epochs", lambda v: f"warm-up {v:g} epochs" if v else "no warm-up"),
    Phrase("epochs", lambda v: f"{v} epochs"),
    Phrase("head_first_epochs", lambda v: f"head first for {v} epochs" if v else "no head start"),
    Phrase("label_smoothing", lambda v: f"label smoothing {v:g}" if v else "no label smoothing"),
    Phrase("class_weights", lambda v: "balanced classes" if v == "balanced" else "plain class weights"),
    Phrase("clip_norm", lambda v: f"gradients clipped at {v:g}" if v else "no clipping"),
    Phrase("patience", lambda v: f"patience {v}" if v else "no early stop"),
    Phrase("final_softmax", lambda v: "a softmax too many" if v else "no final softmax"),
    Phrase("horizontal_flip", lambda v: f"flips {v:g}" if v else "no flips"),
    Phrase("rotation", lambda v: f"rotation {v:g}°" if v else "no rotation"),
    Phrase("brightness", lambda v: f"brightness ±{v:g}" if v else "brightness as is"),
    Phrase("contrast", lambda v: f"contrast ±{v:g}" if v else "contrast as is"),
    Phrase("saturation", lambda v: f"saturation ±{v:g}" if v else "saturation as is"),
    Phrase("hue", lambda v: f"hue ±{v:g}" if v else "hue as is"),
    Phrase("grayscale", lambda v: f"grey {v:g}" if v else "in colour"),
    Phrase("crop_scale", lambda v: f"crops from {v:g}" if v != 1.0 else "no crops"),
    Phrase("augment_views", lambda v: f"{v} fixed views" if v else "fresh views"),
    Phrase("precision", lambda v: f"{v} precision"),
    Phrase("seed", lambda v: f"seed {v}"),
)


def varying_fields(space: Space) -> frozenset[str]:
    """The recipe fields that the space leaves open."""
    fields = {dimension.name.partition(".")[0] for dimension in space.dimensions if len(dimension.choices) > 1}
    if "strategy" in fields:
        fields = (fields - {"strategy"}) | set(STRATEGY_FIELDS)
    return frozenset(fields)


def recipe_in_words(recipe: Recipe, facts: SpaceFacts, varying: Collection[str] = ()) -> str:
    """The whole recipe in one line: `last 2 stages open, head 256+128 with dropout 0.5, batch 64, lr 1e-3 (top ×0.6)`."""
    return f"{architecture_in_words(recipe, facts, varying)}, {training_in_words(recipe, facts, varying)}"


def architecture_in_words(recipe: Recipe, facts: SpaceFacts, varying: Collection[str] = ()) -> str:
    """What the network is and how much of it trains."""
    _, backbone, opening = _resolved(recipe, facts)
    parts = []
    if "backbone" in varying:
        parts.append(recipe.backbone.partition("/")[2] or recipe.backbone)
    if "weights" in varying:
        parts.append(f"weights {backbone.weights if backbone else recipe.weights}")
    parts += [_opening_words(recipe, backbone, opening, varying), _head_words(recipe, varying)]
    own = {"edits": recipe.own_edits()}  # edits written for another backbone have no effect here
    for phrase in ARCHITECTURE_PHRASES:
        if phrase.field in varying:
            parts.append(phrase.words(own.get(phrase.field, getattr(recipe, phrase.field))))
    return ", ".join(parts)


def training_in_words(recipe: Recipe, facts: SpaceFacts, varying: Collection[str] = ()) -> str:
    """How it is trained."""
    canonical, _, opening = _resolved(recipe, facts)
    parts = [f"batch {canonical.batch_size}"]
    if "optimizer" in varying:
        parts.append(canonical.optimizer)
    rate = f"lr {rate_text(canonical.lr)}"
    factors = [f"{group} ×{factor:g}" for group, factor in _multipliers(canonical, opening)]
    if canonical.layer_decay != 1.0:
        factors.append(f"×{canonical.layer_decay:g} a stage")
    parts.append(f"{rate} ({', '.join(factors)})" if factors else rate)
    for phrase in TRAINING_PHRASES:
        value = getattr(canonical, phrase.field)
        # What canonical() put back at its default has no effect in this recipe: silence is truer than a number.
        if phrase.field in varying and (value == getattr(recipe, phrase.field)):
            parts.append(phrase.words(value))
    return ", ".join(parts)


def _resolved(recipe: Recipe, facts: SpaceFacts) -> tuple[Recipe, BackboneFacts | None, Opening | None]:
    """The canonical recipe with its facts; the recipe alone where these facts do not know it (an older study's trial)."""
    try:
        backbone = facts.backbones[recipe.architecture()]
        return recipe.canonical(facts), backbone, open_parameters(recipe, backbone)
    except (KeyError, ValueError):
        return recipe, None, None


def _multipliers(recipe: Recipe, opening: Opening | None) -> list[tuple[str, float]]:
    """Group factors in reading order: head, top, deep, then by name; only those with something open."""
    order = {HEAD: 0, "top": 1, "deep": 2}
    pairs = [(g, f) for g, f in recipe.lr_multipliers if f != 1.0 and (opening is None or g in opening.groups)]
    return sorted(pairs, key=lambda pair: (order.get(pair[0], 3), pair[0]))


def _opening_words(recipe: Recipe, backbone: BackboneFacts | None, opening: Opening | None, varying: Collection[str]) -> str:
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
    if recipe.parameters == "bias":
        words += " (biases only)"
    elif recipe.parameters == "norm":
        words += " (norms only)"
    if "norm" in varying and (backbone is None or opening is None or backbone.has_norms_among(opening)):
        words += {
            "frozen": ", norms frozen",
            "affine": ", norm statistics frozen",
            "stats": ", norms adapt",
            "running": ", norm statistics alone adapt",
        }.get(recipe.norm, "")
    return words


def _head_words(recipe: Recipe, varying: Collection[str]) -> str:
    if not recipe.head_widths:
        words = "linear head"
    else:
        words = "head " + "+".join(map(str, recipe.head_widths))
        if "head_activation" in varying:
            words += " " + ("without activation" if recipe.head_activation == "none" else recipe.head_activation)
    dropouts = []
    if recipe.head_widths and (recipe.dropout or "dropout" in varying):
        dropouts.append(f"dropout {recipe.dropout:g}")
    if recipe.input_dropout or "input_dropout" in varying:
        dropouts.append(f"input dropout {recipe.input_dropout:g}")
    return f"{words} with {' and '.join(dropouts)}" if dropouts else words


def weights_in_words(backbone: BackboneFacts) -> str:
    """`weights IMAGENET1K_V1 from /cache/resnet18.pth`, `weights from package …`, `random weights`."""
    if backbone.weights == "none":
        return "random weights"
    if backbone.weights == "package":
        return f"weights from {backbone.weights_source}"
    source = f" from {backbone.weights_source}" if backbone.weights_source != backbone.weights else ""
    return f"weights {backbone.weights}{source}"
