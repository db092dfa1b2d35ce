"""Pruning as truth tables and on analytic learning curves; Optuna's own pruners as a second opinion."""

from __future__ import annotations

import math
from collections import Counter

import optuna
import pytest

from searchft.search import prune
from searchft.search.prune import PRUNERS, bracket_of
from searchft.space import SearchSettings

NAN = math.nan


def settings(pruner: str, **values: float) -> SearchSettings:
    return SearchSettings(pruner=pruner, **{"prune_startup_trials": 2, "prune_warmup_epochs": 0, **values})


def should_prune(rule, curve, others, epochs, number=-1, numbers=None):
    numbers = range(len(others)) if numbers is None else numbers
    return prune.should_prune(rule, curve, dict(zip(numbers, others, strict=True)), epochs, number)


@pytest.mark.parametrize(
    ("curve", "others", "stops"),
    [
        ((0.4,), [(0.2,), (0.5,), (0.8,)], True),  # below the median 0.5
        ((0.5,), [(0.2,), (0.5,), (0.8,)], False),  # equal is not worse
        ((0.6,), [(0.2,), (0.5,), (0.8,)], False),
        ((0.4,), [(0.3,), (0.5,)], False),  # even count: the median is 0.4
        ((0.39,), [(0.3,), (0.5,)], True),
        ((0.1,), [(0.9,)], False),  # fewer than prune_startup_trials
        ((0.1,), [], False),
        ((0.6, 0.1), [(0.2, 0.5), (0.2, 0.5)], False),  # judged by its best so far
        ((0.1, 0.2), [(0.9,), (0.9,)], False),  # nobody has come so far
        ((0.1, 0.2), [(0.9,), (0.9, 0.3), (0.9, 0.3)], True),
        ((0.4,), [(NAN,), (0.5,), (0.3,)], False),  # NaN of others does not count
        ((NAN,), [], True),
        ((0.9, NAN), [], True),
        ((), [(0.5,), (0.5,)], False),
    ],
)
def test_median(curve, others, stops):
    assert should_prune(settings("median"), curve, others, 10) is stops


def test_three_equal_values_do_not_differ_by_a_rounding():
    assert not should_prune(settings("percentile", prune_percentile=90.0), (0.1 + 0.2,), [(0.1 + 0.2,)] * 7, 10)


def test_percentile_keeps_the_asked_share():
    others = [(v / 10,) for v in range(1, 10)]  # 0.1 .. 0.9; the top quarter begins at 0.7
    rule = settings("percentile", prune_percentile=25.0)
    assert should_prune(rule, (0.69,), others, 10)
    assert not should_prune(rule, (0.7,), others, 10)


def test_warmup_epochs_are_not_judged():
    rule = settings("median", prune_warmup_epochs=2)
    others = [(0.9, 0.9, 0.9)] * 3
    assert [should_prune(rule, (0.1,) * n, others, 10) for n in (1, 2, 3)] == [False, False, True]


@pytest.mark.parametrize("pruner", PRUNERS)
def test_the_last_epoch_is_not_stopped_and_nan_always_is(pruner):
    rule = settings(pruner, prune_patience=1)
    others = [(0.9,) * 9] * 9
    assert not should_prune(rule, (0.1,) * 9, others, 9, number=0, numbers=range(1, 10))
    assert should_prune(rule, (0.1, NAN), others, 9, number=0, numbers=range(1, 10))
    assert should_prune(rule, (NAN,) * 9, others, 9, number=0, numbers=range(1, 10))


def test_none_never_stops():
    assert not should_prune(settings("none"), (0.0,) * 5, [(1.0,) * 9] * 20, 9)


def test_an_unknown_pruner_is_an_error():
    with pytest.raises(KeyError):
        should_prune(settings("genetic"), (0.1,), [], 9)


@pytest.mark.parametrize(
    ("curve", "others", "stops"),
    [
        ((0.1,), [], False),  # the first trial of a rung goes on
        ((0.1,), [(0.9,)], False),  # and so does the second: no top third of two
        ((0.1,), [(0.9,), (0.8,)], True),  # of three, the best goes on
        ((0.9,), [(0.9,), (0.8,)], False),  # or who equals it
        ((0.95,), [(0.9,), (0.8,)], False),
        ((0.8,), [(0.9,), (0.7,), (0.6,), (0.5,), (0.4,)], False),  # of six, the best two
        ((0.65,), [(0.9,), (0.7,), (0.6,), (0.5,), (0.4,)], True),
        ((0.1, 0.1), [(0.9, 0.9)] * 5, False),  # epoch 2 is no rung
        ((0.1, 0.1, 0.1), [(0.9, 0.9, 0.9)] * 5, True),  # epoch 3 is
        ((0.1, 0.1, 0.1), [(0.9, 0.9)] * 5, False),  # nobody else has reached it
        ((0.95, 0.1, 0.1), [(0.9, 0.9, 0.9)] * 5, False),  # its best so far counts
    ],
)
def test_asha(curve, others, stops):
    assert should_prune(settings("asha", reduction_factor=3, min_epochs=1), curve, others, 20) is stops


def test_asha_rungs_begin_at_min_epochs():
    rule = settings("asha", reduction_factor=2, min_epochs=2)
    others = [(0.9,) * 20] * 5
    assert [n for n in range(1, 20) if should_prune(rule, (0.1,) * n, others, 20)] == [2, 4, 8, 16]


