"""Stratified, seeded splits."""

from __future__ import annotations

import random

import pytest

from searchft.data.split import shares, split_images
from searchft.errors import InputError

CLASSES = ("cat", "dog")
NAMES = [f"{c}/{i}.jpg" for c in CLASSES for i in range(10)]
LABELS = [0] * 10 + [1] * 10
FRACTIONS = (("train", 0.7), ("val", 0.15), ("test", 0.15))
COUNTS = (("train", 2), ("val", 3), ("test", 5))


def table(names, labels, split, seed=0, **more):
    return dict(zip(names, split_images(names, labels, CLASSES, split, seed, **more), strict=True))


def test_counts_are_kept_in_every_class():
    found = table(NAMES, LABELS, COUNTS)
    for c in CLASSES:
        mine = [s for name, s in found.items() if name.startswith(c)]
        assert (mine.count("train"), mine.count("val"), mine.count("test")) == (2, 3, 5)


def test_the_order_of_files_does_not_matter_but_the_seed_does():
    order = list(range(20))
    random.Random(3).shuffle(order)
    shuffled = table([NAMES[i] for i in order], [LABELS[i] for i in order], FRACTIONS)
    assert shuffled == table(NAMES, LABELS, FRACTIONS)
    assert shuffled != table(NAMES, LABELS, FRACTIONS, seed=1)


def test_what_counts_leave_over_is_used_nowhere():
    assert list(table(NAMES, LABELS, (("train", 1), ("val", 1))).values()).count(None) == 16


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (10, (7, 2, 1)), (20, (14, 3, 3)), (100, (70, 15, 15))],
)
def test_fractions_of_a_class(count, expected):
    assert tuple(shares(count, dict(FRACTIONS)).values()) == expected


def test_fractions_may_leave_images_over():
    assert shares(10, {"train": 0.2, "val": 0.1, "test": 0}) == {"train": 2, "val": 1, "test": 0}


def test_a_source_with_its_own_test_gives_train_to_val_only():
    found = list(table(NAMES, LABELS, FRACTIONS, keep_test=True).values())
    assert found.count("test") == 0 and found.count("val") == 4 and found.count("train") == 16


def test_too_few_images_for_the_counts_say_why():
    with pytest.raises(InputError, match=r"8 \+ 3 = 11 images of each class but 'cat' has 10, 'dog' has 10"):
        table(NAMES, LABELS, (("train", 8), ("val", 3)))
