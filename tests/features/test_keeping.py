"""Where values are kept follows from bytes, and is said in words."""

from __future__ import annotations

import pytest

from searchft.features import choose_keeping

MB = 10**6


@pytest.mark.parametrize(
    ("bytes_per_image", "memory_bytes", "disk_bytes", "more", "keep", "words"),
    [
        (10_000, 20 * MB, 10 * MB, {}, "memory", "10 kB an image, 10 MB in all"),
        (10_000, 20 * MB - 2, 10 * MB, {}, "disk", "more than half of the 20 MB of free memory"),
        (10_000, 20 * MB, 10 * MB - 1, {}, "recompute", "10 MB in all, more than the 10 MB that the disk has"),
        (10_000, 20 * MB, 10 * MB, {"constant": False}, "recompute", "augment_views: n would keep n"),
        (10_000, 20 * MB, 10 * MB, {"why_whole": "cannot be traced"}, "recompute", "cannot be traced"),
        (0, 20 * MB, 10 * MB, {}, "recompute", "nothing is frozen"),
    ],
)
def test_memory_then_disk_then_nothing(
    bytes_per_image: int, memory_bytes: int, disk_bytes: int, more: dict[str, object], keep: str, words: str
) -> None:
    keeping = choose_keeping(bytes_per_image, 1000, memory_bytes, disk_bytes, **more)  # type: ignore[arg-type]
    assert keeping.keep == keep
    assert words in str(keeping)
