"""A trial written to Optuna's tables in one transaction: when it is added, and when it ends.

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
        for name, value in trial.params.items():
            distribution = trial.distributions[name]
            session.add(
                models.TrialParamModel(
                    trial_id=trial_id,
                    param_name=name,
                    param_value=distribution.to_internal_repr(value),
                    distribution_json=distribution_to_json(distribution),
                )
            )
        for name, value in trial.user_attrs.items():
            session.add(models.TrialUserAttributeModel(trial_id=trial_id, key=name, value_json=json.dumps(value)))
        for name, value in trial.system_attrs.items():
            session.add(models.TrialSystemAttributeModel(trial_id=trial_id, key=name, value_json=json.dumps(value)))
        for step, value in trial.intermediate_values.items():
            stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
            session.add(
                models.TrialIntermediateValueModel(
                    trial_id=trial_id, step=step, intermediate_value=stored, intermediate_value_type=kind
                )
            )
        if trial.value is not None:
            session.add(_value_row(trial_id, trial.value))
    return trial_id


def end_trial(
    storage: BaseStorage, trial_id: int, state: TrialState, value: float | None, attributes: Mapping[str, Any]
) -> None:
    """Ends a running trial in `state` with its value and user attributes (plain JSON values; those it had stay or are replaced).

    Raises Optuna's UpdateFinishedTrialError if it does not run, KeyError if there is none; errors of SQLAlchemy and its drivers.
    """
    from optuna.storages._rdb import models

    with _session(storage) as session, session.begin():
        row = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
        if row.state != TrialState.RUNNING:
            raise optuna.exceptions.UpdateFinishedTrialError(f"trial {row.number} has ended as {row.state.name}")
        attribute = models.TrialUserAttributeModel
        known = {found.key: found for found in session.query(attribute).filter(attribute.trial_id == trial_id)}
        for name, plain in attributes.items():
            text = json.dumps(plain)
            if name in known:
                known[name].value_json = text
            else:
                session.add(attribute(trial_id=trial_id, key=name, value_json=text))
        if value is not None:
            session.add(_value_row(trial_id, value))
        row.state = state
        row.datetime_complete = datetime.now()


def _value_row(trial_id: int, value: float) -> Any:
    from optuna.storages._rdb import models

    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
    return models.TrialValueModel(trial_id=trial_id, objective=0, value=stored, value_type=kind)


def _session(storage: BaseStorage) -> Any:
    import sqlalchemy.orm

    backend: Any = getattr(storage, "_backend", storage)
    return sqlalchemy.orm.Session(backend.engine)
