"""Numbers of the report, on records whose answer can be counted by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from searchft.recipe import SpaceFacts
from searchft.report import analysis
from searchft.report.analysis import FEWEST, importances, optuna_study
from searchft.report.predictions import Predictions, confusions, paired_difference
from searchft.search.records import TrialRecord, saved_seconds
from searchft.space import Space

Make = Callable[..., TrialRecord]


@pytest.fixture
def records(make_record: Make, space: Space) -> list[TrialRecord]:
    found = [
        make_record(0, value=0.6, curve=[0.5, 0.6], seconds=10.0, unfrozen="head"),
        make_record(1, "pruned", value=0.2, curve=[0.3, 0.2], seconds=4.0, unfrozen="layer4", head_widths=()),
        make_record(2, value=0.9, curve=[0.7, 0.9], seconds=30.0, unfrozen="layer4"),
        make_record(3, value=0.9, answered_from=2, unfrozen="layer4"),
        make_record(4, value=0.8, curve=[0.8], seconds=40.0, unfrozen="all"),
        make_record(5, "failed", reason="boom", unfrozen="all"),
    ]
    return [dataclasses.replace(r, params={"unfrozen": r.recipe.unfrozen}) for r in found]


def test_the_front_holds_what_nothing_beats_in_both(records: list[TrialRecord]) -> None:
    assert [(c.trial, c.on_front) for c in analysis.costs(records)] == [(0, True), (2, True), (4, False)]
    assert analysis.costs([]) == []


def test_effects_count_pruned_trials_and_leave_out_duplicates(records: list[TrialRecord], space: Space) -> None:
    found = {e.choice: e for e in analysis.effects(space, records) if e.dimension == "unfrozen"}
    assert found["layer4"].trials == 2 and found["layer4"].mean == pytest.approx((0.3 + 0.9) / 2)
    assert (found["layer4"].worst, found["layer4"].best) == (0.3, 0.9)
    assert "layer3" not in found


def test_time_is_summed_by_depth_from_the_head_to_everything(records: list[TrialRecord], facts: SpaceFacts) -> None:
    rows = analysis.time_by_opening(records, facts)
    assert [(d.opening, d.trials, d.seconds, d.best) for d in rows] == [
        ("head only", 1, 10.0, 0.6),
        ("last stage open", 2, 34.0, 0.9),
        ("everything open", 2, 40.0, 0.8),
    ]


def test_what_was_saved(records: list[TrialRecord]) -> None:
    records[0] = dataclasses.replace(records[0], extra={"curves": {"stored_s": [1.5, None, 2.0]}})
    saved = saved_seconds(records)
    assert saved == {"store": 3.5, "memo": 30.0, "pruning": pytest.approx(4.0 / 2 * 18)}


def test_importances_find_the_dimension_that_decides_or_say_nothing(space: Space, make_record: Make) -> None:
    records = []
    for number in range(30):
        unfrozen, batch = ("head", "layer4", "all")[number % 3], (64, 128)[number % 2]
        value = {"head": 0.2, "layer4": 0.9, "all": 0.5}[unfrozen] + 0.001 * (number % 5)
        record = make_record(number, value=value, curve=[value], unfrozen=unfrozen, batch_size=batch)
        records.append(dataclasses.replace(record, params={"unfrozen": unfrozen, "batch_size": batch}))
    found = importances(optuna_study(space, records))
    assert next(iter(found)) == "unfrozen" and found["unfrozen"] > 0.8
    assert sum(found.values()) == pytest.approx(1.0)
    assert importances(optuna_study(space, records[: FEWEST - 1])) == {}
    assert importances(optuna_study(space, [dataclasses.replace(r, value=0.5) for r in records])) == {}


def test_importances_are_those_of_the_dashboard(space: Space, make_record: Make) -> None:
    """Over the same trials (complete ones, duplicates included) by the same measure, also of dimensions that some trials lack."""
    from optuna_dashboard._importance import get_param_importance_from_trials_cache
    from optuna_dashboard._inmemory_cache import InMemoryCache

    records = []
    for number in range(40):
        widths, dropout, lr = ((), (256, 128))[number % 2], (0.0, 0.5)[number // 2 % 2], (1e-3, 3e-4)[number // 4 % 2]
        chosen = {"lr": lr, "head_widths": widths} | ({"dropout": dropout} if widths else {})
        state, value = ("pruned" if number % 7 == 3 else "complete"), 0.5 + 0.2 * (lr == 1e-3) + 0.1 * dropout + 0.001 * number
        params = space.labels_of(chosen)
        record = make_record(number, state, value=value, curve=[value], answered_from=4 if number == 20 else None, **chosen)
        records.append(dataclasses.replace(record, params=params))
    study = optuna_study(space, records)
    theirs = get_param_importance_from_trials_cache(InMemoryCache(), study._storage, study._study_id, 0, study.trials)
    ours = importances(study)
    assert len(ours) == 3 and ours == pytest.approx({t["name"]: t["importance"] for t in theirs})


def predictions(guess: list[int], truth: list[int]) -> Predictions:
    return Predictions(
        "val", np.array(truth), np.array(guess), np.linspace(0.5, 0.9, len(truth)), tuple(f"{i}.jpg" for i in range(len(truth)))
    )


def test_confusion_counts_and_the_surest_mistake_comes_first() -> None:
    said = predictions([0, 1, 1, 0], [0, 0, 1, 1])
    assert said.confusion(2).tolist() == [[1, 1], [1, 1]]
    assert said.worst(5) == [3, 1]
    assert confusions(np.array([[5, 2], [3, 0]]), ("a", "b"))[0] == (3, "b", "a")
    again = Predictions.from_json(said.to_json())
    assert again.names == said.names and again.right.tolist() == said.right.tolist()


def test_a_paired_difference_is_sure_only_where_images_differ_one_way() -> None:
    truth = [0] * 100
    worse = predictions([1] * 20 + [0] * 80, truth)
    best = predictions([0] * 100, truth)
    pair = paired_difference(best, worse)
    assert (pair.only_first, pair.only_second, pair.difference) == (20, 0, 0.2)
    assert 0.1 < pair.low < 0.2 < pair.high + 0.02
    same = paired_difference(best, best)
    assert same.low < 0 < same.high
    mixed = paired_difference(predictions([1] * 10 + [0] * 90, truth), predictions([0] * 90 + [1] * 10, truth))
    assert mixed.difference == 0 and mixed.low < 0 < mixed.high
    with pytest.raises(ValueError, match="same images"):
        paired_difference(best, predictions([0], [0]))
