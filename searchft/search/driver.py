"""The driver: the only process that talks to the storage. Suggest, dispatch, report, prune, tell; yield what happened.

Every decision is a function of the record: `suggest(space, facts, records, number)` and `should_prune(settings, curve,
other curves)`. The loop below holds nothing that the record does not hold too, except which slot runs which trial. So it
may be killed between any two lines: the next driver reads the record, hands trials that were running to workers again
(their checkpoints replay the epochs that the storage has not seen), and goes on.

Knows nothing of tensors and nothing of Optuna: it speaks to a Ledger and to an Executor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
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
from searchft.files import remove_leftovers
from searchft.recipe import SpaceFacts, trained_parameters
from searchft.search.events import EpochFinished, Event, Note, StudyFinished, StudyOpened, TrialFinished, TrialStarted
from searchft.search.ledger import Ledger
from searchft.search.lock import identity
from searchft.search.prune import should_prune
from searchft.search.records import COMPLETE, TrialRecord, memo, ranked
from searchft.search.suggest import suggest
from searchft.space import Space

_POLL_S = 0.5
"""Longest wait for a message before signals and the clock are looked at again."""


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


_CURVES = ("train_loss", "train_accuracy", "val_loss", "seconds", "stored_s")
"""Kept per epoch beside the validation accuracy: written when the trial ends, a checkpoint has them until then."""


def trial_folder(study_folder: Path, number: int) -> Path:
    """Where a trial keeps its checkpoint: `trials/0007`."""
    return study_folder / "trials" / f"{number:04d}"


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
) -> Iterator[Event]:
    """Runs the study to its budget and yields what happens. `executor.start` has been called.

    Args:
        folder: the study's folder; trials keep their checkpoints below it.
        stopping: asked at least every half second; True ends the run at once, resumable.

    Ends with a StudyFinished. Raises StorageError where the storage or the disk fails.
    """
    driver = _Driver(space, facts, ledger, executor, folder, stopping)
    yield StudyOpened(space, facts, tuple(ledger.records()), ledger.url, executor.devices, resumed)
    try:
        yield from driver.loop()
    finally:
        executor.close()


def weights_kept(records: Sequence[TrialRecord], best_count: int) -> set[int]:
    """Numbers of the trials whose best weights stay on disk: the best ones, and the enqueued rows, which export scores too."""
    own = [r for r in records if r.answered_from is None]
    best = {r.number for r in ranked(own)[:best_count]}
    return best | {r.number for r in own if r.name and r.state == COMPLETE}


class _Driver:
    def __init__(
        self,
        space: Space,
        facts: SpaceFacts,
        ledger: Ledger,
        executor: Executor,
        folder: Path,
        stopping: Callable[[], bool],
    ) -> None:
        self.space, self.facts, self.ledger, self.executor = space, facts, ledger, executor
        self.folder, self.stopping = folder, stopping
        self.running: dict[int, _Running] = {}
        """By slot."""
        records = ledger.records()
        self.curves: dict[int, Sequence[float]] = {r.number: r.curve for r in records if r.answered_from is None}
        """Validation accuracy by trial, as the storage has it: nobody else writes there."""
        self.queue: list[TrialRecord] = [r for r in records if r.state == "running"]
        """Trials of an earlier driver, and trials whose worker died: they go first."""
        self.tidied: set[int] = set()
        """Finished trials whose folders hold nothing any more."""
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
            for slot in range(len(self.executor.devices)):
                if slot in self.running or why:
                    continue
                record, events, why = self._next()
                yield from events
                if record is not None:
                    yield self._dispatch(slot, record)
                elif not why:
                    break  # nothing for another slot until something ends
            if not self.running and not self.queue and why:
                break
            for slot, message in self.executor.wait(_POLL_S):
                yield from self._handle(slot, message)
        fault("driver.ending")
        yield StudyFinished(tuple(self.ledger.records()), why, self._saved_seconds())

    # What to do next

    def _next(self) -> tuple[TrialRecord | None, list[Event], str]:
        """The next trial to run, the trials answered on the way, and why there is none (empty: wait)."""
        events: list[Event] = []
        if self.queue:
            return self.queue.pop(0), events, ""
        while not self.stopping():
            records = self.ledger.records()
            if sum(r.answered_from is None for r in records) >= self.space.search.trials:
                return None, events, "trials"
            suggestion = suggest(self.space, self.facts, records, len(records))
            if suggestion is None:
                return None, events, "" if self.running else "exhausted"
            if any(r.state == "running" and r.key == suggestion.key for r in records):
                return None, events, ""  # an enqueued row that says the same as one that runs: its answer is on the way
            known = memo(records).get(suggestion.key)
            fault("driver.suggested", f"{len(records)}")
            if known is None:
                self.ledger.start(suggestion, len(records), owner=self.owner)
                fault("driver.started", f"{len(records)}")
                return self._record(len(records)), events, ""
            self.ledger.answer(suggestion, len(records), known)
            fault("driver.answered", f"{len(records)}")
            events.append(TrialFinished(self._record(len(records))))
        return None, events, ""

    def _dispatch(self, slot: int, record: TrialRecord) -> TrialStarted:
        self.running[slot] = _Running(record.number, record.recipe.epochs, bool(record.name), dict(enumerate(record.curve, 1)))
        folder = safe_trial_folder(self.folder, record.number)
        if record.extra.get("owner") != self.owner:
            self.ledger.annotate(record.number, owner=self.owner)
        self.executor.submit(slot, Job(record.number, record.recipe, record.key, str(folder)))
        fault("driver.dispatched", f"{record.number}")
        return TrialStarted(record, slot, len(record.curve))

    # What workers say

    def _handle(self, slot: int, message: object) -> Iterator[Event]:
        trial = self.running.get(slot)
        match message:
            case EpochDone() if trial is not None:
                yield from self._epoch(slot, trial, message)
            case JobDone() if trial is not None:
                del self.running[slot]
                if not trial.halted:
                    yield from self._finish(trial, "pruned" if trial.pruned else "complete")
            case JobFailed() if trial is not None:
                del self.running[slot]
                if message.kind == "storage":
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
        others = {number: other for number, other in self.curves.items() if number != trial.number and other}
        trial.pruned = not trial.named and should_prune(
            self.space.search,
            curve,
            list(others.values()),
            trial.epochs,
            number=trial.number,
            numbers=list(others),
        )
        trial.halted = not trial.pruned and (
            self.stopping() or (self.deadline is not None and time.monotonic() > self.deadline)
        )
        self.executor.answer(slot, STOP if trial.pruned or trial.halted else CONTINUE)

    def _record(self, number: int) -> TrialRecord:
        return next(r for r in reversed(self.ledger.records()) if r.number == number)

    def _finish(self, trial: _Running, state: str, reason: str = "", infeasible: bool = False) -> Iterator[Event]:
        results = [trial.results[e] for e in sorted(trial.results)]
        recipe = self._record(trial.number).recipe
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
        fault("driver.told", f"{trial.number}")
        self._clean()
        record = self._record(trial.number)
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
        tries = int(self._record(trial.number).extra.get("retries", 0)) + 1
        self.ledger.annotate(trial.number, retries=tries)
        if tries > self.space.search.max_retries:
            yield from self._finish(trial, "failed", f"{message.reason}, {tries} times")
            return
        yield Note(f"trial {trial.number}: {message.reason}; it goes on from its checkpoint", warning=True)
        self.queue.append(self._record(trial.number))

    # Tidying and accounts

    def _clean(self) -> None:
        """Keeps what a resume or an export needs: running trials' checkpoints, the best trials' and enqueued rows' weights."""
        records = self.ledger.records()
        kept = weights_kept(records, self.space.search.keep_checkpoints)
        finished = {r.number for r in records if r.state != "running" and r.answered_from is None}
        for number in sorted(finished - self.tidied):
            folder = safe_trial_folder(self.folder, number)
            if not folder.is_dir():
                continue
            (folder / "last.ckpt").unlink(missing_ok=True)
            remove_leftovers(folder)
            fault("driver.tidying", f"{number}")
            if number not in kept:
                (folder / "best.safetensors").unlink(missing_ok=True)
        self.tidied = finished - kept

    def _saved_seconds(self) -> dict[str, float]:
        """What the store, answering from the record, and pruning saved, estimated from the trials' own epoch times."""
        records = {r.number: r for r in self.ledger.records()}
        memo_s = sum(records[r.answered_from].seconds for r in records.values() if r.answered_from is not None)
        pruning_s = sum(
            r.seconds / len(r.curve) * (r.recipe.epochs - len(r.curve))
            for r in records.values()
            if r.state == "pruned" and r.answered_from is None and r.curve
        )
        kept = (r.extra.get("curves", {}).get("stored_s", ()) for r in records.values() if r.answered_from is None)
        store_s = sum(seconds for curve in kept for seconds in curve if seconds)  # None where a worker does not say
        return {"store": store_s, "memo": memo_s, "pruning": pruning_s}
