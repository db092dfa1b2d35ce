"""The persistent study: what was chosen, what came of it, never half written.

An Optuna study on SQLite or a server, holding readable values only (0.5, "layer4", "256+128"), so that optuna-dashboard shows
what a person would write. Only drivers write: one, or on PostgreSQL several (see `search.claims`), each to its own trials:

- A trial appears whole, in one transaction, as RUNNING with its parameters and recipe, or (answered from another) finished.
  There is no moment at which a kill could leave half of one.
- Reporting an epoch and finishing a trial may be repeated: after a crash the driver replays what the checkpoint holds, and what
  the database has already stays as it is.
- Space, facts and environment are pinned at creation: written in pieces with a checksum, pointed at last.
- A server that goes away in mid-study is waited for.

User attributes of a trial: `recipe`, `key`, `name`, and where they apply `answered_from`, `reason`, `curves` (per-epoch lists
beside the validation accuracy, which Optuna keeps as intermediate values), and whatever `finish` is given. Of the study:
`pinned`, and `space`, `facts`, `environment` with their pieces.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from searchft.errors import InputError, StorageError
from searchft.faults import fault
from searchft.machine import processor_name
from searchft.recipe import Recipe, SpaceFacts
from searchft.search.claims import ClaimLostError, Claims, FolderClaims, NoClaims, PostgresClaims
from searchft.search.records import COMPLETE, FAILED, PRUNED, RUNNING, Label, TrialRecord, Trials, best
from searchft.search.rows import NumberTaken, add_trial, end_trial, put_epoch
from searchft.search.storage import (
    ServerAwayError,
    check_database,
    default_url,
    dump_json,
    is_postgres,
    mask_url,
    open_storage,
    storage_errors,
    study_exists,
)

if TYPE_CHECKING:
    from searchft.search.suggest import Suggestion
    from searchft.space import Space

__all__ = ["Ledger", "best", "environment", "mask_url"]

OUTAGE_PATIENCE_S = 180.0
"""How long a database server may be away in mid-study: a minute's outage with room."""

FIRST_WAIT_S = 0.25
"""How long to wait before a server that was away is asked again; then twice as long each time, up to five seconds."""

PIECE_LENGTH = 15_000
"""Characters per piece of a pinned text: MySQL's TEXT ends at 65,535 bytes, a character may take four."""

_STATES: Mapping[TrialState, str] = MappingProxyType(
    {TrialState.RUNNING: RUNNING, TrialState.COMPLETE: COMPLETE, TrialState.PRUNED: PRUNED, TrialState.FAIL: FAILED}
)
_OPTUNA_STATES = MappingProxyType({ours: theirs for theirs, ours in _STATES.items()})

_OURS = frozenset({"recipe", "key", "name", "answered_from", "reason", "seconds", "seal"})
"""User attributes that are fields of TrialRecord; all others are its `extra`."""

_OF_ITS_OWN = frozenset({"curves", "errors", "owner", "retries", "traceback"})
"""User attributes that tell how a trial ran: one that is answered from it did not run."""

_FEASIBLE = "feasible"
"""Name of the constraint: above 0 means that the configuration cannot run here."""

_VERSIONS_OF = ("searchft", "torch", "torchvision", "timm", "optuna", "numpy", "pillow")

_STRANGER = "Another program writes to this study: stop it and run again."

T = TypeVar("T")


def environment() -> dict[str, Any]:
    """What a study was made with: versions, host, operating system, processor. Imports none of the packages it names."""
    versions: dict[str, str] = {"python": platform.python_version()}
    for package in _VERSIONS_OF:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "host": socket.gethostname(),
        "os": platform.platform(),
        "cpu": processor_name(),
        "cpus": os.cpu_count(),
    }


