"""A recipe in words: what a person would say of it, not the forty values that define it.

Always said: what is open, the head, the batch size, the learning rate. Everything else only where the search varies it (`varying`)
and it has an effect.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator

from searchft.recipe import HEAD, BackboneFacts, Opening, Recipe, SpaceFacts, norm_matters, open_parameters
from searchft.recipe.fields import AUGMENTATION, NETWORK, NEW_HEAD, RECIPE, STRATEGIES, TRAINING, names_that_decide
from searchft.report.formats import rate_text
from searchft.space import Space

_SAID_APART = (
    *("backbone", "weights", "head_widths", "head_activation", "dropout", "input_dropout"),
    *("optimizer", "lr", "batch_size"),
)
"""Said in places of their own, by the code below; every other field is said as the table says."""

_NORMS = {
    "frozen": "norms frozen",
    "affine": "norm statistics frozen",
    "stats": "norms adapt",
    "running": "norm statistics alone adapt",
}


def varying_fields(space: Space) -> frozenset[str]:
    """The recipe fields that the space leaves open."""
    fields = {dimension.name.partition(".")[0] for dimension in space.dimensions if len(dimension.choices) > 1}
    if "strategy" in fields:
        fields = (fields - {"strategy"}) | {field for values in STRATEGIES.values() for field in values}
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
    # Edits written for another backbone have no effect here.
    return ", ".join([*parts, *_phrases(dataclasses.replace(recipe, edits=recipe.own_edits()), varying, NETWORK, NEW_HEAD)])


def training_in_words(recipe: Recipe, facts: SpaceFacts, varying: Collection[str] = ()) -> str:
    """How it is trained."""
    canonical, _, _ = _resolved(recipe, facts)
    parts = [f"batch {canonical.batch_size}"]
    if "optimizer" in varying:
        parts.append(canonical.optimizer)
    # In reading order: head, top, deep, then by name.
    multipliers = sorted(canonical.lr_multipliers, key=lambda pair: ((HEAD, "top", "deep", pair[0]).index(pair[0]), pair[0]))
    factors = [f"{group} ×{factor:g}" for group, factor in multipliers if factor != 1.0]
    if canonical.layer_decay != 1.0:
        factors.append(f"×{canonical.layer_decay:g} a stage")
    parts.append(f"lr {rate_text(canonical.lr)}" + (f" ({', '.join(factors)})" if factors else ""))
    # What canonical() put back at its default has no effect in this recipe: silence is truer than a number.
    effective = {name for name in varying if getattr(canonical, name) == getattr(recipe, name)}
    return ", ".join([*parts, *_phrases(canonical, effective, TRAINING, AUGMENTATION)])


def _phrases(recipe: Recipe, varying: Collection[str], *deciding: str) -> Iterator[str]:
    """The varying fields that decide one of these, as the table says them."""
    for name in names_that_decide(*deciding):
        if name in varying and name not in _SAID_APART and RECIPE[name].says is not None:
            value = getattr(recipe, name)
            yield RECIPE[name].in_words(value, rate_text(value) if isinstance(value, float) else "")


def _resolved(recipe: Recipe, facts: SpaceFacts) -> tuple[Recipe, BackboneFacts | None, Opening | None]:
    """The canonical recipe with its facts; the recipe alone where these facts do not know it (an older study's trial)."""
    try:
        backbone = facts.backbones[recipe.architecture()]
        return recipe.canonical(facts), backbone, open_parameters(recipe, backbone)
    except (KeyError, ValueError):
        return recipe, None, None


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
    words += {"bias": " (biases only)", "norm": " (norms only)"}.get(recipe.parameters, "")
    matters = backbone is None or opening is None or norm_matters(backbone, opening)
    return f"{words}, {_NORMS[recipe.norm]}" if "norm" in varying and matters else words


def _head_words(recipe: Recipe, varying: Collection[str]) -> str:
    words = f"head {RECIPE['head_widths'].kind.label(recipe.head_widths)}" if recipe.head_widths else "linear head"
    if recipe.head_widths and "head_activation" in varying:
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
