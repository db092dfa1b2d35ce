"""What is written in one transaction reads as what Optuna itself would have written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from searchft.search.rows import NumberTaken, add_trial, end_trial, put_epoch
from searchft.search.storage import open_storage


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_server").fresh_database()
    opened = open_storage(url, tmp_path, create=True)
    yield opened
    opened._backend.engine.dispose()  # type: ignore[attr-defined]


def study_in(storage: Any, name: str = "rows") -> Any:
    return optuna.create_study(study_name=name, storage=storage, direction="maximize")


def trial_of(state: TrialState, value: float | None = None, **more: Any) -> FrozenTrial:
    labels: dict[str, tuple[Any, ...]] = {"unfrozen": ("head", "layer4"), "dropout": (0.0, 0.5), "auxiliary": (True, False)}
    return optuna.create_trial(
        state=state,
        value=value,
        params={"unfrozen": "layer4", "dropout": 0.5, "auxiliary": True},
        distributions={name: CategoricalDistribution(choices) for name, choices in labels.items()},
        user_attrs={"recipe": {"lr": 1e-3, "backbone": "é"}, "name": "Baseline", "nothing": None},
        **more,
    )


KINDS = (
    trial_of(TrialState.RUNNING),
    trial_of(TrialState.COMPLETE, 0.875, intermediate_values={1: 0.5, 2: 0.875}),
    trial_of(TrialState.PRUNED, 0.25, intermediate_values={1: float("nan"), 2: float("-inf"), 3: 0.25}),
    trial_of(TrialState.PRUNED),
    trial_of(TrialState.FAIL, constraints={"feasible": 1.0}),
)


def said(trial: FrozenTrial) -> tuple[Any, ...]:
    return (
        *(trial.number, trial.state, trial.value, trial.params, trial.distributions, trial.user_attrs, trial.system_attrs),
        *(repr(trial.intermediate_values), trial.constraints, trial.datetime_start, trial.datetime_complete),
    )


def test_an_added_trial_reads_as_optunas(storage: Any) -> None:
    ours, theirs = study_in(storage), study_in(storage, "theirs")
    for number, kind in enumerate(KINDS):
        add_trial(storage, ours._study_id, number, kind)
        theirs.add_trial(kind)
    first, second = ours.get_trials(), theirs.get_trials()
    assert [said(t) for t in first] == [said(t) for t in second] and len(first) == len(KINDS)
    assert ours.best_trial.number == 1


def test_another_number_than_the_next_writes_nothing(storage: Any) -> None:
    study = study_in(storage)
    add_trial(storage, study._study_id, 0, KINDS[0])
    for wrong in (0, 2):
        with pytest.raises(NumberTaken) as caught:
            add_trial(storage, study._study_id, wrong, KINDS[0])
        assert caught.value.number == 1
    assert len(study.get_trials()) == 1
    add_trial(storage, study._study_id, 1, KINDS[1])
    assert [t.number for t in study.get_trials()] == [0, 1]


@pytest.mark.parametrize(("state", "value"), [(TrialState.COMPLETE, 0.5), (TrialState.PRUNED, None), (TrialState.FAIL, None)])
def test_an_ended_trial_reads_as_optunas(storage: Any, state: TrialState, value: float | None) -> None:
    study = study_in(storage)
    trial_id = add_trial(storage, study._study_id, 0, KINDS[0])
    other_id = add_trial(storage, study._study_id, 1, KINDS[0])
    attributes = {"name": "Baseline B", "curves": {"seconds": [1.5, None]}}
    end_trial(storage, trial_id, state, value, attributes)
    for name, plain in attributes.items():
        storage.set_trial_user_attr(other_id, name, plain)
    storage.set_trial_state_values(other_id, state, None if value is None else [value])
    first, second = study.get_trials()
    assert (first.state, first.value, first.user_attrs) == (second.state, second.value, second.user_attrs)
    assert (
        first.datetime_complete is not None and abs((first.datetime_complete - second.datetime_complete).total_seconds()) < 60
    )


def test_what_has_ended_is_not_ended_again(storage: Any) -> None:
    study = study_in(storage)
    trial_id = add_trial(storage, study._study_id, 0, KINDS[0])
    end_trial(storage, trial_id, TrialState.COMPLETE, 0.5, {"seal": "a"})
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        end_trial(storage, trial_id, TrialState.PRUNED, 0.25, {"seal": "b"})
    (trial,) = study.get_trials()
    assert (trial.state, trial.value, trial.user_attrs["seal"]) == (TrialState.COMPLETE, 0.5, "a")


def test_an_epoch_reads_as_optunas_and_may_be_written_again(storage: Any) -> None:
    study = study_in(storage)
    trial_id, other_id = (add_trial(storage, study._study_id, number, KINDS[0]) for number in (0, 1))
    for epoch, value in ((1, 0.5), (2, float("inf")), (3, float("nan")), (2, 0.25)):
        put_epoch(storage, trial_id, epoch, value)
        storage.set_trial_intermediate_value(other_id, epoch, value)
    first, second = study.get_trials()
    assert repr(sorted(first.intermediate_values.items())) == repr(sorted(second.intermediate_values.items()))
    assert first.intermediate_values[2] == 0.25
    end_trial(storage, trial_id, TrialState.COMPLETE, 0.5, {})
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        put_epoch(storage, trial_id, 4, 0.5)
    with pytest.raises(KeyError):
        put_epoch(storage, 10**6, 1, 0.5)