class Ledger:
    """One study's record. Open it with `Ledger.open`, close it (or leave its `with` block) to let another driver in."""

    def __init__(self, study: optuna.Study, url: str, claims: Claims, patience_s: float) -> None:
        self._study = study
        self._storage = study._storage
        self._url = url
        self._claims = claims
        self._patience_s = patience_s
        self._space: Space | None = None
        self._known = Trials()
        self._open: dict[int, FrozenTrial] = {}
        """This driver's running trials, as they were last written: nobody else writes to them."""
        self._recipes: dict[int, Recipe] = {}
        """Of trials that ran when they were last read: parsing one costs more than all else about it."""
        self._ids: dict[int, int] = {}
        self._loaded = False
        """Whether `_known` is the whole study, and nobody else adds to it."""

    # ---- opening ----

    @classmethod
    def open(cls, url: str, name: str, folder: Path, *, create: bool, exclusive: bool = True) -> Ledger:
        """The study `name` in the database `url` (empty: SQLite in `folder`).

        `exclusive` is for a driver; a reader (`show`, `report`) must not write. With `create` a missing study is made. Raises
        StorageError if another driver runs it (which on PostgreSQL it may) or the database fails, InputError if it does not exist.
        """
        folder = Path(folder)
        url = url or default_url(folder)
        if not create and not study_exists(url, name):  # before a lock makes the folder
            raise InputError(f"there is no study {name!r} in {mask_url(url)}", mask_url(url))
        on_server = not url.startswith("sqlite")
        claims: Claims = NoClaims()
        try:
            with storage_errors(url):
                if exclusive and not is_postgres(url):
                    claims = FolderClaims(folder)
                    check_database(url)
                storage = open_storage(url, folder, create=create)
                if exclusive and is_postgres(url):
                    claims = PostgresClaims(url, name)
                # Our own sampler is elsewhere; Optuna's default would be consulted whenever a Trial object is made.
                sampler = optuna.samplers.RandomSampler(seed=0)
                with claims.deciding() if create else contextlib.nullcontext():  # two that create it at once would both fail
                    try:
                        study = optuna.load_study(study_name=name, storage=storage, sampler=sampler)
                    except KeyError:
                        if not create:
                            raise InputError(f"there is no study {name!r} in {mask_url(url)}", mask_url(url)) from None
                        study = optuna.create_study(study_name=name, storage=storage, sampler=sampler, direction="maximize")
                return cls(study, url, claims, OUTAGE_PATIENCE_S if on_server else 0.0)
        except BaseException:
            claims.release()
            raise

    def close(self) -> None:
        """Lets go of database and locks; again: nothing."""
        backend = getattr(self._storage, "_backend", self._storage)
        self._storage.remove_session()
        if hasattr(backend, "engine"):
            backend.engine.dispose()
        self._claims.release()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The study's name."""
        return self._study.study_name

    @property
    def url(self) -> str:
        """Where it is stored, password masked."""
        return mask_url(self._url)

    # ---- beside other drivers ----

    @property
    def shared(self) -> bool:
        """Whether other drivers may run trials of this study at the same time."""
        return self._claims.shared

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """Within, what `records` says stays true until a trial has been added: no other driver adds one."""
        waiting = contextlib.ExitStack()
        self._do(lambda: waiting.enter_context(self._claims.deciding()))
        with waiting:
            yield

    def take_over(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Those of the running trials that nobody runs, which are this driver's from now on, as they stand now."""
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

    # ---- what was pinned ----

    @property
    def pinned(self) -> bool:
        """Whether it was sealed: false for a study whose creation was cut short."""
        return bool(self._attributes().get("pinned"))

    def seal(self) -> None:
        """Marks the study as created to its end."""
        if not self.pinned:
            self._set_study_attribute("pinned", True)

    def pin(self, space: Space, facts: SpaceFacts, environment: Mapping[str, Any], *, seal: bool = True) -> None:
        """Stores what the study is about. Again with other values: they take the old ones' place (a larger budget, say).

        A new study counts as created once it is sealed: at once, or later by `seal`.
        """
        values = {"facts": facts.to_json(), "environment": dict(environment), "space": space.to_json()}
        attributes = self._attributes()
        for name, value in values.items():
            text = dump_json(value)
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            pieces = [text[i : i + PIECE_LENGTH] for i in range(0, len(text), PIECE_LENGTH)]
            if attributes.get(name, {}).get("sha256") == sha256:
                continue
            for i, piece in enumerate(pieces):
                self._set_study_attribute(f"{name}.{sha256[:12]}.{i}", piece)
            fault("study.pinning", name)
            self._set_study_attribute(name, {"sha256": sha256, "pieces": len(pieces)})
        if seal:
            self.seal()
        self._space = space

    def space(self) -> Space:
        """The pinned space. Raises StorageError if it is missing or damaged."""
        if self._space is None:
            from searchft.space import Space

            self._space = Space.from_json(self._pinned_value("space"))
        return self._space

    def facts(self) -> SpaceFacts:
        """The pinned facts. Raises StorageError if they are missing or damaged."""
        return SpaceFacts.from_json(self._pinned_value("facts"))

    def environment(self) -> dict[str, Any]:
        """The pinned environment (see `environment`). Raises StorageError if it is missing or damaged."""
        found: dict[str, Any] = self._pinned_value("environment")
        return found

    def _pinned_value(self, name: str) -> Any:
        attributes = self._attributes()
        pointer = attributes.get(name)
        if pointer is None:
            raise StorageError(
                f"{self.url}: the study {self.name!r} holds no {name}: its creation was cut short. Start it afresh.", self.url
            )
        text = "".join(attributes.get(f"{name}.{pointer['sha256'][:12]}.{i}", "") for i in range(pointer["pieces"]))
        if hashlib.sha256(text.encode()).hexdigest() != pointer["sha256"]:
            raise StorageError(
                f"{self.url}: the {name} of study {self.name!r} is damaged. Put back a copy of the database.", self.url
            )
        return json.loads(text)

    def _attributes(self) -> dict[str, Any]:
        return self._do(lambda: self._study.user_attrs)

    def _set_study_attribute(self, name: str, value: Any) -> None:
        self._do(lambda: self._study.set_user_attr(name, value))

    # ---- reading ----

    def trials(self) -> Trials:
        """The study's record. It goes on while this ledger writes; asked for again, it also has what other drivers wrote.

        A study's only driver reads the database once. Trials that searchft did not write (added by hand) are passed over.
        """
        if not self._loaded:
            for trial in self._trials():
                known = self._known.numbered(trial.number)
                if (known is None or not known.finished) and "recipe" in trial.user_attrs and trial.state in _STATES:
                    self._take_in(trial, check=True)
            if self._claims.alone:
                self._open.update((number, self._at_hand(number)) for number in self._known.running)
                self._loaded = True
        return self._known

    def records(self) -> list[TrialRecord]:
        """All trials by number, as they stand now."""
        return list(self.trials())

    def _check_seal(self, trial: FrozenTrial) -> None:
        """SQLite's pages and a server's rows may be damaged, or changed by hand, without anybody's notice but ours."""
        sealed = trial.user_attrs.get("seal")
        value = trial.value
        content = (trial.number, _STATES[trial.state], value, trial.params, trial.intermediate_values, trial.user_attrs)
        if sealed is not None and sealed != _seal(*content):
            raise StorageError(
                f"{self.url}: trial {trial.number} is damaged, it is not what was written when it finished. "
                "Put back a copy of the database, or start over with --fresh (the old one is kept aside).",
                self.url,
            )

    def record(self, number: int) -> TrialRecord:
        """One trial as it stands now. Raises StorageError if there is none."""
        known = self._known.numbered(number)
        if known is not None and (known.finished or number in self._open):
            return known
        return self._take_in(self._at_hand(number), check=True)

    def _take_in(self, trial: FrozenTrial, check: bool = False) -> TrialRecord:
        """A trial's record, remembered; `check`: it was read from the database."""
        record = _record(trial, self._recipes.get(trial.number))
        if record.finished:
            if check:
                self._check_seal(trial)
            self._recipes.pop(trial.number, None)
        else:
            self._recipes[trial.number] = record.recipe
        self._known.put(record)
        return record

    def next_number(self) -> int:
        """The number that the next new trial will have, once `records` has been asked: strangers' trials count too."""
        return max(self._ids, default=-1) + 1

    def _at_hand(self, number: int) -> FrozenTrial:
        """A copy of a trial as the database has it."""
        if number not in self._ids:
            self._trials()
        if number not in self._ids:
            raise StorageError(f"{self.url}: there is no trial {number}", self.url)
        return copy.deepcopy(self._do(lambda: self._storage.get_trial(self._ids[number])))

    def _trials(self) -> list[FrozenTrial]:
        trials = self._do(lambda: self._study.get_trials(deepcopy=False))
        self._ids.update((trial.number, trial._trial_id) for trial in trials)
        return trials

    # ---- writing ----

    def start(self, suggestion: Suggestion, number: int, **notes: Any) -> TrialRecord:
        """Writes trial `number` as RUNNING, whole, in one step. `notes` become user attributes (an owner, say).

        Between reading the records and this, other drivers must be kept out (`deciding`). Raises StorageError if the database
        would give it another number: then a stranger is writing.
        """
        if not self._do(lambda: self._claims.claim(number)):  # before it exists: no moment at which nobody owns it
            raise StorageError(f"{self.url}: trial {number} is another driver's before it was begun. {_STRANGER}", self.url)
        try:
            return self._add(suggestion, number, TrialState.RUNNING, None, notes, infeasible=False)
        except BaseException:
            self._claims.drop(number)
            raise

    def answer(self, suggestion: Suggestion, number: int, from_record: TrialRecord) -> TrialRecord:
        """Writes trial `number` finished, in one step, with the result of a trial of the same key, without a curve.

        A complete configuration answers complete, a pruned or infeasible one pruned. What else was measured is copied to an enqueued
        row only; of others `answered_from` says where it stands. Raises ValueError if the record is no answer.
        """
        if not from_record.answers or from_record.key != suggestion.key:
            raise ValueError(f"trial {from_record.number} is no answer for trial {number}")
        state = TrialState.COMPLETE if from_record.state == COMPLETE else TrialState.PRUNED
        notes: dict[str, Any] = {}
        if suggestion.name:  # a row of a result table
            notes = {k: v for k, v in from_record.extra.items() if k not in _OF_ITS_OWN}
        notes |= {"answered_from": from_record.number, "reason": from_record.reason}
        return self._add(suggestion, number, state, from_record.value, notes, infeasible=from_record.infeasible)

    def adopt(self, record: TrialRecord, number: int, params: Mapping[str, Label], source: str) -> None:
        """Writes a copy of another study's finished trial, curve and all, in one step; `params`: its labels in this study's space.

        Labels that this study's space does not have are left out. `source` (the other study's name) is kept as the user
        attribute `adopted_from`. Raises ValueError for a trial that has not finished or was itself answered.
        """
        if not record.finished or record.answered_from is not None:
            raise ValueError(f"trial {record.number} of {source} has no result of its own to adopt")
        notes: dict[str, Any] = dict(record.extra) | {"reason": record.reason, "seconds": record.seconds}
        labels = {d.name: [(type(label), label) for label in d.labels] for d in self.space().dimensions}
        notes["adopted_from"] = {"study": source, "number": record.number}
        self._write(
            number,
            params={n: label for n, label in params.items() if (type(label), label) in labels.get(n, ())},
            state=_OPTUNA_STATES[record.state],
            value=record.value,
            curve=record.curve,
            attributes=_attributes(record.recipe, record.key, record.name, notes),
            infeasible=record.infeasible,
        )

    def report(self, number: int, epoch: int, value: float, extra: Mapping[str, Any] | None = None) -> bool:
        """Records validation accuracy `value` after `epoch` (1-based) of a running trial; `extra`: more per-epoch numbers.

        Already there and equal: nothing happens and False is returned. There with another value (an epoch computed again on a
        device that does not repeat itself): the new one takes its place, because its weights are those that exist. Raises
        ValueError if epochs are left out, StorageError if the trial has finished.
        """
        trial = self._running(number)
        known = trial.intermediate_values
        if epoch in known and _same(known[epoch], value):
            return False
        if epoch < 1 or epoch > len(known) + 1:
            raise ValueError(f"epoch {epoch} of trial {number} cannot follow epoch {len(known)}")
        if extra:
            curves = {k: list(v) for k, v in trial.user_attrs.get("curves", {}).items()}
            for name, number_of_it in extra.items():
                values = curves.setdefault(name, [])
                values += [None] * (epoch - len(values))
                values[epoch - 1] = _plain(number_of_it)
            # before the value, so that a curve never shows an epoch of which the rest is missing
            self._set_trial_attribute(trial, "curves", curves)
        self._do(lambda: put_epoch(self._storage, trial._trial_id, epoch, float(value)))
        trial.intermediate_values[epoch] = float(value)
        self._take_in(trial)
        return True

    def annotate(self, number: int, **notes: Any) -> None:
        """Sets user attributes of a running trial: its owner, how often it was tried. They show in `TrialRecord.extra`."""
        trial = self._running(number)
        for name, value in notes.items():
            if trial.user_attrs.get(name) != value:
                self._set_trial_attribute(trial, name, value)
        self._take_in(trial)

    def finish(
        self,
        number: int,
        state: str,
        value: float | None = None,
        reason: str = "",
        extra: Mapping[str, Any] | None = None,
        *,
        seconds: float | None = None,
        infeasible: bool = False,
    ) -> None:
        """Ends a running trial as `complete` (with its value), `pruned` (value: its last one unless given) or `failed`.

        In one step: killed before, the trial is still running and may be finished again. Finished already with the same state and
        value: nothing happens. Raises ValueError for a complete trial without a finite value, StorageError if it had
        finished otherwise.
        """
        if state not in (COMPLETE, PRUNED, FAILED):
            raise ValueError(f"a trial ends complete, pruned or failed but not {state!r}")
        if state == COMPLETE and (value is None or not math.isfinite(value)):
            raise ValueError(f"a complete trial has a finite value but trial {number} has {value}")
        done = self.record(number)
        if done.finished:
            if done.state == state and (value is None or done.value == value):
                return
            raise StorageError(f"{self.url}: trial {number} had finished as {done.state} ({done.value}) already", self.url)
        trial = self._running(number)
        if state == PRUNED and value is None and trial.intermediate_values:
            value = trial.intermediate_values[max(trial.intermediate_values)]
        if state == FAILED or (value is not None and not math.isfinite(value)):
            value = None
        notes = {**(extra or {}), "reason": reason, "seconds": seconds}
        attributes = {name: _plain(note) for name, note in notes.items() if note not in (None, "")}
        held = {**trial.user_attrs, **attributes}
        attributes["seal"] = _seal(number, state, value, trial.params, trial.intermediate_values, held)
        if infeasible and not trial.constraints:
            handle = self._do(lambda: optuna.trial.Trial(self._study, trial._trial_id))
            self._do(lambda: handle.set_constraint(_FEASIBLE, 1.0))
            trial.set_constraint(_FEASIBLE, 1.0)

        fault("ledger.finishing", f"{number}")
        asked = 0

        def end() -> None:
            nonlocal asked
            asked += 1
            # after an outage the state may have been written though nobody could say so
            if asked == 1 or self._storage.get_trial(trial._trial_id).state == TrialState.RUNNING:
                end_trial(self._storage, trial._trial_id, _OPTUNA_STATES[state], value, attributes)

        self._do(end)
        trial.state, trial.value, trial.user_attrs = _OPTUNA_STATES[state], value, {**held, "seal": attributes["seal"]}
        self._take_in(trial)
        self._open.pop(number, None)
        self._claims.drop(number)

    # ---- how ----

    def _add(
        self,
        suggestion: Suggestion,
        number: int,
        state: TrialState,
        value: float | None,
        notes: Mapping[str, Any],
        infeasible: bool,
    ) -> TrialRecord:
        attributes = _attributes(suggestion.recipe, suggestion.key, suggestion.name, notes)
        labels = self.space().labels_of(suggestion.chosen)
        return self._write(
            number, params=labels, state=state, value=value, curve=(), attributes=attributes, infeasible=infeasible
        )

    def _write(
        self,
        number: int,
        *,
        params: Mapping[str, Label],
        state: TrialState,
        value: float | None,
        curve: Sequence[float],
        attributes: dict[str, Any],
        infeasible: bool,
    ) -> TrialRecord:
        labels = {d.name: d.labels for d in self.space().dimensions}
        distributions: dict[str, BaseDistribution] = {n: CategoricalDistribution(labels[n]) for n in params}
        if state == TrialState.FAIL:
            value = None
        epochs = dict(enumerate(map(float, curve), start=1))
        if state.is_finished():
            attributes["seal"] = _seal(number, _STATES[state], value, params, epochs, attributes)
        trial = optuna.create_trial(
            state=state,
            value=value,
            params=dict(params),
            distributions=distributions,
            user_attrs=attributes,
            intermediate_values=epochs,
            constraints={_FEASIBLE: 1.0} if infeasible else None,
        )

        asked = 0

        def add() -> int:
            nonlocal asked
            asked += 1
            try:
                return add_trial(self._storage, self._study._study_id, number, trial)
            except NumberTaken as taken:
                if asked > 1 and taken.number == number + 1:
                    # Asked again after an outage, and it had been written: the answer was lost, not the trial.
                    last = self._study.get_trials(deepcopy=False)[-1]
                    if last.state == state and last.user_attrs == json.loads(dump_json(attributes)):
                        return int(last._trial_id)
                raise StorageError(f"{self.url}: trial {number} cannot be written, {taken}. {_STRANGER}", self.url) from None

        trial_id = self._do(add)
        trial.number, trial._trial_id = number, trial_id
        self._ids[number] = trial_id
        record = self._take_in(trial)
        if not record.finished:
            self._open[number] = trial
        return record

    def _running(self, number: int) -> FrozenTrial:
        """The running trial with that number, as it stands now. Raises StorageError if there is none or it has finished, and
        ClaimLostError if it is another driver's."""
        trial = self._open.get(number) or self._at_hand(number)
        self._do(lambda: None)  # whether it is still ours is known only now
        if not self._claims.owns(number):
            self._open.pop(number, None)
            raise ClaimLostError(f"{self.url}: trial {number} is another driver's now", self.url)
        if trial.state != TrialState.RUNNING:
            raise StorageError(f"{self.url}: trial {number} is not running but {trial.state.name.lower()}", self.url)
        if not isinstance(self._claims, NoClaims):
            self._open[number] = trial
        return trial

    def _set_trial_attribute(self, trial: FrozenTrial, name: str, value: Any) -> None:
        plain = _plain(value)
        self._do(lambda: self._storage.set_trial_user_attr(trial._trial_id, name, plain))
        trial.user_attrs = {**trial.user_attrs, name: plain}

    def _do(self, action: Callable[[], T]) -> T:
        """Runs a database action with our errors. A server that is away is waited for; every action here may be repeated."""
        deadline = time.monotonic() + self._patience_s
        wait_s = FIRST_WAIT_S
        while True:
            try:
                with storage_errors(self._url):
                    # Not only after a failure: the pool reconnects silently after a restart, and what is written then must be
                    # written by the trial's owner.
                    self._claims.ensure()
                    return action()
            except optuna.exceptions.UpdateFinishedTrialError as error:
                raise StorageError(f"{self.url}: a running trial was ended from elsewhere. {_STRANGER}", self.url) from error
            except ServerAwayError:
                if time.monotonic() + wait_s > deadline:
                    raise
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, 5.0)


