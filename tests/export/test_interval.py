"""Wilson's interval against published values."""

from __future__ import annotations

import pytest

from searchft.export.interval import wilson_interval


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # Newcombe 1998, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_it_gives_newcombes_values(correct: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_it_stays_within_zero_and_one_and_holds_the_accuracy() -> None:
    for n in (1, 2, 7, 200):
        for correct in range(n + 1):
            low, high = wilson_interval(correct, n)
            assert 0.0 <= low <= correct / n <= high <= 1.0


def test_without_pictures_nothing_is_known() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
