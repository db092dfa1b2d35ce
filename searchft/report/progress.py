"""What a view knows of a running study: a plain fold over the driver's events, so that both views say the same.

Nothing here draws. `StudyProgress.take(event)` updates; the properties answer.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from searchft.search.claims import owner_is_gone
from searchft.search.events import EpochFinished, Event, Note, StudyFinished, StudyOpened, TrialFinished, TrialStarted
from searchft.search.records import TrialRecord, best

RECENT = 6
"""Finished trials and notes that a view may want to show."""


@dataclass
class RunningTrial:
    """A trial that a worker holds."""

    record: TrialRecord
    worker: int
    epochs: int
    curve: list[float]
    seconds: list[float] = field(default_factory=list)
    """Of the epochs measured in this run; replayed ones are not measured."""

    @property
    def epoch(self) -> int:
        return len(self.curve)


def count_records(records: Iterable[TrialRecord], trials: int) -> dict[str, int]:
    """Trials by state. `answered` ones are counted apart and cost nothing of the budget `trials`; `waiting` is its rest."""
    counts = {"complete": 0, "pruned": 0, "failed": 0, "running": 0, "waiting": 0, "answered": 0}
    for record in records:
        counts["answered" if record.answered_from is not None else record.state] += 1
    counts["waiting"] = max(0, trials - sum(counts[state] for state in ("complete", "pruned", "failed", "running")))
    return counts


def is_unfinished(record: TrialRecord) -> bool:
    """Whether a trial stands as running but nobody runs it: it goes on when the study does.

    Known of trials of this machine only: their owner is gone, or is this very process, which says so after its search.
    """
    return not record.finished and owner_is_gone(record.extra.get("owner") or {})


def counts_in_words(counts: Mapping[str, int], unfinished: int = 0, every: bool = False) -> str:
    """`12 complete, 3 pruned, 2 answered, 1 running, 22 waiting`; none are left out, unless `every`, except complete.

    `unfinished` of the running ones are run by nobody.
    """
    told = {state: counts[state] for state in ("complete", "pruned", "failed", "answered", "running", "waiting")}
    told["running"] -= unfinished
    words = [f"{count} {state}" for state, count in told.items() if count or every or state == "complete"]
    return ", ".join([*words, *([f"{unfinished} unfinished"] if unfinished else [])])


class StudyProgress:
    """The state of a study as its events tell it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.started = clock()
        self.opened: StudyOpened | None = None
        self.finished: StudyFinished | None = None
        self.records: dict[int, TrialRecord] = {}
        self.running: dict[int, RunningTrial] = {}
        self.recent: deque[TrialRecord] = deque(maxlen=RECENT)
        self.notes: deque[Note] = deque(maxlen=RECENT)
        self._trial_seconds: list[float] = []
        self._best: TrialRecord | None = None
        self._stored_s = 0.0

    def take(self, event: Event) -> None:
        """Adds what an event tells."""
        if isinstance(event, StudyOpened):
            self.opened = event
            self.notes.clear()  # those before it have been printed above the live part
            self.records = {record.number: record for record in event.records}
            self._trial_seconds = [r.seconds for r in event.records if _was_computed(r)]
            self._best = best(self.records.values())
            self._stored_s = sum(stored_seconds(r) for r in event.records)
        elif isinstance(event, TrialStarted):
            record = event.record
            self.records[record.number] = record
            known = list(record.curve[: event.resumed_at])
            self.running[record.number] = RunningTrial(record, event.worker, record.recipe.epochs, known)
        elif isinstance(event, EpochFinished):
            running = self.running.get(event.number)
            if running is not None:
                running.epochs = event.epochs
                running.worker = event.worker
                # An epoch told twice (a worker died, another replays) takes its place instead of growing the curve.
                running.curve[event.epoch - 1 :] = [event.val_accuracy]
                running.seconds.append(event.seconds)
                self._stored_s += event.stored_s
        elif isinstance(event, TrialFinished):
            record = event.record
            self.running.pop(record.number, None)
            self.records[record.number] = record
            self.recent.appendleft(record)
            if _was_computed(record):
                self._trial_seconds.append(record.seconds)
            self._best = best(self.records.values())
        elif isinstance(event, Note):
            self.notes.appendleft(event)
        else:
            self.finished = event
            self.running.clear()
            self.records = {record.number: record for record in event.records}
            self._best = best(event.records)

    @property
    def best(self) -> TrialRecord | None:
        """The best trial so far."""
        return self._best

    @property
    def counts(self) -> Mapping[str, int]:
        """Trials by state, as `count_records` counts them."""
        return count_records(self.records.values(), self.opened.space.search.trials if self.opened else 0)

    @property
    def stored_s(self) -> float:
        """Seconds that the store of frozen values has saved this study so far, estimated."""
        return self._stored_s

    @property
    def elapsed_s(self) -> float:
        """Seconds since this view began."""
        return self._clock() - self.started

    @property
    def time_left_s(self) -> float | None:
        """Seconds until the budget of trials is spent, from measured epochs; None before a second one is measured.

        A trial's first epoch also warms up and computes what is stored: it says nothing about the others.

        Waiting trials cost what trials have cost so far (pruned ones included), running ones the rest of their epochs
        at their own pace; workers share all that. The search's own timeout caps it.
        """
        if self.opened is None or self.finished is not None:
            return None
        paces = [_pace(r.seconds) for r in self.running.values() if r.seconds]
        costs = list(self._trial_seconds)
        if not costs:
            costs = [_pace(r.seconds) * r.epochs for r in self.running.values() if len(r.seconds) > 1]
        if not costs:
            return None
        pace = statistics.fmean(paces) if paces else None
        typical = statistics.fmean(costs)
        rest = self.counts["waiting"] * typical
        for running in self.running.values():
            own = _pace(running.seconds) if running.seconds else pace
            left = max(0, running.epochs - running.epoch)
            rest += left * own if own is not None else typical * left / max(1, running.epochs)
        left_s = rest / max(1, len(self.opened.devices))
        timeout = self.opened.space.search.timeout_s
        return min(left_s, max(0.0, timeout - self.elapsed_s)) if timeout else left_s


def _pace(seconds: Sequence[float]) -> float:
    """Seconds an epoch, without the first where there are others."""
    return statistics.fmean(seconds[1:] or seconds)


def stored_seconds(record: TrialRecord) -> float:
    """What a trial did not spend because its frozen part's values came from the store."""
    return float(sum(s for s in record.extra.get("curves", {}).get("stored_s", ()) if s))


def _was_computed(record: TrialRecord) -> bool:
    return record.state in ("complete", "pruned") and record.answered_from is None and record.seconds > 0