def _seal(
    number: int,
    state: str,
    value: float | None,
    params: Mapping[str, Any],
    epochs: Mapping[int, float],
    attributes: Mapping[str, Any],
) -> str:
    """SHA-256 of what a finished trial says, its curve among it."""
    said = [attributes.get(name) for name in ("recipe", "key", "name", "answered_from")]
    curve = [[epoch, float(epochs[epoch])] for epoch in sorted(epochs)]
    value = None if value is None else float(value)
    text = json.dumps(_plain([number, state, value, dict(sorted(params.items())), curve, *said]), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _attributes(recipe: Recipe, key: str, name: str, notes: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's user attributes, as plain JSON values."""
    attributes = {"recipe": recipe.to_json(), "key": key, "name": name, **notes}
    return {k: _plain(v) for k, v in attributes.items() if v not in ("", None)}


def _record(trial: FrozenTrial, recipe: Recipe | None = None) -> TrialRecord:
    """Optuna's trial in our words; `recipe`: what it says it ran, if that is known already."""
    attributes = trial.user_attrs
    curve: list[float] = []
    while len(curve) + 1 in trial.intermediate_values:
        curve.append(trial.intermediate_values[len(curve) + 1])
    seconds = attributes.get("seconds")
    if seconds is None:
        seconds = sum(s for s in attributes.get("curves", {}).get("seconds", ()) if s is not None)
    return TrialRecord(
        number=trial.number,
        name=attributes.get("name", ""),
        state=_STATES[trial.state],
        params=MappingProxyType(dict(trial.params)),
        recipe=recipe or Recipe.from_json(attributes["recipe"]),
        key=attributes["key"],
        value=trial.value if trial.state.is_finished() else None,
        curve=tuple(curve),
        answered_from=attributes.get("answered_from"),
        infeasible=any(v > 0 for v in trial.constraints.values()),
        reason=attributes.get("reason", ""),
        seconds=float(seconds),
        extra=MappingProxyType({k: v for k, v in attributes.items() if k not in _OURS}),
    )


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _plain(value: Any) -> Any:
    """As JSON can hold it everywhere: NaN and infinities as null (PostgreSQL's and browsers' JSON have none), tuples as lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if hasattr(value, "item"):  # numpy's numbers
        return _plain(value.item())
    raise TypeError(f"an attribute must be plain data but got {type(value).__name__}")
