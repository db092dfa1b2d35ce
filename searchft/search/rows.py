"""A trial written to Optuna's tables: in one transaction when it is added, at each epoch, and when it ends.

Optuna writes the same rows and asks the database before each of them: a query for every parameter, attribute and epoch of a trial
that is only being made, and when it ends a transaction for each of its attributes. On SQLite that made up half of the driver's
work (tests/benchmarks/scale.py); and what goes in together needs no thought for a kill in between.

Uses the table classes of Optuna 5, which are the same for every database it supports.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.trial import TrialState

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial


class NumberTaken(Exception):
    """The trial would have had another number than the one that was asked for: nothing was written."""

    def __init__(self, number: int) -> None:
        super().__init__(f"the next trial's number is {number}")
        self.number = number


def add_trial(storage: BaseStorage, study_id: int, number: int, trial: FrozenTrial) -> int:
    """Writes `trial` whole, as number `number` (from 0) of the study, in any state. Returns its id in the database.

    Raises NumberTaken if the study holds more or fewer trials than `number`; errors of SQLAlchemy and its drivers.
    """
    from optuna.storages._rdb import models

    with _session(storage) as session, session.begin():
        models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
        row = models.TrialModel(
            study_id=study_id,
            number=number,
            state=trial.state,
            datetime_start=trial.datetime_start,
            datetime_complete=trial.datetime_complete,
        )
        session.add(row)
        session.flush()  # it has an id now, and SQLite's lock keeps everybody else out
        before = row.count_past_trials(session)
        if before != number:
            raise NumberTaken(before)
        trial_id = int(row.trial_id)
        _insert(
            session,
            models.TrialParamModel,
            [
                {
                    "trial_id": trial_id,
                    "param_name": name,
                    "param_value": trial.distributions[name].to_internal_repr(value),
                    "distribution_json": distribution_to_json(trial.distributions[name]),
                }
                for name, value in trial.params.items()
            ],
        )
        _insert(session, models.TrialUserAttributeModel, _attributes(trial_id, trial.user_attrs))
        _insert(session, models.TrialSystemAttributeModel, _attributes(trial_id, trial.system_attrs))
        epochs = trial.intermediate_values.items()
        _insert(session, models.TrialIntermediateValueModel, [_epoch(trial_id, epoch, value) for epoch, value in epochs])
        if trial.value is not None:
            _insert(session, models.TrialValueModel, [_value(trial_id, trial.value)])
    return trial_id


def put_epoch(storage: BaseStorage, trial_id: int, epoch: int, value: float) -> None:
    """Writes a running trial's value after `epoch`; one that is there is replaced.

    Raises Optuna's UpdateFinishedTrialError if it does not run, KeyError if there is none; errors of SQLAlchemy and its drivers.
    """
    import sqlalchemy
    from optuna.storages._rdb import models

    trials, table = models.TrialModel.__table__, models.TrialIntermediateValueModel.__table__
    with _session(storage) as session, session.begin():
        state = session.execute(sqlalchemy.select(trials.c.state).where(trials.c.trial_id == trial_id)).scalar()
        if state is None:
            raise KeyError(trial_id)
        if state != TrialState.RUNNING:
            raise optuna.exceptions.UpdateFinishedTrialError(f"trial {trial_id} has ended as {state.name}")
        row = _epoch(trial_id, epoch, value)
        there = sqlalchemy.update(table).where(table.c.trial_id == trial_id, table.c.step == epoch)
        if not session.execute(there.values(row)).rowcount:
            session.execute(sqlalchemy.insert(table), row)


def end_trial(
    storage: BaseStorage, trial_id: int, state: TrialState, value: float | None, attributes: Mapping[str, Any]
) -> None:
    """Ends a running trial in `state` with its value and user attributes (plain JSON values; those it had stay or are replaced).

    Raises Optuna's UpdateFinishedTrialError if it does not run, KeyError if there is none; errors of SQLAlchemy and its drivers.
    """
    import sqlalchemy
    from optuna.storages._rdb import models

    with _session(storage) as session, session.begin():
        row = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
        if row.state != TrialState.RUNNING:
            raise optuna.exceptions.UpdateFinishedTrialError(f"trial {row.number} has ended as {row.state.name}")
        table = models.TrialUserAttributeModel.__table__
        session.execute(sqlalchemy.delete(table).where(table.c.trial_id == trial_id, table.c.key.in_(list(attributes))))
        _insert(session, models.TrialUserAttributeModel, _attributes(trial_id, attributes))
        if value is not None:
            _insert(session, models.TrialValueModel, [_value(trial_id, value)])
        row.state = state
        row.datetime_complete = datetime.now()


def _attributes(trial_id: int, attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"trial_id": trial_id, "key": name, "value_json": json.dumps(plain)} for name, plain in attributes.items()]


def _epoch(trial_id: int, epoch: int, value: float) -> dict[str, Any]:
    from optuna.storages._rdb import models

    stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    return {"trial_id": trial_id, "step": epoch, "intermediate_value": stored, "intermediate_value_type": kind}


def _value(trial_id: int, value: float) -> dict[str, Any]:
    from optuna.storages._rdb import models

    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
    return {"trial_id": trial_id, "objective": 0, "value": stored, "value_type": kind}


def _insert(session: Any, model: Any, rows: list[dict[str, Any]]) -> None:
    import sqlalchemy

    if rows:
        session.execute(sqlalchemy.insert(model.__table__), rows)


def _session(storage: BaseStorage) -> Any:
    import sqlalchemy.orm

    backend: Any = getattr(storage, "_backend", storage)
    return sqlalchemy.orm.Session(backend.engine)
