"""The driver: the only process that talks to the storage. Suggest, dispatch, report, prune, tell; yield what happened.

Every decision is a function of the record: `suggest(space, facts, records, number)` and `should_prune(settings, curve,
other curves)`. The loop below holds nothing that the record does not hold too, except which slot runs which trial. So it
may be killed between any two lines: the next driver reads the record, hands trials that were running to workers again
(their checkpoints replay the epochs that the storage has not seen), and goes on.

With several workers trials are suggested ahead, one for every eight, so that a slot that falls free does not wait for the
sampler; they stand in the record like any other. On a storage that several drivers share, a driver decides under a lock, runs
only trials that it owns, takes over those whose driver is gone, and stays until the last has ended.

Knows nothing of tensors and nothing of Optuna: it speaks to a Ledger and to an Executor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from searchft.errors import StorageError
from searchft.execution.protocol import (
    CONTINUE,
    STOP,
    EpochDone,
    Executor,
    Job,
    JobDone,
    JobFailed,
    WorkerDied,
)
from searchft.faults import fault
from searchft.files import BEST_WEIGHTS, LAST_CHECKPOINT, remove_leftovers, trial_folder
from searchft.recipe import Recipe, SpaceFacts, trained_parameters
from searchft.search.claims import ClaimLostError, DecisionLostError, identity
from searchft.search.events import EpochFinished, Event, Note, StudyFinished, StudyOpened, TrialFinished, TrialStarted
from searchft.search.ledger import DAMAGED, Ledger
from searchft.search.prune import should_prune
from searchft.search.records import COMPLETE, TrialRecord, Trials, saved_seconds
from searchft.search.suggest import suggest
from searchft.space import Space

_POLL_S = 0.5
"""Longest wait for a message before signals and the clock are looked at again."""

_LOOK_AROUND_S = 2.0
"""How often a driver with nothing to do looks what the others have done."""

_KEEP_CLAIMS_S = 15.0
"""How often a driver that shares its study sees to it that it still holds its trials' locks."""

_SLOTS_PER_TRIAL_AHEAD = 8
"""Workers for whom together one more trial than they can run is suggested ahead."""


@dataclass
class _Running:
    """What the driver knows of a trial that a worker has."""

    number: int
    epochs: int
    named: bool
    """An enqueued row: somebody wants its result, so it is never pruned."""
    values: dict[int, float]
    """Validation accuracy by epoch, as the storage has it."""
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Epoch results seen in this session (replayed ones included)."""
    pruned: bool = False
    halted: bool = False
    """Told to stop, or another driver's now: how it ends is not to be recorded."""


_CURVES = ("train_loss", "train_accuracy", "val_loss", "seconds", "stored_s")
"""Kept per epoch beside the validation accuracy: written when the trial ends, a checkpoint has them until then."""


def safe_trial_folder(study_folder: Path, number: int) -> Path:
    """As `trial_folder`. Raises StorageError where it is reached through a link: what lies behind is not the study's."""
    folder = trial_folder(study_folder, number)
    for path in (folder.parent, folder):
        if path.is_symlink():
            raise StorageError(
                f"{path} is a link: nothing is written or removed through it. Put a folder in its place.", str(path)
            )
    return folder


def run_study(
    space: Space,
    facts: SpaceFacts,
    ledger: Ledger,
    executor: Executor,
    folder: Path,
    *,
    resumed: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    memory_of: Callable[[Recipe], int] = lambda recipe: 0,
) -> Iterator[Event]:
    """Runs the study to its budget and yields what happens. `executor.start` has been called.

    Args:
        folder: the study's folder; trials keep their checkpoints below it.
        stopping: asked at least every half second; True ends the run at once, resumable.
        memory_of: estimated peak of a trial in bytes (0: not known). Asked only where several workers might share a device.

    Ends with a StudyFinished. Raises StorageError where the storage or the disk fails.
    """
    driver = _Driver(space, facts, ledger, executor, folder, stopping, memory_of)
    yield StudyOpened(space, facts, tuple(ledger.records()), ledger.url, executor.devices, resumed)
    try:
        yield from driver.loop()
    finally:
        executor.close()


def weights_kept(trials: Trials, best_count: int) -> set[int]:
    """Numbers of the trials whose best weights stay on disk: the best ones, and the enqueued rows, which export scores too."""
    rows = [r for number in trials.rows.values() if (r := trials.numbered(number)) is not None]
    kept = {r.number for r in rows if r.state == COMPLETE and r.answered_from is None}
    return kept.union(trials.best_numbers(best_count))


