"""Divides images into train, val and test: stratified, seeded, and independent of the order in which files are found.

A class's images are dealt out in the order of their ranks, the digests of (seed, class, name): one that comes or goes moves few others.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from searchft.data.records import SPLITS, refusal, some


def split_images(
    names: Sequence[str],
    labels: Sequence[int],
    classes: Sequence[str],
    split: Sequence[tuple[str, float]],
    seed: int,
    *,
    keep_test: bool = False,
    where: str = "",
) -> list[str | None]:
    """The split of each image: `train`, `val`, `test`, or None where counts leave it over.

    Amounts are counts if any of them is at least 1: every class gives exactly so many images to each split. With fractions,
    each class is divided by `shares`. With `keep_test` the source has a test set of its own: test gets nothing here, and
    fractions of train and val are taken of each other (0.7 and 0.15 become 0.82 and 0.18).

    Raises InputError if a class has fewer images than the counts ask for.
    """
    amounts = dict.fromkeys(SPLITS, 0.0) | dict(split)
    counts = any(amount >= 1 for amount in amounts.values())
    if keep_test:
        amounts["test"] = 0
        if not counts:
            total = amounts["train"] + amounts["val"]
            amounts = {name: amount / total for name, amount in amounts.items()}
    members: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        members[label].append(index)
    asked = [int(amounts[name]) for name in SPLITS if amounts[name]]
    short = [(classes[label], len(mine)) for label, mine in sorted(members.items()) if counts and len(mine) < sum(asked)]
    if short:
        few = some(f"{name!r} has {size}" for name, size in short)
        rule = f"asks for {' + '.join(map(str, asked))} = {sum(asked)} images of each class but {few}. "
        raise refusal(where, rule + "Lower the counts, use fractions, or add images", "data.split")
    found: list[str | None] = [None] * len(names)
    for label, mine in members.items():
        sizes = {name: int(amount) for name, amount in amounts.items()} if counts else shares(len(mine), amounts)
        ranks = {i: f"{seed}\0{classes[label]}\0{names[i]}".encode("utf-8", "surrogateescape") for i in mine}
        dealt = iter(sorted(mine, key=lambda i: (hashlib.sha256(ranks[i]).digest(), names[i], i)))
        for name in SPLITS:
            for _ in range(sizes[name]):
                found[next(dealt)] = name
    return found


def shares(count: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """How many of `count` images of one class each split gets: by largest remainder, after one each, train before val before test."""
    sizes = dict.fromkeys(fractions, 0)
    wanted = [name for name in SPLITS if fractions.get(name, 0) > 0]
    for name in wanted[:count]:
        sizes[name] = 1
    quotas = {name: fractions[name] * count for name in wanted}
    total = min(count, max(sum(sizes.values()), math.floor(sum(quotas.values()) + 1e-9)))
    for name in wanted:
        sizes[name] += max(0, min(math.floor(quotas[name] + 1e-9) - sizes[name], total - sum(sizes.values())))
    while sum(sizes.values()) < total:
        # What is still missing goes to whoever is furthest below its quota; train before val before test on a tie.
        sizes[max(wanted, key=lambda name: (round(quotas[name] - sizes[name], 9), -wanted.index(name)))] += 1
    return sizes
