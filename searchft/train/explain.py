"""What will happen to each opening of a space, in a line each: which numerics, and where the frozen part's values are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from searchft.features.keeping import Keeping, choose_keeping
from searchft.files import store_budget_bytes
from searchft.machine import main_memory_bytes
from searchft.models import build_model, freeze, set_modes
from searchft.numerics import Rule
from searchft.recipe import DataFacts, Recipe, SpaceFacts
from searchft.space import Space, list_openings
from searchft.train.memory import edge_bytes

MOST = 12
"""Lines; `searchft plan` has one for every opening."""


def explain_openings(space: Space, facts: SpaceFacts, store: Path) -> list[str]:
    """A line for people about each opening of the space, the first `MOST` of them. Nothing is run but on torch's meta device.

    `store` is the folder of the feature store, whose disk's room counts.
    """
    lines: dict[str, None] = {}
    models: dict[str, nn.Module] = {}
    precisions = space.by_name["precision"].choices if "precision" in space.by_name else ()
    for recipe, backbone, opening in list_openings(space, facts):
        name = recipe.architecture()
        if name not in models:
            models = {name: build_model(recipe, backbone, len(facts.data.classes), head_seed=0).to("meta")}
        freeze(models[name], backbone, opening)
        set_modes(models[name], backbone, opening, training=True)
        for norm in opening.train_norms:  # statistics that move make values move, gradient or not
            models[name].get_submodule(norm).requires_grad_(True)
        for precision in precisions or (recipe.precision,):
            rule = facts.rule_for(replace(recipe, precision=precision))
            size = edge_bytes(models[name], space.data.image_size, rule.numerics.prefix_dtype)
            opened = f"{backbone.backbone}, open {opening.spelling or recipe.unfrozen}"
            lines.setdefault(sentence(opened, rule, keeping_of(size, recipe, facts.data, store)))
    told = list(lines)
    return [
        *told[:MOST],
        *([f"and {len(told) - MOST} openings more: `searchft plan` says it of each"] if len(told) > MOST else []),
    ]


def keeping_of(bytes_per_image: int, recipe: Recipe, data: DataFacts, store: Path, why_whole: str = "") -> Keeping:
    """Where `bytes_per_image` of frozen values are kept for each training and validation image, fixed views included."""
    views = max(1, recipe.augment_views) if recipe.augments else 1
    return choose_keeping(
        bytes_per_image,
        data.train_size * views + data.size("val"),
        main_memory_bytes(),
        store_budget_bytes(store),
        constant=not recipe.augments or recipe.augment_views > 0,
        why_whole=why_whole,
    )


def sentence(name: str, rule: Rule, keeping: Keeping) -> str:
    """`resnet18, open layer4: frozen layers in bfloat16 … (why); frozen values kept in memory (18.4 kB an image, …)`."""
    return f"{name}: {rule.numerics} ({rule.why}); values of the frozen layers {keeping}"
