"""What a trained network predicts for every image of a split: confusion matrices, mistakes and comparisons follow from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


@dataclass(frozen=True)
class Predictions:
    """One network on one split."""

    split: str  # `val` or `test`
    truth: np.ndarray  # int64 [N], class numbers
    guess: np.ndarray  # int64 [N], class numbers
    sure: np.ndarray  # float64 [N]: the probability that the network gave its guess
    names: tuple[str, ...]  # of the images, for people

    @property
    def right(self) -> np.ndarray:
        """bool [N]."""
        return np.asarray(self.truth == self.guess)

    def confusion(self, num_classes: int) -> np.ndarray:
        """int64 [C, C]: rows truth, columns guess."""
        matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
        np.add.at(matrix, (self.truth, self.guess), 1)
        return matrix

    def worst(self, count: int) -> list[int]:
        """Positions of the mistakes that the network was surest of, worst first."""
        wrong = np.flatnonzero(~self.right)
        return [int(i) for i in wrong[np.argsort(-self.sure[wrong], kind="stable")][:count]]

    def captions(self, positions: Sequence[int], classes: Sequence[str]) -> list[tuple[str, str, float]]:
        """(truth, answer, probability) of images by position."""
        return [(classes[self.truth[i]], classes[self.guess[i]], round(float(self.sure[i]), 4)) for i in positions]

    def to_json(self) -> dict[str, Any]:
        sure = [round(float(p), 6) for p in self.sure]
        answers = {"truth": self.truth.tolist(), "guess": self.guess.tolist(), "sure": sure}
        return {"split": self.split, **answers, "names": list(self.names)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Predictions:
        truth, guess = np.asarray(data["truth"], np.int64), np.asarray(data["guess"], np.int64)
        return cls(data["split"], truth, guess, np.asarray(data["sure"], np.float64), tuple(data["names"]))


def confusions(matrix: np.ndarray, classes: Sequence[str]) -> list[tuple[int, str, str]]:
    """Wrong answers by pair of classes, most frequent first: (how often, truth, guess)."""
    found = [(int(matrix[t, g]), classes[t], classes[g]) for t, g in zip(*np.nonzero(matrix), strict=True) if t != g]
    return sorted(found, key=lambda pair: (-pair[0], *pair[1:]))


class PairedDifference(NamedTuple):
    """Two networks on the same `n` images: what the first is better, and how sure that is."""

    only_first: int  # images that only the first classifies right
    only_second: int
    n: int
    difference: float  # accuracy of the first minus that of the second
    low: float
    high: float  # ends of the 95 % interval of the difference (Wald with Agresti and Min's correction, 2005)


def paired_difference(first: Predictions, second: Predictions) -> PairedDifference:
    """Compares two networks image by image. Raises ValueError if they did not see the same images."""
    if first.names != second.names or not np.array_equal(first.truth, second.truth):
        raise ValueError("these networks were not shown the same images")
    b = int((first.right & ~second.right).sum())
    c = int((second.right & ~first.right).sum())
    n = len(first.truth)
    # Half an image added to each of the four cells: the interval stays honest where hardly any image differs.
    m, p, q = n + 2, (b + 0.5) / (n + 2), (c + 0.5) / (n + 2)
    half = 1.959963984540054 * math.sqrt(max(0.0, (p + q - (p - q) ** 2) / m))
    return PairedDifference(b, c, n, (b - c) / n if n else 0.0, (p - q) - half, (p - q) + half)
