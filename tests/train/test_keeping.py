"""Where values are kept follows from bytes, and is said in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from searchft.machine import Processor
from searchft.recipe import SpaceFacts
from searchft.space import parse_space
from searchft.train.keeping import choose_keeping, explain_openings

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


SPACE = """
study: explained
data: {source: orl_faces, image_size: 32, split: {train: 2, val: 1, test: 1}}
recipe:
  backbone: torchvision/resnet18
  weights: none
  unfrozen: [head, layer4, all]
  precision: [fp32, auto]
"""


def test_every_opening_is_explained_in_a_line(facts: SpaceFacts, tmp_path: Path) -> None:
    lines = explain_openings(parse_space(SPACE), replace(facts, processor=Processor("cpu", "fast", native_bf16=True)), tmp_path)
    assert len(lines) == 6
    found = {(line.partition(":")[0].rpartition(" ")[2], "exact" in line): line for line in lines}
    assert "bfloat16 with BatchNorm folded in, trainable layers in float32" in found["head", False]
    assert "kept in memory (1.02 kB an image, 123 kB in all)" in found["head", False]
    assert "kept in memory (4.1 kB an image, 492 kB in all)" in found["layer4", True]
    assert "computed for every batch (nothing is frozen)" in found["all", True]


def test_a_large_space_is_explained_briefly(facts: SpaceFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchft.train.keeping.MOST_LINES", 4)
    lines = explain_openings(parse_space(SPACE), facts, tmp_path)
    assert len(lines) == 5 and lines[-1].startswith("and 2 openings more")