@pytest.mark.parametrize("factor", [0, 1])
def test_a_senseless_reduction_factor_does_not_hang(factor):
    should_prune(settings("asha", reduction_factor=factor, min_epochs=0), (0.1,) * 7, [(0.5,) * 9] * 4, 9)
    bracket_of(3, 0, factor, 9)


@pytest.mark.parametrize(
    ("curve", "stops"),
    [
        ((0.5, 0.5), False),
        ((0.5, 0.4, 0.5), True),  # two epochs without a better one: equal is not better here
        ((0.5, 0.4, 0.6), False),
        ((0.1, 0.2, 0.3, 0.4), False),
        ((0.9, 0.6, 0.7, 0.8), True),
    ],
)
def test_patient(curve, stops):
    assert should_prune(settings("patient", prune_patience=2), curve, [], 10) is stops


def test_hyperband_brackets_have_the_papers_proportions_and_never_change():
    counts = Counter(bracket_of(n, 1, 3, 27) for n in range(6000))
    # ceil(4/4·27), ceil(4/3·9), ceil(4/2·3), ceil(4/1·1) = 27, 12, 6, 4 of 49
    for bracket, share in enumerate((27, 12, 6, 4)):
        assert counts[bracket] / 6000 == pytest.approx(share / 49, abs=0.02)
    assert [bracket_of(n, 1, 3, 27) for n in range(12)] == [bracket_of(n, 1, 3, 27) for n in range(12)]


def test_hyperband_compares_within_the_bracket_only():
    rule = settings("hyperband", reduction_factor=3, min_epochs=1)
    zero = [n for n in range(200) if bracket_of(n, 1, 3, 27) == 0]
    one = [n for n in range(200) if bracket_of(n, 1, 3, 27) == 1]
    good = [(0.9,) * 3] * 5
    assert should_prune(rule, (0.1,), good, 27, number=zero[0], numbers=zero[1:6])
    assert not should_prune(rule, (0.1,), good, 27, number=zero[0], numbers=one[:5])
    assert not should_prune(rule, (0.1,), good, 27, number=one[0], numbers=one[1:6])  # bracket 1 begins at epoch 3
    assert should_prune(rule, (0.1,) * 3, good, 27, number=one[0], numbers=one[1:6])


def rising(top: float, speed: float, epochs: int) -> tuple[float, ...]:
    """A learning curve top · (1 - exp(-speed · epoch)), rounded as accuracies of 80 images are."""
    return tuple(round(80 * top * (1 - math.exp(-speed * e))) / 80 for e in range(1, epochs + 1))


@pytest.mark.parametrize(("pruner", "share"), [("median", 50.0), ("percentile", 25.0)])
def test_agrees_with_optunas_pruners_where_all_others_have_finished(pruner, share):
    theirs = optuna.pruners.PercentilePruner(share, n_startup_trials=2, n_warmup_steps=2)
    others = [rising(0.5 + 0.04 * i, 0.2 + 0.13 * (i % 4), 9) for i in range(10)]
    study = optuna.create_study(direction="maximize")
    for curve in others:
        study.add_trial(optuna.create_trial(value=max(curve), intermediate_values=dict(enumerate(curve, 1))))
    rule = settings(pruner, prune_percentile=share, prune_warmup_epochs=1)
    decisions = []
    for i in range(12):
        curve = rising(0.4 + 0.05 * i, 0.15 + 0.1 * (i % 5), 9)
        for epoch in range(1, 9):
            trial = optuna.create_trial(
                state=optuna.trial.TrialState.RUNNING, intermediate_values=dict(enumerate(curve[:epoch], 1))
            )
            decisions.append(should_prune(rule, curve[:epoch], others, 9))
            assert decisions[-1] == theirs.prune(study, trial), (i, epoch)
    assert {True, False} == set(decisions)


@pytest.mark.parametrize("pruner", ["median", "percentile", "asha", "hyperband"])
def test_saves_epochs_on_a_search_and_keeps_the_best_of_uncrossed_curves(pruner):
    """30 trials whose curves do not cross, worst in the middle: every rule keeps the best one and saves a fifth or more."""
    rule = settings(pruner, prune_percentile=50.0, prune_startup_trials=5)
    curves = [rising(0.5 + 0.4 * ((7 * i) % 30) / 30, 0.3, 9) for i in range(30)]
    done: list[tuple[float, ...]] = []
    for i, curve in enumerate(curves):
        epochs = 1
        while epochs < 9 and not should_prune(rule, curve[:epochs], done, 9, number=i, numbers=range(len(done))):
            epochs += 1
        done.append(curve[:epochs])
    best = max(range(30), key=lambda i: curves[i][-1])
    assert len(done[best]) == 9
    assert sum(map(len, done)) <= 0.8 * 30 * 9


@pytest.mark.parametrize("pruner", PRUNERS)
def test_asked_twice_says_the_same(pruner):
    rule = settings(pruner)
    others = [rising(0.6 + 0.03 * i, 0.4, 9) for i in range(8)]
    for epoch in range(1, 10):
        ask = [should_prune(rule, rising(0.6, 0.4, 9)[:epoch], others, 9, number=3, numbers=range(8)) for _ in range(3)]
        assert len(set(ask)) == 1
