"""The driver: the only process that talks to the storage. It suggests, dispatches, reports, prunes, finishes, and yields events.

Every decision is a function of the record, and the driver holds nothing that the record does not hold too, except which slot runs
which trial. So it may be killed between any two lines: the next driver reads the record and hands running trials to workers again,
whose checkpoints replay the epochs that the storage has not seen.

With several workers trials are suggested ahead, so that a free slot does not wait for the sampler. Where several drivers share a
storage, each decides under a lock, runs only trials that it owns, takes over those whose driver is gone, and stays until the last
has ended. The driver knows nothing of tensors and nothing of Optuna: it speaks to a Ledger and to an Executor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from searchft.errors import StorageError
from searchft.execution.protocol import CONTINUE, STOP, EpochDone, Executor, Job, JobDone, JobFailed, Message, WorkerDied
from searchft.faults import fault
from searchft.files import LAST_CHECKPOINT
from searchft.recipe import ResolvedTrial, SpaceFacts, resolve, trained_parameters
from searchft.search import events
from searchft.search.claims import ClaimLostError, DecisionLostError, identity
from searchft.search.events import EpochFinished, Event, Note, StopReason, TrialFinished, TrialStarted
from searchft.search.folders import safe_trial_folder, tidy_trial_folder, weights_kept
from searchft.search.ledger import DAMAGED, Ledger
from searchft.search.prune import should_prune
from searchft.search.records import COMPLETE, FAILED, PRUNED, TrialRecord, saved_seconds, summarize_epochs
from searchft.search.suggest import suggest
from searchft.space import Space

_POLL_S = 0.5  # longest wait for a message before signals and the clock are looked at again
_LOOK_AROUND_S = 2.0  # how often a driver with nothing to do looks what the others have done
_KEEP_CLAIMS_S = 15.0  # how often a driver that shares its study checks that it still holds its trials' locks
_SLOTS_PER_TRIAL_AHEAD = 8
_FAILURES_IN_A_ROW = 3  # after so many trials that raised an error, no epoch in between, the fault is not the trials'
_SILENT_EPOCHS, _SILENT_AT_LEAST_S = 10, 60.0
"""A worker is called silent after so many times its last epoch, but not before so many seconds."""
_AT_ONCE = (StopReason.INTERRUPTED, StopReason.TIMEOUT, StopReason.FAILURES)
"""Reasons that do not wait for what runs: it stays `running` in the record, for the next driver."""


def run_study(
    space: Space,
    facts: SpaceFacts,
    ledger: Ledger,
    executor: Executor,
    folder: Path,
    *,
    resumed: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    memory_of: Callable[[ResolvedTrial], int] = lambda trial: 0,
) -> Iterator[Event]:
    """Runs the study to its budget and yields what happens, a StudyFinished last. `executor.start` has been called.

    Args:
        folder: the study's folder; trials keep their checkpoints below it.
        stopping: asked at least every half second; True ends the run at once, resumable.
        memory_of: estimated peak of a trial in bytes (0: not known), asked where several workers might share a device.

    Raises StorageError where the storage or the disk fails.
    """
    driver = _Driver(space, facts, ledger, executor, folder, stopping, memory_of)
    yield events.StudyOpened(space, facts, tuple(ledger.records()), ledger.url, executor.devices, resumed)
    try:
        yield from driver.loop()
    finally:
        executor.close()


@dataclass
class _RunningTrial:
    """A trial that a worker has."""

    record: TrialRecord  # as it stood when it was dispatched
    values: dict[int, float]  # validation accuracy by epoch, as the storage has it
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Epoch results seen in this session (replayed ones included)."""
    pruned: bool = False
    halted: bool = False  # it was asked to stop, or is another driver's now: how it ends is not to be recorded
    last_message_at: float = field(default_factory=time.monotonic)
    noted_silent: bool = False

    @property
    def number(self) -> int:
        return self.record.number


