"""Whether to stop a trial now: pure functions of the validation curves that the study holds.

Optuna's pruners are objects that may leave marks in the trial (its ASHA writes rungs into trial attributes, so asking it twice
at one epoch gives two answers). Here the answer follows from the curves alone: asked again after a crash, it is the same.

Common to all:

- Higher is better. A curve holds the values of epochs 1..k; what a trial has reached is its best value so far, because the best
  epoch is what it will be judged by.
- A trial at its last epoch is not stopped: nothing would be saved.
- A trial whose latest value is not a number is stopped, whatever the pruner and the epoch: it has nothing to compare.
- Equal is never worse: who equals the threshold goes on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from searchft.space import SearchSettings

Curve = Sequence[float]


def should_prune(
    settings: SearchSettings,
    curve: Curve,
    others: Sequence[Curve],
    epochs: int,
    *,
    number: int = 0,
    numbers: Sequence[int] | None = None,
) -> bool:
    """Whether the trial with this `curve` should stop after its latest epoch.

    `others`: curves of the trials it is compared with (finished or running, itself and answered ones left out).
    `epochs`: how many it would run. `number` and `numbers` (one per curve of `others`) are the trial numbers. Only hyperband
    reads them, to know who is in which bracket. Raises KeyError for an unknown pruner, ValueError if hyperband is not given a
    number for each of the others.
    """
    rule = PRUNERS[settings.pruner]
    if not curve:
        return False
    if math.isnan(curve[-1]):
        return True
    if len(curve) >= epochs:
        return False
    if settings.pruner == "hyperband":
        if numbers is None or len(numbers) != len(others):
            raise ValueError(f"hyperband needs the number of each of the {len(others)} other trials but got {numbers}")
        first, factor = settings.min_epochs, settings.reduction_factor
        mine = bracket_of(number, first, factor, epochs)
        others = [other for other, n in zip(others, numbers, strict=True) if bracket_of(n, first, factor, epochs) == mine]
        return _halving(curve, others, first * factor**mine, factor)
    return rule(settings, curve, others)


def _none(settings: SearchSettings, curve: Curve, others: Sequence[Curve]) -> bool:
    """Never."""
    return False


def _median(settings: SearchSettings, curve: Curve, others: Sequence[Curve]) -> bool:
    """The median rule of Golovin et al. 2017 (Google Vizier), as Optuna's MedianPruner reads it: stop a trial whose best value
    is below the median of what the others had at this epoch."""
    return _below_share(settings, curve, others, 50.0)


def _percentile(settings: SearchSettings, curve: Curve, others: Sequence[Curve]) -> bool:
    """The same with another share, as Optuna's PercentilePruner: only the top `prune_percentile` % go on."""
    return _below_share(settings, curve, others, settings.prune_percentile)


def _asha(settings: SearchSettings, curve: Curve, others: Sequence[Curve]) -> bool:
    """Asynchronous successive halving, Li et al. 2018, arXiv:1810.05934, in the form that stops trials instead of pausing them:
    rungs at min_epochs × reduction_factor^k epochs; past a rung go the top 1/reduction_factor of those that reached it so far."""
    return _halving(curve, others, settings.min_epochs, settings.reduction_factor)


def _patient(settings: SearchSettings, curve: Curve, others: Sequence[Curve]) -> bool:
    """Early stopping (Prechelt 1998): no better value within the last `prune_patience` epochs; the others have no say."""
    patience = max(1, settings.prune_patience)
    if len(curve) <= max(patience, settings.prune_warmup_epochs):
        return False
    return _highest(curve[-patience:]) <= _highest(curve[:-patience])


PRUNERS: Mapping[str, Callable[[SearchSettings, Curve, Sequence[Curve]], bool]] = MappingProxyType(
    {
        "none": _none,
        "median": _median,
        "percentile": _percentile,
        "asha": _asha,
        "hyperband": _asha,  # within the bracket that `should_prune` picks: Li et al. 2017, arXiv:1603.06560
        "patient": _patient,
    }
)


def _below_share(settings: SearchSettings, curve: Curve, others: Sequence[Curve], kept: float) -> bool:
    """Whether the best value so far lies below what parts the top `kept` % from the rest, at this epoch."""
    epoch = len(curve)
    if epoch <= settings.prune_warmup_epochs:
        return False
    reached = sorted(other[epoch - 1] for other in others if len(other) >= epoch and not math.isnan(other[epoch - 1]))
    if not reached or len(reached) < settings.prune_startup_trials:
        return False
    return _highest(curve) < _quantile(reached, 1.0 - kept / 100.0)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between the two nearest of the ascending values, as numpy's default."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    if ordered[low] == ordered[high]:
        return ordered[low]  # exact: equal values must tie, not differ by a rounding
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _halving(curve: Curve, others: Sequence[Curve], first_rung: int, factor: int) -> bool:
    """Successive halving at the rungs first_rung × factor^k.

    Until a rung has seen `factor` trials (this one included), its top 1/factor is nobody: the paper would pause the trial there.
    We cannot pause, and stopping the first ones on no evidence would be worse than letting them go on, so they go on.
    """
    factor = max(2, factor)
    rung = max(1, first_rung)
    while rung < len(curve):
        rung *= factor
    if rung != len(curve):
        return False
    mine = _highest(curve)
    reached = [mine, *(_highest(other[:rung]) for other in others if len(other) >= rung)]
    promoted = len(reached) // factor
    return promoted >= 1 and mine < sorted(reached, reverse=True)[promoted - 1]


def _highest(values: Curve) -> float:
    """The best of the values, those that are not numbers left out; -inf if there is none."""
    return max((v for v in values if not math.isnan(v)), default=-math.inf)


def bracket_of(number: int, min_epochs: int, factor: int, epochs: int) -> int:
    """Hyperband's bracket of a trial: 0 begins to stop trials after `min_epochs`, b after min_epochs × factor^b.

    Trials fall into brackets by a hash of their number, in the proportions that give each bracket about the same budget (line 2
    of the paper's algorithm 1): the early-stopping brackets get more trials.
    """
    min_epochs, factor, brackets = max(1, min_epochs), max(2, factor), 1
    while min_epochs * factor**brackets <= epochs:
        brackets += 1
    shares = [math.ceil(brackets * factor ** (brackets - 1 - b) / (brackets - b)) for b in range(brackets)]
    place = int.from_bytes(hashlib.sha256(f"bracket {number}".encode()).digest()[:8], "big") % sum(shares)
    for bracket, share in enumerate(shares):
        if place < share:
            return bracket
        place -= share
    raise AssertionError("the shares sum up to more than any place")