class _Driver:
    def __init__(
        self,
        space: Space,
        facts: SpaceFacts,
        ledger: Ledger,
        executor: Executor,
        folder: Path,
        stopping: Callable[[], bool],
        memory_of: Callable[[Recipe], int],
    ) -> None:
        self.space, self.facts, self.ledger, self.executor = space, facts, ledger, executor
        self.folder, self.stopping, self.memory_of = folder, stopping, memory_of
        slots = len(executor.devices)
        self.ahead = -(-slots // _SLOTS_PER_TRIAL_AHEAD) if slots > 1 else 0
        """How many trials may wait for a slot."""
        self.running: dict[int, _Running] = {}
        """By slot."""
        records = ledger.records()
        self.curves: dict[int, Sequence[float]] = {}
        """Validation accuracy by trial, as the storage has it."""
        self._learn(records)
        self.queue: list[TrialRecord] = ledger.take_over(records)
        """Trials that wait for a slot: those of a driver that is gone, those whose worker died, those suggested ahead."""
        self.claims_kept = time.monotonic()
        self.look_again = 0.0
        """When to ask again what other drivers have done, after there was nothing to do."""
        own = (r for r in records if r.finished and r.answered_from is None)
        self.untidy = {r.number for r in own if not r.reason.startswith(DAMAGED)}
        """Finished trials whose folders may hold what is not needed any more, or not for long."""
        self.owner = identity()
        """Noted on running trials, for people: the locks decide."""
        self.deadline = time.monotonic() + space.search.timeout_s if space.search.timeout_s else None

    def loop(self) -> Iterator[Event]:
        """Until the budget is spent, every configuration is known, time is up, or somebody says stop."""
        why = ""
        self._clean()  # what a driver killed between telling and tidying left
        while True:
            if not why and self.stopping():
                why = "interrupted"
            if not why and self.deadline is not None and time.monotonic() > self.deadline:
                why = "timeout"
            if why in ("interrupted", "timeout"):
                break
            why = yield from self._fill(why)
            if not self.running and not self.queue and why:
                break
            messages = self.executor.wait(0.0)
            if not messages and not why and len(self.queue) < self.ahead:
                waiting = len(self.queue)
                why = yield from self._suggest_more()
                if len(self.queue) > waiting:
                    continue
            self._keep_claims()
            for slot, message in messages or self.executor.wait(_POLL_S):
                yield from self._handle(slot, message)
        fault("driver.ending")
        yield StudyFinished(tuple(self.ledger.records()), why, saved_seconds(self.ledger.records()))

    def _keep_claims(self) -> None:
        """An epoch may take longer than other drivers wait for the owner of a trial whose lock was lost."""
        if self.ledger.shared and time.monotonic() - self.claims_kept > _KEEP_CLAIMS_S:
            self.ledger.keep_claims()
            self.claims_kept = time.monotonic()

    # What to do next

    def _fill(self, why: str) -> Generator[Event, None, str]:
        """Gives free slots trials. `why` there are no more to be suggested (empty: there may be) comes in and goes out."""
        free = [s for s in range(len(self.executor.devices)) if s not in self.running and self.executor.accepts(s, 0)]
        while free:
            fitting = self._fitting(free)
            if fitting is None:
                if why or len(self.queue) > self.ahead:  # those that wait do not fit beside what runs
                    return why
                waiting = len(self.queue)
                why = yield from self._suggest_more()
                if len(self.queue) == waiting:
                    return why
                continue
            slot, record = fitting
            free.remove(slot)
            yield from self._dispatch(slot, record)
        return why

    def _fitting(self, free: Sequence[int]) -> tuple[int, TrialRecord] | None:
        """The first trial that waits and has a slot whose device has room for it, taken from the queue; None: there is none."""
        for position, record in enumerate(self.queue):
            memory_bytes = self._memory_of(record)
            for slot in free:
                if self.executor.accepts(slot, memory_bytes):
                    del self.queue[position]
                    return slot, record
        return None

    def _memory_of(self, record: TrialRecord) -> int:
        return self.memory_of(record.recipe) if len(self.executor.devices) > 1 else 0

    def _suggest_more(self) -> Generator[Event, None, str]:
        """Puts one more trial into the queue if there is one to be had; returns why there will be none (empty: there may be)."""
        if self.ledger.shared and time.monotonic() < self.look_again:
            return ""
        while not self.stopping():
            # Yielding inside the lock would keep other drivers waiting while somebody draws
            try:
                with self.ledger.deciding():
                    outcome = self._decide()
            except DecisionLostError:  # the lock was lost with its connection: what was read is not true any more
                outcome = ""
            if isinstance(outcome, TrialFinished):
                yield outcome
                continue
            if self.ledger.shared and not self.queue:
                self.look_again = time.monotonic() + _LOOK_AROUND_S
            return outcome
        return ""

    def _decide(self) -> TrialFinished | str:
        """One decision: a trial is begun (and queued), or answered from the record, or there is none and why (empty: wait)."""
        records = self.ledger.trials()
        if self.ledger.shared:
            self._learn(records)
            mine = self._mine()
            self.queue += self.ledger.take_over([r for r in records.running.values() if r.number not in mine])
            if self.queue:
                return ""
        number = self.ledger.next_number()
        busy = bool(self.running or self.queue or (self.ledger.shared and records.running))
        if records.own >= self.space.search.trials:
            return "" if busy and self.ledger.shared else "trials"
        suggestion = suggest(self.space, self.facts, records, number)
        if suggestion is None:
            return "" if busy else "exhausted"
        if any(r.key == suggestion.key for r in records.running.values()):
            return ""  # an enqueued row that says the same as one that runs: its answer is on the way
        known = records.answer_to(suggestion.key)
        fault("driver.suggested", f"{number}")
        if known is not None:
            answered = self.ledger.answer(suggestion, number, known)
            fault("driver.answered", f"{number}")
            return TrialFinished(answered)
        begun = self.ledger.start(suggestion, number, owner=self.owner)
        fault("driver.started", f"{number}")
        self.queue.append(begun)
        return ""

    def _mine(self) -> set[int]:
        return {t.number for t in self.running.values()} | {r.number for r in self.queue}

    def _learn(self, records: Sequence[TrialRecord]) -> None:
        """Takes over what the storage says of all trials but those that run here."""
        mine = {t.number for t in self.running.values()}
        for record in records:
            if record.answered_from is None and record.number not in mine:
                self.curves[record.number] = record.curve

    def _dispatch(self, slot: int, record: TrialRecord) -> Iterator[Event]:
        try:
            if record.extra.get("owner") != self.owner:
                self.ledger.annotate(record.number, owner=self.owner)
        except ClaimLostError as lost:
            yield Note(str(lost), warning=True)
            return
        folder = safe_trial_folder(self.folder, record.number)
        if record.curve and not (folder / LAST_CHECKPOINT).exists():
            there = (record.extra.get("owner") or {}).get("host", "another machine")
            yield Note(
                f"trial {record.number} begins again: its checkpoint is not in {folder} (it ran on {there})", warning=True
            )
        self.running[slot] = _Running(record.number, record.recipe.epochs, bool(record.name), dict(enumerate(record.curve, 1)))
        self.executor.submit(slot, Job(record.number, record.recipe, record.key, str(folder), self._memory_of(record)))
        fault("driver.dispatched", f"{record.number}")
        yield TrialStarted(record, slot, len(record.curve))

    # What workers say

    def _handle(self, slot: int, message: object) -> Iterator[Event]:
        trial = self.running.get(slot)
        try:
            yield from self._heed(slot, trial, message)
        except ClaimLostError as lost:
            yield Note(f"{lost}; what this one has done of it is left", warning=True)
            if trial is not None and slot in self.running:  # at an epoch: the worker waits for an answer
                trial.halted = True
                self.executor.answer(slot, STOP)

    def _heed(self, slot: int, trial: _Running | None, message: object) -> Iterator[Event]:
        match message:
            case EpochDone() if trial is not None:
                yield from self._epoch(slot, trial, message)
            case JobDone() if trial is not None:
                del self.running[slot]
                if not trial.halted:
                    yield from self._finish(trial, "pruned" if trial.pruned else "complete")
            case JobFailed() if trial is not None:
                del self.running[slot]
                if (
                    message.kind == "held" and self.ledger.shared
                ):  # its old driver lives, only the database has lost sight of it
                    self.ledger.give_up(trial.number)
                    yield Note(f"trial {trial.number} is left to its worker: {message.message}", warning=True)
                    return
                if message.kind in ("storage", "held"):
                    raise StorageError(message.message)
                if message.traceback:
                    self.ledger.annotate(trial.number, traceback=message.traceback)
                yield from self._finish(trial, "failed", message.message, infeasible=message.kind == "memory")
            case WorkerDied():
                self.running.pop(slot, None)
                yield from self._died(trial, message)

    def _epoch(self, slot: int, trial: _Running, message: EpochDone) -> Iterator[Event]:
        result = dict(message.result)
        epoch, value = int(result["epoch"]), float(result["val_accuracy"])
        trial.results[epoch] = result
        fault("driver.heard", f"{trial.number} {epoch}")
        if trial.values.get(epoch) != value:  # another value: computed again on a device that does not repeat itself
            self.ledger.report(trial.number, epoch, value)
            trial.values[epoch] = value
            fault("driver.reported", f"{trial.number} {epoch}")
        yield EpochFinished(
            trial.number,
            slot,
            epoch,
            trial.epochs,
            result["train_loss"],
            result["train_accuracy"],
            value,
            result["seconds"],
            float(result.get("stored_s", 0.0)),
        )
        curve = [trial.values[e] for e in range(1, epoch + 1)]
        self.curves[trial.number] = curve
        if self.ledger.shared:
            self._learn(self.ledger.trials())
        if not trial.named:
            numbers = [number for number, other in self.curves.items() if other and number != trial.number]
            others = [self.curves[number] for number in numbers]
            settings, own = self.space.search, trial.number
            trial.pruned = should_prune(settings, curve, others, trial.epochs, number=own, numbers=numbers)
        trial.halted = not trial.pruned and (
            self.stopping() or (self.deadline is not None and time.monotonic() > self.deadline)
        )
        self.executor.answer(slot, STOP if trial.pruned or trial.halted else CONTINUE)

    def _finish(self, trial: _Running, state: str, reason: str = "", infeasible: bool = False) -> Iterator[Event]:
        results = [trial.results[e] for e in sorted(trial.results)]
        recipe = self.ledger.record(trial.number).recipe
        extra: dict[str, Any] = {"trained_parameters": trained_parameters(recipe, self.facts)}
        value = None
        if results:
            top = max(results, key=lambda r: (r["val_accuracy"], -r["epoch"]))
            value = float(top["val_accuracy"])
            extra |= {
                "best_epoch": top["epoch"],
                "train_accuracy": top["train_accuracy"],
                "val_loss": top["val_loss"],
                "val_balanced_accuracy": top["val_balanced_accuracy"],
            }
            extra["curves"] = {name: [r[name] for r in results] for name in _CURVES if name in results[0]}
            steps = [point for r in results for point in r["step_curve"]]
            if steps:
                extra["step_curve"] = steps
        if state != "failed" and value is None:
            state, reason = "failed", reason or "ended without an epoch"
        self.ledger.finish(trial.number, state, value, reason, extra, infeasible=infeasible)
        self.untidy.add(trial.number)
        self.look_again = 0.0
        fault("driver.told", f"{trial.number}")
        self._clean()
        record = self.ledger.record(trial.number)
        if reason:
            yield Note(f"trial {trial.number} {state}: {reason}", warning=True)
        yield TrialFinished(record)

    def _died(self, trial: _Running | None, message: WorkerDied) -> Iterator[Event]:
        if trial is None:
            yield Note(f"an idle {message.reason}; another takes its place", warning=True)
            return
        if message.out_of_memory:
            yield from self._finish(trial, "failed", "the kernel ended its worker: out of memory", infeasible=True)
            return
        tries = int(self.ledger.record(trial.number).extra.get("retries", 0)) + 1
        self.ledger.annotate(trial.number, retries=tries)
        if tries > self.space.search.max_retries:
            yield from self._finish(trial, "failed", f"{message.reason}, {tries} times")
            return
        yield Note(f"trial {trial.number}: {message.reason}; it goes on from its checkpoint", warning=True)
        self.queue.append(self.ledger.record(trial.number))

    # Tidying and accounts

    def _clean(self) -> None:
        """Keeps what a resume or an export needs: running trials' checkpoints, the best trials' and enqueued rows' weights."""
        kept = weights_kept(self.ledger.trials(), self.space.search.keep_checkpoints)
        for number in sorted(self.untidy):
            folder = safe_trial_folder(self.folder, number)
            if not folder.is_dir():
                continue
            (folder / LAST_CHECKPOINT).unlink(missing_ok=True)
            remove_leftovers(folder)
            fault("driver.tidying", f"{number}")
            if number not in kept:
                (folder / BEST_WEIGHTS).unlink(missing_ok=True)
        self.untidy &= kept
