"""Numbers for people."""

from __future__ import annotations

import doctest

import pytest

from searchft.report import formats
from searchft.report.formats import duration_text, rate_text, sparkline


def test_the_examples_in_the_docstrings_are_true() -> None:
    assert doctest.testmod(formats).failed == 0


@pytest.mark.parametrize(("value", "text"), [(1e-3, "1e-3"), (3e-4, "3e-4"), (0.1, "0.1"), (0.0, "0"), (1.5e-5, "1.5e-5")])
def test_a_rate_is_written_as_in_a_space(value: float, text: str) -> None:
    assert rate_text(value) == text
    assert float(rate_text(value)) == value


@pytest.mark.parametrize("length", [1, 7, 8, 9, 100, 1001])
def test_a_sparkline_never_exceeds_its_width_and_ends_with_the_last_value(length: int) -> None:
    line = sparkline([i / length for i in range(length)], 8)
    assert 1 <= len(line) <= 8
    assert length == 1 or line[-1] == "█"


def test_a_sparkline_of_a_flat_or_broken_curve_does_not_fail() -> None:
    assert len(set(sparkline([0.5] * 5, 8))) == 1
    assert sparkline([float("nan"), 0.1, 0.9], 8)[0] == " "
    assert sparkline([], 8) == ""


def test_ascii_terminals_get_ascii() -> None:
    assert sparkline([0.1, 0.5, 0.9], 8, ascii_only=True).isascii()


def test_a_minute_is_never_sixty_seconds() -> None:
    assert duration_text(59.7) == "1 min 0 s"
