"""Where the frozen part's values are kept: a question of bytes alone, and one that changes no number; and how an opening is explained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from searchft.files import store_budget_bytes
from searchft.machine import main_memory_bytes
from searchft.models import build_model, head_parameters
from searchft.recipe import DataFacts, Recipe, Rule, SpaceFacts, rule_for
from searchft.space import Space, list_openings
from searchft.train.memory import Tape

MEMORY_SHARE = 2
"""The system may use one in so many bytes of free memory to hold stored values; what is larger is read from the disk."""

MOST_LINES = 12
"""Of `explain_openings`; `searchft plan` has one for every opening."""


@dataclass(frozen=True)
class Keeping:
    """What happens to the values that one opening's trainable part reads, and why."""

    keep: str
    """`memory` (a file that the system holds in memory), `disk` (read as needed) or `recompute`."""
    reason: str
    size_bytes: int
    """Of all images together, whether kept or not."""

    def __str__(self) -> str:
        where = {"memory": "kept in memory", "disk": "kept on disk", "recompute": "computed for every batch"}[self.keep]
        return f"{where} ({self.reason})"


def choose_keeping(
    bytes_per_image: int, images: int, memory_bytes: int, disk_bytes: int, *, constant: bool = True, why_whole: str = ""
) -> Keeping:
    """In memory where the values fit, else on disk where they fit, else computed for every batch.

    Args:
        bytes_per_image: of the values that the trainable part reads; 0: nothing is frozen.
        images: how many are kept, fixed views included.
        memory_bytes: what memory could give now.
        disk_bytes: the store's budget.
        constant: whether an image's values are the same in every epoch: not under fresh random augmentation.
        why_whole: why a network cannot be split; empty: it can.
    """
    size = bytes_per_image * images
    if why_whole or not bytes_per_image:
        return Keeping("recompute", why_whole or "nothing is frozen", 0)
    if not constant:
        return Keeping("recompute", "random augmentation makes every epoch's images new; augment_views: n would keep n", size)
    sizes = f"{_bytes(bytes_per_image)} an image, {_bytes(size)} in all"
    if size > disk_bytes:
        return Keeping("recompute", f"{sizes}, more than the {_bytes(disk_bytes)} that the disk has for them", size)
    if size > memory_bytes // MEMORY_SHARE:
        return Keeping("disk", f"{sizes}, more than half of the {_bytes(memory_bytes)} of free memory", size)
    return Keeping("memory", sizes, size)


def keeping_of(bytes_per_image: int, recipe: Recipe, data: DataFacts, store: Path, why_whole: str = "") -> Keeping:
    """`choose_keeping` for a recipe's training and validation images on this machine, with the feature store in `store`."""
    views = max(1, recipe.augment_views) if recipe.augments else 1
    return choose_keeping(
        bytes_per_image,
        data.train_size * views + data.size("val"),
        main_memory_bytes(),
        store_budget_bytes(store),
        constant=not recipe.augments or recipe.augment_views > 0,
        why_whole=why_whole,
    )


def explain_openings(space: Space, facts: SpaceFacts, store: Path) -> list[str]:
    """A line for people about each opening of the space, at most `MOST_LINES`. Runs one image through each network."""
    lines: dict[str, None] = {}
    tapes: dict[str, tuple[Tape, frozenset[str]]] = {}
    precisions = space.by_name["precision"].choices if "precision" in space.by_name else ()
    for recipe, backbone, opening in list_openings(space, facts):
        name = recipe.architecture()
        if name not in tapes:
            model = build_model(recipe, backbone, len(facts.data.classes), head_seed=0)
            tapes = {name: (Tape(model, space.data.image_size), frozenset(head_parameters(model, backbone)))}
        tape, head = tapes[name]
        trainable = head.union(opening.parameters, (f"{norm}.running_mean" for norm in opening.train_norms))
        for precision in precisions or (recipe.precision,):
            rule = rule_for(replace(recipe, precision=precision), facts)
            keeping = keeping_of(tape.edge_bytes(trainable, rule.numerics.frozen_dtype), recipe, facts.data, store)
            lines.setdefault(explain(f"{backbone.backbone}, open {opening.spelling or recipe.unfrozen}", rule, keeping))
    more = [f"and {len(lines) - MOST_LINES} openings more: `searchft plan` says it of each"] if len(lines) > MOST_LINES else []
    return [*list(lines)[:MOST_LINES], *more]


def explain(name: str, rule: Rule, keeping: Keeping) -> str:
    """`resnet18, open layer4: frozen layers in bfloat16 … (why); values of the frozen layers kept in memory (18.4 kB …)`."""
    return f"{name}: {rule.numerics} ({rule.why}); values of the frozen layers {keeping}"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
