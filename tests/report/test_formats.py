"""Numbers for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from searchft.report.formats import accuracy_text, count_text, duration_text, rate_text, size_text, sparkline


@pytest.mark.parametrize(
    ("write", "texts"),
    [
        (accuracy_text, {0.96253: "0.9625", None: "–", float("nan"): "–"}),
        (rate_text, {1e-3: "1e-3", 0.00035: "3.5e-4", 1.5e-5: "1.5e-5", 0.01: "0.01", 0.5: "0.5", 0.0: "0"}),
        (duration_text, {3.21: "3.2 s", 59.7: "1 min 0 s", 75: "1 min 15 s", 11_000: "3 h 3 min", 200_000: "2 d 7 h"}),
        (size_text, {512: "512 B", 18_800_000: "18.8 MB", 2e15: "2000.0 TB"}),
        (count_text, {512: "512", 20_520: "20.5k", 11_176_512: "11.2M"}),
    ],
)
def test_a_number_is_written_as_a_person_would(write: Callable[[Any], str], texts: dict[Any, str]) -> None:
    assert {value: write(value) for value in texts} == texts


@pytest.mark.parametrize("length", [1, 7, 8, 9, 100, 1001])
def test_a_sparkline_never_exceeds_its_width_and_ends_with_the_last_value(length: int) -> None:
    line = sparkline([i / length for i in range(length)], 8)
    assert 1 <= len(line) <= 8
    assert length == 1 or line[-1] == "█"


def test_a_sparkline_of_a_flat_or_broken_curve_does_not_fail() -> None:
    assert sparkline([0.1, 0.5, 0.9], 8) == "▁▅█"
    assert len(set(sparkline([0.5] * 5, 8))) == 1
    assert sparkline([float("nan"), 0.1, 0.9], 8)[0] == " "
    assert sparkline([], 8) == ""
    assert sparkline([0.1, 0.5, 0.9], 8, ascii_only=True).isascii()
