"""Divides images into train, val and test: stratified, seeded, and independent of the order in which files are found.

Each image has a rank, the digest of (seed, class, name); a class's images are dealt out in the order of their ranks. So
the split depends on nothing but names and seed, and a photo that comes or goes moves few others.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from searchft.data.records import SPLITS, some
from searchft.errors import InputError, Problem


def read_split(split: Sequence[tuple[str, float]], where: str = "") -> tuple[dict[str, float], bool]:
    """The wanted split as {name: amount} for train, val and test, and whether amounts are counts per class.

    Amounts are counts if any of them is at least 1, fractions otherwise; a split not named gets 0. Raises InputError
    with every problem.
    """
    problems = []
    wanted = dict(split)

    def problem(key: str, rule: str) -> None:
        problems.append(Problem(where, f"data.split{key}", rule))

    for name, amount in wanted.items():
        if name not in SPLITS:
            problem("", f"must name only train, val and test but got {name!r}")
        elif not isinstance(amount, int | float) or isinstance(amount, bool) or not math.isfinite(amount) or amount < 0:
            problem(f".{name}", f"must be a count or a fraction, not negative, but got {amount!r}")
    if problems:
        raise InputError(problems)
    counts = any(amount >= 1 for amount in wanted.values())
    amounts = {name: wanted.get(name, 0) for name in SPLITS}
    for name, amount in amounts.items():
        if counts and amount != int(amount):
            problem(f".{name}", f"must be a whole number, because others are counts per class, but got {amount}")
        if name != "test" and amount == 0:
            problem(f".{name}", "must be more than 0: train and val both need images")
    if not counts and sum(amounts.values()) > 1 + 1e-9:
        problem("", f"fractions must add up to at most 1 but add up to {sum(amounts.values()):g}")
    if problems:
        raise InputError(problems)
    return amounts, counts


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

    With counts, every class gives exactly so many images to each split. With fractions, each class is divided by the
    largest remainder, after one image each for train, val and test, in this order, as far as its images go: a class
    with one image has it in train. With `keep_test` the source has a test set of its own: test gets nothing here, and
    fractions of train and val are taken of each other (0.7 and 0.15 become 0.82 and 0.18).

    Raises InputError if `split` is malformed or a class has fewer images than the counts ask for.
    """
    amounts, counts = read_split(split, where)
    if keep_test:
        amounts["test"] = 0
        if not counts:
            total = amounts["train"] + amounts["val"]
            amounts = {name: amount / total for name, amount in amounts.items()}
    members: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        members[label].append(index)
    short = []
    found: list[str | None] = [None] * len(names)
    for label, indices in members.items():
        if counts:
            sizes = {name: int(amount) for name, amount in amounts.items()}
            if sum(sizes.values()) > len(indices):
                short.append((label, len(indices)))
                continue
        else:
            sizes = shares(len(indices), amounts)
        dealt = iter(sorted(indices, key=lambda i: (_rank(seed, classes[labels[i]], names[i]), names[i], i)))
        for name in SPLITS:
            for _ in range(sizes[name]):
                found[next(dealt)] = name
    if short:
        asked = [int(amounts[name]) for name in SPLITS if amounts[name]]
        few = some(f"{classes[label]!r} has {size}" for label, size in sorted(short))
        raise InputError(
            Problem(
                where,
                "data.split",
                f"asks for {' + '.join(map(str, asked))} = {sum(asked)} images of each class but {few}. "
                "Lower the counts, use fractions, or add images",
            )
        )
    return found


def shares(count: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """How many of `count` images of one class each split gets (see `split_images`)."""
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


def _rank(seed: int, class_name: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{class_name}\0{name}".encode("utf-8", "surrogateescape")).digest()
