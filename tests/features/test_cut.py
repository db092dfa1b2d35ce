"""Whether and where values are kept follows from room and time, and is said in words."""

from __future__ import annotations

from typing import Any

import pytest

from searchft.features import Candidate, choose_cut, padding_of

MB, GB = 10**6, 10**9

EDGE = Candidate("", 10_000, 0.01)


def choose(candidates: list[Candidate], **changes: Any):  # type: ignore[no-untyped-def]
    case = {"images": 1000, "passes": 20, "memory_bytes": GB, "disk_bytes": GB}
    return choose_cut(candidates, **(case | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "seconds", "keep", "words"),
    [
        ({}, 0.01, "memory", "to read from memory"),
        ({"constant": False}, 0.01, "recompute", "augment_views"),
        ({"memory_bytes": MB}, 0.01, "disk", "from disk"),
        ({"disk_bytes": MB}, 0.01, "recompute", "disk budget"),
        ({}, 1e-9, "recompute", "not worth"),
        ({"passes": 1}, 0.01, "memory", "to read from memory"),  # as dear: the rule stands, and the next trial gains
        ({"passes": 1}, 1e-4, "recompute", "not worth"),
        ({"memory_bytes": MB}, 1e-5, "recompute", "from disk over"),
        ({"memory_bytes": MB, "padding": 4.0}, 1e-5, "disk", "from disk"),  # as if computing took four times as long
    ],
)
def test_the_edge_alone(changes: dict[str, float], seconds: float, keep: str, words: str) -> None:
    cut = choose([Candidate("", 10_000, seconds)], **changes)
    assert (cut.keep, cut.at, cut.after_s) == (keep, "", 0.0)
    assert words in cut.reason
    assert cut.size_bytes == 10 * MB


def test_nothing_frozen_is_nothing_to_keep() -> None:
    assert choose([]).keep == "recompute" and "nothing is frozen" in choose([]).reason


WIDE, WIDE_BUT_QUICK = Candidate("", 4 * MB, 0.01), Candidate("a", MB, 0.0085, 0.0015)
SLOW, HALF = Candidate("", 4 * MB, 0.1), Candidate("a", 2 * MB, 0.096, 0.004)
SMALLER = Candidate("block4", 1_000, 0.009, 0.001)
"""A tenth of the bytes, a tenth of the time to go on."""


@pytest.mark.parametrize(
    ("candidates", "changes", "at", "keep", "words"),
    [
        # Reading 7.5 kB less from memory takes 2 us less, going on 1 ms more
        ([EDGE, SMALLER], {}, "", "memory", "to read from memory"),
        # From disk 23 us, still less than 1 ms
        ([EDGE, SMALLER], {"memory_bytes": 2 * MB}, "", "disk", "from disk"),
        # A wide edge, and a layer that is quickly computed: a disk makes the difference, memory does not
        ([WIDE, WIDE_BUT_QUICK], {"memory_bytes": 10 * GB, "disk_bytes": 10 * GB}, "", "memory", ""),
        ([WIDE, WIDE_BUT_QUICK], {"disk_bytes": 10 * GB}, "a", "memory", "would be read from disk"),
        # Four times as much to go on, because batches of 16 are computed as 64
        ([SLOW, HALF], {"disk_bytes": 10 * GB}, "a", "disk", "from disk"),
        ([SLOW, HALF], {"disk_bytes": 10 * GB, "padding": 4.0}, "", "disk", ""),
        # The deepest does not fit, another does
        ([EDGE, SMALLER], {"disk_bytes": 2 * MB, "memory_bytes": 2 * MB}, "block4", "memory", "do not fit the disk budget of 2 MB"),
        ([EDGE, Candidate("b", 5_000, 0.0099, 0.0001), SMALLER], {"disk_bytes": 6 * MB}, "b", "memory", "do not fit"),
        ([EDGE, SMALLER], {"disk_bytes": MB // 2}, "", "recompute", "nor do the 1 MB further up"),
        # ... but saves next to nothing
        ([EDGE, Candidate("a", 1_000, 0.0001, 0.0099)], {"disk_bytes": 2 * MB}, "", "recompute", "save too little"),
        # Cheaper by less than a tenth: noise
        ([WIDE, Candidate("a", 3 * MB, 0.0081, 0.0019)], {"disk_bytes": 10 * GB}, "", "disk", "from disk"),
        # Fresh augmentation: no cut at all
        ([EDGE, SMALLER], {"constant": False}, "", "recompute", "augment_views"),
    ],
)  # fmt: skip
def test_where_to_keep(candidates: list[Candidate], changes: dict[str, float], at: str, keep: str, words: str) -> None:
    cut = choose(candidates, **changes)
    assert (cut.at, cut.keep) == (at, keep), cut.reason
    assert words in cut.reason
    if at:
        taken = next(c for c in candidates if c.at == at)
        assert (cut.size_bytes, cut.after_s) == (taken.bytes_per_image * 1000, taken.after_s)


def test_the_reason_names_both_places() -> None:
    edge, other = Candidate("", 55_000, 0.03), Candidate("blocks.4.1.conv_pwl", 9_200, 0.0289, 0.0011)
    assert choose([edge, other], disk_bytes=20 * MB).reason == (
        "kept at blocks.4.1.conv_pwl: 9.2 kB an image instead of 55 kB at the edge, 1.1 ms to go on from there; "
        "the edge's 55 MB do not fit the disk budget of 20 MB"
    )


@pytest.mark.parametrize(
    ("images", "batch_size", "expected"),
    [(640, 64, 1.0), (640, 16, 4.0), (640, 128, 1.0), (640, 96, (6 * 128 + 64) / 640), (65, 512, 128 / 65), (10, 512, 6.4)],
)
def test_padding_is_what_whole_micro_batches_cost(images: int, batch_size: int, expected: float) -> None:
    assert padding_of(images, batch_size, 64) == pytest.approx(expected)
