"""Whether values are kept follows from room and time, and is said in words."""

from __future__ import annotations

import pytest

from searchft.features import choose_cut

GB = 10**9


@pytest.mark.parametrize(
    ("changes", "keep", "words"),
    [
        ({}, "memory", "to read from memory"),
        ({"bytes_per_image": 0}, "recompute", "nothing is frozen"),
        ({"constant": False}, "recompute", "augment_views"),
        ({"memory_bytes": 10**6}, "disk", "from disk"),
        ({"disk_bytes": 10**6}, "recompute", "disk budget"),
        ({"seconds_per_image": 1e-9}, "recompute", "not worth"),
        ({"passes": 1}, "recompute", "not worth"),
        ({"memory_bytes": 10**6, "seconds_per_image": 1e-5}, "recompute", "not worth"),
    ],
)
def test_decision_and_reason(changes: dict[str, float], keep: str, words: str) -> None:
    case = {
        "bytes_per_image": 10_000,
        "images": 1000,
        "seconds_per_image": 0.01,
        "passes": 20,
        "memory_bytes": GB,
        "disk_bytes": GB,
    }
    cut = choose_cut(**(case | changes))  # type: ignore[arg-type]
    assert cut.keep == keep
    assert words in cut.reason
    assert cut.size_bytes == changes.get("bytes_per_image", 10_000) * 1000
