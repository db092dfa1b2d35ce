"""Whether to stop a trial now: pure functions of the validation curves that the study holds.

Optuna's pruners may leave marks in the trial, so that asking twice gives two answers. Here the answer follows from the curves alone:
asked again after a crash, it is the same. Common to all: higher is better; a trial is judged by its best value so far, since its best
epoch is what counts in the end; a trial at its last epoch is not stopped; one whose latest value is NaN always is; who equals the
threshold goes on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from searchft.space import SearchSettings

Curve = Sequence[float]


def should_prune(settings: SearchSettings, curve: Curve, others: Mapping[int, Curve], epochs: int, number: int = 0) -> bool:
    """Whether trial `number` with this `curve` should stop after its latest epoch.

    `others`: by trial number, the curves it is compared with (finished or running, itself and answered ones left out). `epochs`: how
    many it would run. Raises KeyError for an unknown pruner.
    """
    rule = PRUNERS[settings.pruner]
    if not curve:
        return False
    if math.isnan(curve[-1]):
        return True
    if len(curve) >= epochs:
        return False
    first_rung = settings.min_epochs
    if settings.pruner == "hyperband":  # ASHA among the trials of the same bracket
        factor = settings.reduction_factor
        bracket = bracket_of(number, first_rung, factor, epochs)
        others = {n: other for n, other in others.items() if bracket_of(n, first_rung, factor, epochs) == bracket}
        return _halving(curve, others.values(), first_rung * factor**bracket, factor)
    return rule(settings, curve, others.values())


def _median(settings: SearchSettings, curve: Curve, others: Iterable[Curve]) -> bool:
    """The median rule of Golovin et al. 2017 (Google Vizier), as Optuna's MedianPruner reads it: stop a trial whose best value
    is below the median of what the others had at this epoch."""
    return _below_share(settings, curve, others, 50.0)


def _percentile(settings: SearchSettings, curve: Curve, others: Iterable[Curve]) -> bool:
    """The same with another share, as Optuna's PercentilePruner: only the top `prune_percentile` % go on."""
    return _below_share(settings, curve, others, settings.prune_percentile)


def _asha(settings: SearchSettings, curve: Curve, others: Iterable[Curve]) -> bool:
    """Asynchronous successive halving, Li et al. 2018, arXiv:1810.05934, in the form that stops trials instead of pausing them:
    rungs at min_epochs × reduction_factor^k epochs; past a rung go the top 1/reduction_factor of those that reached it so far."""
    return _halving(curve, others, settings.min_epochs, settings.reduction_factor)


def _patient(settings: SearchSettings, curve: Curve, others: Iterable[Curve]) -> bool:
    """Early stopping (Prechelt 1998): no better value within the last `prune_patience` epochs; the others have no say."""
    patience = max(1, settings.prune_patience)
    if len(curve) <= max(patience, settings.prune_warmup_epochs):
        return False
    return _highest(curve[-patience:]) <= _highest(curve[:-patience])


PRUNERS: Mapping[str, Callable[[SearchSettings, Curve, Iterable[Curve]], bool]] = MappingProxyType(
    {
        "none": lambda settings, curve, others: False,
        "median": _median,
        "percentile": _percentile,
        "asha": _asha,
        "hyperband": _asha,  # within the bracket that `should_prune` picks: Li et al. 2017, arXiv:1603.06560
        "patient": _patient,
    }
)


def _below_share(settings: SearchSettings, curve: Curve, others: Iterable[Curve], kept: float) -> bool:
    """Whether the best value so far lies below what parts the top `kept` % from the rest, at this epoch."""
    epoch = len(curve)
    if epoch <= settings.prune_warmup_epochs:
        return False
    reached = [other[epoch - 1] for other in others if len(other) >= epoch and not math.isnan(other[epoch - 1])]
    if len(reached) < max(1, settings.prune_startup_trials):
        return False
    return bool(_highest(curve) < np.quantile(reached, 1.0 - kept / 100.0))


def _halving(curve: Curve, others: Iterable[Curve], first_rung: int, factor: int) -> bool:
    """Successive halving at the rungs first_rung × factor^k.

    Until a rung has seen `factor` trials (this one included), its top 1/factor is nobody. The paper would pause the trial there; we
    let it go on, since stopping the first ones would rest on no evidence.
    """
    factor, rung = max(2, factor), max(1, first_rung)
    while rung < len(curve):
        rung *= factor
    if rung != len(curve):
        return False
    mine = _highest(curve)
    reached = [mine, *(_highest(other[:rung]) for other in others if len(other) >= rung)]
    promoted = len(reached) // factor
    return promoted >= 1 and mine < sorted(reached, reverse=True)[promoted - 1]


def _highest(values: Curve) -> float:
    """The best of the values but NaN; -inf if there is none."""
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
    return int(np.searchsorted(np.cumsum(shares), place, side="right"))
