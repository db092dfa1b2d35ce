"""The persistent study: what was chosen, what came of it, never half written.

An Optuna study on SQLite or PostgreSQL, holding readable values only (0.5, "layer4", "256+128"), so that optuna-dashboard shows
what a person would write. Drivers write to it through Optuna's public storage calls, each to its own trials:

- A trial appears whole, in one transaction, under the number that was asked for or not at all; and it ends in one. A kill leaves
  half of nothing.
- Reporting an epoch and finishing a trial may be repeated: after a crash the driver replays what the checkpoint holds.
- Every write to a trial first looks, in its own transaction, whether the trial is still this driver's.
- A trial that is not what was written is shown as failed (damaged), decides nothing, and stops nobody.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from searchft.errors import StorageError
from searchft.faults import fault
from searchft.search.claims import ClaimLostError, DecisionLostError
from searchft.search.records import COMPLETE, FAILED, PRUNED, Label, TrialRecord, Trials
from searchft.search.storage import NumberTakenError
from searchft.search.study import STRANGER, StoredStudy, environment
from searchft.search.translate import FEASIBLE, OPTUNA_STATES, STATES, attributes_of, is_sealed, plain_notes, record_of, seal_of

if TYPE_CHECKING:
    from searchft.search.suggest import Suggestion

__all__ = ["DAMAGED", "Ledger", "environment"]

DAMAGED = "damaged: "  # how the reason of a damaged trial begins
_OF_ITS_OWN = frozenset({"curves", "errors", "owner", "retries", "traceback"})
"""What is noted of how a trial ran: one that is answered from it did not run."""

T = TypeVar("T")


class Ledger(StoredStudy):
    """One study's record."""

    def __init__(self, *opened: Any) -> None:
        super().__init__(*opened)
        self._known = Trials()
        self._open: dict[int, FrozenTrial] = {}  # this driver's running trials, as they were last written
        self._ids: dict[int, int] = {}
        self._loaded = False  # whether `_known` is the whole study, and nobody else adds to it

    def take_over(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Takes the running trials that nobody runs: they are this driver's from now on, and returned as they stand now."""
        owners = {r.number: r.extra.get("owner") or {} for r in records if not r.finished}
        free = self._do(lambda: self._claims.orphans(owners)) if owners else set()
        taken = {number for number in free if self._do(lambda n=number: self._claims.claim(n))}  # type: ignore[misc]
        if not taken:
            return []
        for number in taken:
            self._open.pop(number, None)
        now = self.records() if self.shared else records  # its owner may have ended it just before
        found = [r for r in now if r.number in taken and not r.finished]
        for number in taken - {r.number for r in found}:
            self._claims.drop(number)
        return found

    def give_up(self, number: int) -> None:
        """Leaves a running trial to other drivers."""
        self._open.pop(number, None)
        self._claims.drop(number)

    def trials(self) -> Trials:
        """The study's record, kept up to date by this ledger's writes; asked for again, it also has what other drivers wrote.

        Trials that searchft did not write (added by hand) are passed over.
        """
        if not self._loaded:
            for trial in self._trials():
                known = self._known.numbered(trial.number)
                if (known is None or not known.finished) and "recipe" in trial.user_attrs and trial.state in STATES:
                    self._take_in(trial, check=True)
            if self._claims.alone:
                self._open.update((number, self._at_hand(number)) for number in self._known.running)
                self._loaded = True
        return self._known

    def records(self) -> list[TrialRecord]:
        """All trials by number, as they stand now."""
        return list(self.trials())

    def record(self, number: int) -> TrialRecord:
        """One trial as it stands now. Raises StorageError if there is none."""
        known = self._known.numbered(number)
        if known is not None and (known.finished or number in self._open):
            return known
        return self._take_in(self._at_hand(number), check=True)

    def next_number(self) -> int:
        """The number that the next new trial will have, once `records` has been asked: strangers' trials count too."""
        return max(self._ids, default=-1) + 1

    def _take_in(self, trial: FrozenTrial, check: bool = False) -> TrialRecord:
        """A trial's record, remembered; `check`: it was read from the database, which may hold anything."""
        try:
            known = self._known.running.get(trial.number)  # parsing a recipe costs more than all else
            record = record_of(trial, known.recipe if known else None)
            if check and record.finished and not is_sealed(trial):
                raise ValueError("it is not what was written when it finished")
        except Exception as error:
            if not check:
                raise
            record = self._damaged(trial.number, error)
        self._known.put(record)
        return record

    def _damaged(self, number: int, error: Exception) -> TrialRecord:
        """What stands for a trial that cannot be read."""
        return TrialRecord(number, "", FAILED, {}, self.space().resolve({}), "", reason=f"{DAMAGED}{error}")

    def _at_hand(self, number: int) -> FrozenTrial:
        """A copy of a trial as the database has it."""
        if number not in self._ids:
            self._trials()
            if number not in self._ids:
                raise StorageError(f"{self.url}: there is no trial {number}", self.url)
        return copy.deepcopy(self._do(lambda: self._storage.get_trial(self._ids[number])))

    def _trials(self) -> list[FrozenTrial]:
        try:
            trials = self._do(lambda: self.optuna_study.get_trials(deepcopy=False))
        except (LookupError, TypeError, ValueError):  # rows that Optuna cannot read either
            return self._trials_one_by_one()
        self._ids.update((trial.number, trial._trial_id) for trial in trials)
        return trials

    def _trials_one_by_one(self) -> list[FrozenTrial]:
        """The trials that can be read; the others become damaged ones."""
        find, study_id = self._storage.get_trial_id_from_study_id_trial_number, self.optuna_study._study_id
        trials: list[FrozenTrial] = []
        with contextlib.suppress(KeyError):  # no such number: that was all
            for number in itertools.count():
                trial_id = self._ids[number] = find(study_id, number)
                try:
                    trials.append(self._do(lambda i=trial_id: self._storage.get_trial(i)))  # type: ignore[misc]
                except (LookupError, TypeError, ValueError) as error:
                    self._known.put(self._damaged(number, error))
        return trials

    def start(self, suggestion: Suggestion, number: int, **notes: Any) -> TrialRecord:
        """Writes trial `number` as RUNNING, within `deciding`. `notes` become user attributes (an owner, say).

        Raises DecisionLostError if another driver added a trial all the same, StorageError if a stranger did.
        """
        if not self._do(lambda: self._claims.claim(number)):  # before it exists: no moment at which nobody owns it
            raise DecisionLostError(f"{self.url}: trial {number} is another driver's before it was begun", self.url)
        try:
            return self._write(number, TrialState.RUNNING, self.space().labels_of(suggestion.chosen), suggestion, notes)
        except BaseException:
            self._claims.drop(number)
            raise

    def answer(self, suggestion: Suggestion, number: int, from_record: TrialRecord) -> TrialRecord:
        """Writes trial `number` finished, with the result of a trial of the same key, without a curve.

        A complete configuration answers complete, a pruned or infeasible one pruned. What else was measured is copied to an enqueued
        row only. Raises ValueError if the record is no answer, else as `start`.
        """
        if not from_record.answers or from_record.key != suggestion.key:
            raise ValueError(f"trial {from_record.number} is no answer for trial {number}")
        state = TrialState.COMPLETE if from_record.state == COMPLETE else TrialState.PRUNED
        notes: dict[str, Any] = {"answered_from": from_record.number, "reason": from_record.reason}
        if suggestion.name:  # a row of a result table
            notes["result"] = {k: v for k, v in from_record.extra.items() if k not in _OF_ITS_OWN}
        params = self.space().labels_of(suggestion.chosen)
        return self._write(number, state, params, suggestion, notes, from_record.value, infeasible=from_record.infeasible)

    def adopt(self, record: TrialRecord, number: int, params: Mapping[str, Label], source: str) -> None:
        """Writes a copy of a finished trial of the study `source`, curve and all; of its `params` those that this space has.

        Raises ValueError for a trial that has not finished or was itself answered.
        """
        if not record.finished or record.answered_from is not None:
            raise ValueError(f"trial {record.number} of {source} has no result of its own to adopt")
        notes = {
            "result": {k: v for k, v in record.extra.items() if k != "adopted_from"},
            "reason": record.reason,
            "seconds": record.seconds,
            "adopted_from": {"study": source, "number": record.number},
        }
        labels = {d.name: [(type(label), label) for label in d.labels] for d in self.space().dimensions}
        kept = {n: label for n, label in params.items() if (type(label), label) in labels.get(n, ())}
        state = OPTUNA_STATES[record.state]
        self._write(number, state, kept, record, notes, record.value, record.curve, record.infeasible)

    def _write(
        self,
        number: int,
        state: TrialState,
        params: Mapping[str, Label],
        what: Suggestion | TrialRecord,
        notes: Mapping[str, Any],
        value: float | None = None,
        curve: Sequence[float] = (),
        infeasible: bool = False,
    ) -> TrialRecord:
        """Adds a trial, whole, in one transaction. `what` it is: recipe, key and name."""
        choices = {d.name: d.labels for d in self.space().dimensions}
        trial = optuna.create_trial(
            state=state,
            value=None if state == TrialState.FAIL else value,
            params=dict(params),
            distributions={name: CategoricalDistribution(choices[name]) for name in params},
            user_attrs=attributes_of(what.recipe, what.key, what.name, notes),
            intermediate_values=dict(enumerate(map(float, curve), start=1)),
            constraints={FEASIBLE: 1.0} if infeasible else None,
        )
        trial.number = number
        if state.is_finished():
            trial.set_user_attr("seal", seal_of(trial))
        attempts = itertools.count()

        def add() -> int:
            again = next(attempts) > 0
            try:
                with self._checks.requiring(number=number):
                    return self._storage.create_new_trial(self.optuna_study._study_id, template_trial=trial)
            except NumberTakenError as taken:
                if again and taken.number == number + 1:  # after an outage: the answer may have been lost, not the trial
                    last = self.optuna_study.get_trials(deepcopy=False)[-1]
                    if last.state == state and last.user_attrs == json.loads(json.dumps(trial.user_attrs)):
                        return last._trial_id
                error, rest = (DecisionLostError, "") if self.shared else (StorageError, f". {STRANGER}")
                raise error(f"{self.url}: trial {number} cannot be written, {taken}{rest}", self.url) from None

        trial._trial_id = self._ids[number] = self._do(add)
        record = self._take_in(trial)
        if not record.finished:
            self._open[number] = trial
        return record

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Records validation accuracy `value` after `epoch` (1-based) of a running trial.

        Returns False where it is there already. Another value (of a device that does not repeat itself) takes its place: its weights
        are those that exist. Raises ValueError if epochs are left out, StorageError if the trial has finished.
        """
        trial = self._running(number)
        known = trial.intermediate_values
        if epoch in known and (known[epoch] == value or (math.isnan(known[epoch]) and math.isnan(value))):
            return False
        if epoch < 1 or epoch > len(known) + 1:
            raise ValueError(f"epoch {epoch} of trial {number} cannot follow epoch {len(known)}")
        self._do_as_owner(trial, lambda i: self._storage.set_trial_intermediate_value(i, epoch, float(value)))
        trial.intermediate_values[epoch] = float(value)
        self._take_in(trial)
        return True

    def annotate(self, number: int, **notes: Any) -> None:
        """Sets user attributes of a running trial: its owner, how often it was tried. They show in `TrialRecord.extra`."""
        trial = self._running(number)
        for name, note in plain_notes(notes).items():
            if trial.user_attrs.get(name) != note:
                self._do_as_owner(trial, lambda i, n=name, v=note: self._storage.set_trial_user_attr(i, n, v))  # type: ignore[misc]
                trial.set_user_attr(name, note)
        self._take_in(trial)

    def finish(
        self,
        number: int,
        state: str,
        value: float | None = None,
        reason: str = "",
        extra: Mapping[str, Any] | None = None,
        *,
        infeasible: bool = False,
    ) -> None:
        """Ends a running trial as `complete` (with its value), `pruned` (value: its last one unless given) or `failed`, in one step.

        Finished already with the same state and value: nothing happens. Raises ValueError for a complete trial without a finite
        value, StorageError if it had finished otherwise.
        """
        if state == COMPLETE and (value is None or not math.isfinite(value)):
            raise ValueError(f"a complete trial has a finite value but trial {number} has {value}")
        done = self.record(number)
        if done.finished:
            if done.state == state and (value is None or done.value == value):
                return
            self._check_claim(number)
            raise StorageError(f"{self.url}: trial {number} had finished as {done.state} ({done.value}) already", self.url)
        trial = self._running(number)
        if state == PRUNED and value is None and trial.intermediate_values:
            value = trial.intermediate_values[max(trial.intermediate_values)]
        if state == FAILED or (value is not None and not math.isfinite(value)):
            value = None
        ended = copy.deepcopy(trial)
        ended.state, ended.value = OPTUNA_STATES[state], value
        ended.user_attrs |= plain_notes({"result": dict(extra or {}), "reason": reason})
        ended.set_user_attr("seal", seal_of(ended))
        attempts = itertools.count()

        def end(trial_id: int) -> None:
            # After an outage it may have been written though nobody could say so.
            if next(attempts) and self._storage.get_trial(trial_id).state == ended.state:
                return
            with self._checks.together():
                for name, note in ended.user_attrs.items():
                    if trial.user_attrs.get(name) != note:
                        self._storage.set_trial_user_attr(trial_id, name, note)
                if infeasible:
                    optuna.trial.Trial(self.optuna_study, trial_id).set_constraint(FEASIBLE, 1.0)
                fault("ledger.finishing", f"{number}")
                self._storage.set_trial_state_values(trial_id, ended.state, None if value is None else [value])

        self._do_as_owner(trial, end)
        if infeasible:
            ended.set_constraint(FEASIBLE, 1.0)
        self._take_in(ended)
        self.give_up(number)

    def _running(self, number: int) -> FrozenTrial:
        """The running trial with that number. Raises StorageError if none runs, ClaimLostError if it is another driver's."""
        self._check_claim(number)
        trial = self._open.get(number) or self._at_hand(number)
        if trial.state != TrialState.RUNNING:
            raise StorageError(f"{self.url}: trial {number} is not running but {trial.state.name.lower()}", self.url)
        self._open[number] = trial
        return trial

    def _check_claim(self, number: int) -> None:
        if not self._claims.owns(number):
            self._open.pop(number, None)
            raise ClaimLostError(f"{self.url}: trial {number} is another driver's now", self.url)

    def _do_as_owner(self, trial: FrozenTrial, write: Callable[[int], T]) -> T:
        """Runs `write(trial's id)`, each of whose transactions first looks whether the trial is this driver's."""
        number, trial_id = trial.number, trial._trial_id

        def action() -> T:
            self._check_claim(number)
            with self._checks.requiring(at_begin=lambda connection: self._claims.check_owner(connection, number, trial_id)):
                return write(trial_id)

        return self._do(action)
