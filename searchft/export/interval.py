"""How sure an accuracy is, given the number of images it was measured on."""

from __future__ import annotations

import math
from statistics import NormalDist

Z_95 = NormalDist().inv_cdf(0.975)


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """Wilson's score interval at 95 % for `correct` of `n`; (0, 1) where n is 0.

    Unlike the textbook ± it stays within [0, 1] and is right near 1 (E. B. Wilson 1927; Brown, Cai and DasGupta 2001).
    """
    if n == 0:
        return 0.0, 1.0
    share = correct / n
    spread = 1 + Z_95**2 / n
    centre = (share + Z_95**2 / (2 * n)) / spread
    half = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n)) / spread
    # At the ends rounding would leave 0.9999999999999999 where the interval ends at exactly 1.
    return (0.0 if correct == 0 else centre - half), (1.0 if correct == n else centre + half)
