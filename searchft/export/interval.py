"""How sure an accuracy is, given the number of images it was measured on."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """Wilson's score interval at 95 % for `correct` of `n`; (0, 1) where n is 0.

    Unlike the textbook ± it stays within [0, 1] and is right for small test sets and accuracies near 1
    (E. B. Wilson 1927; Brown, Cai and DasGupta 2001).

    >>> [round(x, 4) for x in wilson_interval(196, 200)]
    [0.9497, 0.9922]
    """
    if n == 0:
        return 0.0, 1.0
    share = correct / n
    spread = 1 + Z_95**2 / n
    centre = (share + Z_95**2 / (2 * n)) / spread
    half = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n)) / spread
    # At the ends rounding would leave 0.9999999999999999 where the interval ends at exactly 1.
    return (0.0 if correct == 0 else centre - half), (1.0 if correct == n else centre + half)
