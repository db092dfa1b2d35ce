"""What will happen to each opening of a space, in a line each: which numerics, and where the frozen part's values are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from searchft.features.keeping import Keeping, choose_keeping
from searchft.files import store_budget_bytes
from searchft.machine import main_memory_bytes
from searchft.models import build_model, head_parameters
from searchft.recipe import DataFacts, Recipe, Rule, SpaceFacts, rule_for
from searchft.space import Space, list_openings
from searchft.train.memory import Tape

MOST = 12
"""Lines; `searchft plan` has one for every opening."""


def explain_openings(space: Space, facts: SpaceFacts, store: Path) -> list[str]:
    """A line for people about each opening of the space, the first `MOST` of them. Runs one image through each network.

    `store` is the folder of the feature store, whose disk's room counts.
    """
    lines: dict[str, None] = {}
    tapes: dict[str, tuple[Tape, frozenset[str]]] = {}
    precisions = space.by_name["precision"].choices if "precision" in space.by_name else ()
    for recipe, backbone, opening in list_openings(space, facts):
        name = recipe.architecture()
        if name not in tapes:
            model = build_model(recipe, backbone, len(facts.data.classes), head_seed=0)
            tapes = {name: (Tape(model, space.data.image_size), frozenset(head_parameters(model, backbone)))}
        tape, head = tapes[name]
        trained = head.union(opening.parameters, (f"{norm}.running_mean" for norm in opening.train_norms))
        for precision in precisions or (recipe.precision,):
            rule = rule_for(replace(recipe, precision=precision), facts)
            keeping = keeping_of(tape.edge_bytes(trained, rule.numerics.frozen_dtype), recipe, facts.data, store)
            lines.setdefault(sentence(f"{backbone.backbone}, open {opening.spelling or recipe.unfrozen}", rule, keeping))
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