@dataclass
class _Driver:
    space: Space
    facts: SpaceFacts
    ledger: Ledger
    executor: Executor
    folder: Path
    stopping: Callable[[], bool]
    memory_of: Callable[[ResolvedTrial], int]
    stop: StopReason | None = None  # why no more trials are begun; None: more are

    def __post_init__(self) -> None:
        slots = len(self.executor.devices)
        self.ahead = -(-slots // _SLOTS_PER_TRIAL_AHEAD) if slots > 1 else 0  # how many trials may wait for a slot
        self.running: dict[int, _RunningTrial] = {}  # by slot
        self.curves: dict[int, Sequence[float]] = {}  # validation accuracy by trial, as the storage has it
        records = self.ledger.records()
        self._update_curves(records)
        self.queue: list[TrialRecord] = self.ledger.take_over(records)
        """Trials that wait for a slot: those of a driver that is gone, those to be tried again, those suggested ahead."""
        self.claims_kept = time.monotonic()
        own = (r for r in records if r.finished and r.answered_from is None)
        self.to_tidy = {r.number for r in own if not r.reason.startswith(DAMAGED)}
        """Finished trials whose folders may hold what is not needed any more, or not for long."""
        self.owner = identity()  # noted on running trials, for people: the locks decide
        self.look_again = 0.0  # when to ask again what other drivers have done, after there was nothing to do
        self.failed_in_a_row = 0
        self.longest_epoch_s = 0.0
        self.deadline = time.monotonic() + (self.space.search.timeout_s or float("inf"))

    def loop(self) -> Iterator[Event]:
        """Runs until the budget is spent, every configuration is known, time is up, or somebody says stop."""
        self._tidy_folders()  # what a driver that was killed between finishing and tidying left
        while not self._has_ended():
            # 1. A stop from outside comes before new work. What runs is left as it is: its checkpoint stands.
            self.stop = self._find_outer_stop() or self.stop
            if self.stop in _AT_ONCE:
                break
            # 2. Slots are filled before messages are waited for: a free worker is what costs most.
            yield from self._fill_slots()
            if self._has_ended():
                break
            # 3. While no worker speaks, the time goes into a trial ahead; but a worker that has spoken waits for an answer.
            messages = self.executor.wait(0.0)
            if not messages and self.stop is None and len(self.queue) < self.ahead and (yield from self._queue_next_trial()):
                continue
            # 4. An epoch may take longer than other drivers wait for the owner of a trial whose lock was lost.
            if self.ledger.shared and time.monotonic() - self.claims_kept > _KEEP_CLAIMS_S:
                self.ledger.keep_claims()
                self.claims_kept = time.monotonic()
            # 5. Messages are taken one by one: each may end a trial, and so change the answer to the next.
            for slot, message in messages or self.executor.wait(_POLL_S):
                yield from self._handle_message(slot, message)
            yield from self._note_silent_workers()
        fault("driver.ending")
        assert self.stop is not None
        records = tuple(self.ledger.records())
        yield events.StudyFinished(records, self.stop, saved_seconds(records))

    def _has_ended(self) -> bool:
        return self.stop is not None and not self.running and not self.queue

    def _find_outer_stop(self) -> StopReason | None:
        if self.stopping():
            return StopReason.INTERRUPTED
        return StopReason.TIMEOUT if time.monotonic() > self.deadline else None

    # What to do next

    def _fill_slots(self) -> Iterator[Event]:
        free = [s for s in range(len(self.executor.devices)) if s not in self.running and self.executor.accepts(s, 0)]
        while free:
            fitting = self._take_fitting_trial(free)
            if fitting is not None:
                free.remove(fitting[0])
                yield from self._dispatch_trial(*fitting)
                continue
            full = len(self.queue) > self.ahead  # those that wait do not fit beside what runs
            if self.stop is not None or full or not (yield from self._queue_next_trial()):
                return

    def _take_fitting_trial(self, free: Sequence[int]) -> tuple[int, TrialRecord, int] | None:
        """The first slot and waiting trial whose device has room for it, and its bytes; taken from the queue. None: there is none."""
        for position, record in enumerate(self.queue):
            shares = len(self.executor.devices) > 1
            memory_bytes = self.memory_of(resolve(record.recipe, self.facts)) if shares else 0
            for slot in free:
                if self.executor.accepts(slot, memory_bytes):
                    return slot, self.queue.pop(position), memory_bytes
        return None

    def _queue_next_trial(self) -> Generator[Event, None, bool]:
        """Puts one more trial into the queue; whether there was one. Yields those that the record answers on the way."""
        if self.ledger.shared and time.monotonic() < self.look_again:
            return False
        waiting = len(self.queue)
        while not self.stopping():
            # Yielding inside the lock would keep other drivers waiting while somebody draws
            try:
                with self.ledger.deciding():
                    answered = self._decide_next()
            except DecisionLostError:  # the lock was lost with its connection: what was read is not true any more
                break
            if answered is None:
                break
            yield TrialFinished(answered)
        if self.ledger.shared and not self.queue:
            self.look_again = time.monotonic() + _LOOK_AROUND_S
        return len(self.queue) > waiting

    def _decide_next(self) -> TrialRecord | None:
        """One decision. Returns a trial that the record answers; None: one was queued, none can be now, or `stop` says why."""
        records = self.ledger.trials()
        # 1. Other drivers' work is looked at first: their curves count, and a dead one's trials go before new ones.
        if self.ledger.shared:
            self._update_curves(records)
            own = {t.number for t in self.running.values()} | {r.number for r in self.queue}
            self.queue += self.ledger.take_over([r for r in records.running.values() if r.number not in own])
            if self.queue:
                return None
        # 2. The end: on a shared storage only once nobody runs anything, since a dead driver's trial must go on.
        number = self.ledger.next_number()
        busy = bool(self.running or self.queue or (self.ledger.shared and records.running))
        if records.own >= self.space.search.trials:
            if not (busy and self.ledger.shared):
                self.stop = StopReason.TRIALS
            return None
        suggestion = suggest(self.space, self.facts, records, number)
        if suggestion is None:
            if not busy:
                self.stop = StopReason.EXHAUSTED
            return None
        if any(r.key == suggestion.key for r in records.running.values()):
            return None  # an enqueued row that says the same as one that runs: its answer is on the way
        # 3. A known configuration is answered, a new one stands in the record before a worker receives it.
        known = records.answer_to(suggestion.key)
        fault("driver.suggested", f"{number}")
        if known is not None:
            answered = self.ledger.answer(suggestion, number, known)
            fault("driver.answered", f"{number}")
            return answered
        self.queue.append(self.ledger.start(suggestion, number, owner=self.owner))
        fault("driver.started", f"{number}")
        return None

    def _update_curves(self, records: Sequence[TrialRecord]) -> None:
        """Takes over what the storage says of all trials but those that run here."""
        own = {t.number for t in self.running.values()}
        self.curves.update((r.number, r.curve) for r in records if r.answered_from is None and r.number not in own)

    def _dispatch_trial(self, slot: int, record: TrialRecord, memory_bytes: int) -> Iterator[Event]:
        owner = record.extra.get("owner") or {}
        try:
            if owner != self.owner:
                self.ledger.annotate(record.number, owner=self.owner)
        except ClaimLostError as lost:
            yield Note(str(lost), warning=True)
            return
        folder = safe_trial_folder(self.folder, record.number)
        if record.curve and not (folder / LAST_CHECKPOINT).exists():
            there = f"its checkpoint is not in {folder} (it ran on {owner.get('host', 'another machine')})"
            yield Note(f"trial {record.number} begins again: {there}", warning=True)
        self.running[slot] = _RunningTrial(record, dict(enumerate(record.curve, 1)))
        self.executor.submit(slot, Job(record.number, record.recipe, record.key, str(folder), memory_bytes))
        fault("driver.dispatched", f"{record.number}")
        yield TrialStarted(record, slot, len(record.curve))

    # What workers say

    def _handle_message(self, slot: int, message: Message) -> Iterator[Event]:
        trial = self.running.get(slot)
        if trial is not None:
            trial.last_message_at, trial.noted_silent = time.monotonic(), False
        if not isinstance(message, EpochDone):  # the slot is free before anything is written that may fail
            self.running.pop(slot, None)
        try:
            if isinstance(message, WorkerDied):
                yield from self._handle_death(trial, message)
            elif trial is None:
                return
            elif isinstance(message, EpochDone):
                yield from self._handle_epoch(slot, trial, message)
            elif isinstance(message, JobFailed):
                yield from self._handle_failure(trial, message)
            elif isinstance(message, JobDone) and not trial.halted:
                yield from self._finish_trial(trial, PRUNED if trial.pruned else COMPLETE)
        except ClaimLostError as lost:
            yield Note(f"{lost}; what this one has done of it is left", warning=True)
            if trial is not None and slot in self.running:  # at an epoch: the worker waits for an answer
                trial.halted = True
                self.executor.answer(slot, STOP)

    def _handle_epoch(self, slot: int, trial: _RunningTrial, message: EpochDone) -> Iterator[Event]:
        # 1. The record first: whoever sees the event may rely on it.
        result = dict(message.result)
        epoch, value, seconds = int(result["epoch"]), float(result["val_accuracy"]), float(result["seconds"])
        trial.results[epoch] = result
        self.failed_in_a_row, self.longest_epoch_s = 0, max(self.longest_epoch_s, seconds)
        fault("driver.received", f"{trial.number} {epoch}")
        if trial.values.get(epoch) != value:  # another value: computed again on a device that does not repeat itself
            self.ledger.report(trial.number, epoch, value)
            trial.values[epoch] = value
            fault("driver.reported", f"{trial.number} {epoch}")
        epochs, stored_s = trial.record.recipe.epochs, float(result.get("stored_s", 0.0))
        losses = result["train_loss"], result["train_accuracy"]
        yield EpochFinished(trial.number, slot, epoch, epochs, *losses, value, seconds, stored_s)
        # 2. Then the answer. An enqueued row is never pruned: somebody wants its result.
        curve = self.curves[trial.number] = [trial.values[e] for e in range(1, epoch + 1)]
        if self.ledger.shared:
            self._update_curves(self.ledger.trials())
        if not trial.record.name:
            others = {number: other for number, other in self.curves.items() if other and number != trial.number}
            trial.pruned = should_prune(self.space.search, curve, others, epochs, trial.number)
        trial.halted = not trial.pruned and self._find_outer_stop() is not None
        self.executor.answer(slot, STOP if trial.pruned or trial.halted else CONTINUE)

    def _handle_failure(self, trial: _RunningTrial, message: JobFailed) -> Iterator[Event]:
        if message.kind == "held" and self.ledger.shared:  # its old driver lives, only the database has lost sight of it
            self.ledger.give_up(trial.number)
            yield Note(f"trial {trial.number} is left to its worker: {message.message}", warning=True)
            return
        if message.kind in ("storage", "held"):
            raise StorageError(message.message)
        if message.kind == "error":
            # The executor has replaced the worker, whose device may be what failed: a fresh one decides whose fault it is.
            tries = self._count_try(trial, "errors", traceback=message.traceback)
            if tries == 1:
                yield from self._queue_again(trial, f"{message.message}; it is tried again in a fresh process")
                return
        if message.kind in ("error", "input"):
            self.failed_in_a_row += 1
            if self.failed_in_a_row >= _FAILURES_IN_A_ROW:
                self.ledger.annotate(trial.number, errors=0)
                self.stop = StopReason.FAILURES
                yield Note(f"{self.failed_in_a_row} trials in a row failed; the last: {message.message}", warning=True)
                return
        yield from self._finish_trial(trial, FAILED, message.message, infeasible=message.kind == "memory")

    def _handle_death(self, trial: _RunningTrial | None, message: WorkerDied) -> Iterator[Event]:
        if trial is None:
            yield Note(f"an idle {message.reason}; another takes its place", warning=True)
        elif message.out_of_memory:
            yield from self._finish_trial(trial, FAILED, "the kernel ended its worker: out of memory", infeasible=True)
        elif (tries := self._count_try(trial, "retries")) > self.space.search.max_retries:
            yield from self._finish_trial(trial, FAILED, f"{message.reason}, {tries} times")
        else:
            yield from self._queue_again(trial, f"{message.reason}; it goes on from its checkpoint")

    def _count_try(self, trial: _RunningTrial, kind: str, **notes: Any) -> int:
        """Notes one more failed attempt of this kind on the trial; returns how many there were."""
        tries = int(self.ledger.record(trial.number).extra.get(kind, 0)) + 1
        self.ledger.annotate(trial.number, **{kind: tries}, **notes)
        return tries

    def _queue_again(self, trial: _RunningTrial, reason: str) -> Iterator[Event]:
        yield Note(f"trial {trial.number}: {reason}", warning=True)
        self.queue.append(self.ledger.record(trial.number))

    def _note_silent_workers(self) -> Iterator[Event]:
        """Says once of each worker that it has said nothing for far longer than an epoch takes: it may be stopped, or starved."""
        for slot, trial in self.running.items():
            last_s = float(trial.results[max(trial.results)]["seconds"]) if trial.results else self.longest_epoch_s
            silent_s = time.monotonic() - trial.last_message_at
            if last_s and not trial.noted_silent and silent_s > max(_SILENT_AT_LEAST_S, _SILENT_EPOCHS * last_s):
                trial.noted_silent = True
                words = f"its worker ({self.executor.devices[slot]}) has said nothing for {silent_s:.0f} s"
                yield Note(f"trial {trial.number}: {words}, an epoch took {last_s:.1f} s: is it stopped?", warning=True)

    def _finish_trial(self, trial: _RunningTrial, state: str, reason: str = "", infeasible: bool = False) -> Iterator[Event]:
        value, extra = summarize_epochs(trial.results)
        extra["trained_parameters"] = trained_parameters(trial.record.recipe, self.facts)
        if state != FAILED and value is None:
            state, reason = FAILED, reason or "ended without an epoch"
        self.ledger.finish(trial.number, state, value, reason, extra, infeasible=infeasible)
        fault("driver.finished", f"{trial.number}")
        self.to_tidy.add(trial.number)
        self.look_again = 0.0
        self._tidy_folders()
        if reason:
            yield Note(f"trial {trial.number} {state}: {reason}", warning=True)
        yield TrialFinished(self.ledger.record(trial.number))

    def _tidy_folders(self) -> None:
        """Keeps what a resume or an export needs: running trials' checkpoints, the best trials' and enqueued rows' weights."""
        kept = weights_kept(self.ledger.trials(), self.space.search.keep_checkpoints)
        for number in sorted(self.to_tidy):
            tidy_trial_folder(self.folder, number, keep_weights=number in kept)
        self.to_tidy &= kept
