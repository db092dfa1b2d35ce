"""What a view knows of a running study: a plain fold over the driver's events, so that all views agree. Nothing here draws."""

from __future__ import annotations

import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from searchft.search.claims import owner_is_gone
from searchft.search.events import EpochFinished, Event, StudyFinished, StudyOpened, TrialFinished, TrialStarted
from searchft.search.records import COMPLETE, PRUNED, TrialRecord, Trials, stored_seconds


def count_records(records: Iterable[TrialRecord], trials: int) -> dict[str, int]:
    """Trials by state. `answered` ones are counted apart and cost nothing of the budget `trials`; `waiting` is its rest."""
    found = Counter("answered" if record.answered_from is not None else record.state for record in records)
    counts = {state: found[state] for state in ("complete", "pruned", "failed", "running")}
    return counts | {"waiting": max(0, trials - sum(counts.values())), "answered": found["answered"]}


def is_unfinished(record: TrialRecord) -> bool:
    """Whether a trial stands as running but its owner is gone (known of owners on this machine only): it goes on with the study."""
    return not record.finished and owner_is_gone(record.extra.get("owner") or {})


def counts_in_words(counts: Mapping[str, int], unfinished: int = 0, every: bool = False) -> str:
    """`12 complete, 3 pruned, 2 answered, 1 running, 22 waiting`; none are left out, unless `every`, except complete.

    `unfinished` of the running ones are run by nobody.
    """
    known = {state: counts[state] for state in ("complete", "pruned", "failed", "answered", "running", "waiting")}
    known["running"] -= unfinished
    words = [f"{count} {state}" for state, count in known.items() if count or every or state == "complete"]
    return ", ".join([*words, *([f"{unfinished} unfinished"] if unfinished else [])])


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


class StudyProgress:
    """The state of a study as its events tell it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.started = clock()
        self.opened: StudyOpened | None = None
        self.finished: StudyFinished | None = None
        self.trials = Trials()
        self.running: dict[int, RunningTrial] = {}
        self.recent: deque[TrialRecord] = deque(maxlen=6)  # the last finished trials, newest first
        self.stored_s = 0.0  # seconds that stored values of frozen layers have saved this study so far, estimated

    def take(self, event: Event) -> None:
        if isinstance(event, StudyOpened):
            self.opened, self.started, self.trials = event, self._clock(), Trials(event.records)
            self.stored_s = sum(map(stored_seconds, event.records))
        elif isinstance(event, TrialStarted):
            record = event.record
            self.trials.put(record)
            curve = list(record.curve[: event.resumed_at])
            self.running[record.number] = RunningTrial(record, event.worker, record.recipe.epochs, curve)
        elif isinstance(event, EpochFinished) and event.number in self.running:
            running = self.running[event.number]
            running.epochs, running.worker = event.epochs, event.worker
            # An epoch that is repeated (a worker died, another replays) takes its place instead of growing the curve.
            running.curve[event.epoch - 1 :] = [event.val_accuracy]
            running.seconds.append(event.seconds)
            self.stored_s += event.stored_s
        elif isinstance(event, TrialFinished):
            self.running.pop(event.record.number, None)
            self.trials.put(event.record)
            self.recent.appendleft(event.record)
        elif isinstance(event, StudyFinished):
            self.finished, self.trials = event, Trials(event.records)
            self.running.clear()

    @property
    def best(self) -> TrialRecord | None:
        return next((self.trials.numbered(number) for number in self.trials.best_numbers(1)), None)

    @property
    def counts(self) -> Mapping[str, int]:
        return count_records(self.trials, self.opened.space.search.trials if self.opened else 0)

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self.started

    @property
    def time_left_s(self) -> float | None:
        """Seconds until the budget of trials is spent or the timeout ends the run; None before a second epoch is measured.

        Waiting trials cost what trials have cost so far, running ones the rest of their epochs at their own pace; workers share
        all that. A trial's first epoch computes what is stored: it says nothing about the others.
        """
        if self.opened is None or self.finished is not None:
            return None
        running = self.running.values()
        costs = [r.seconds for r in self.trials if r.state in (COMPLETE, PRUNED) and r.answered_from is None and r.seconds > 0]
        costs = costs or [_pace(r.seconds) * r.epochs for r in running if len(r.seconds) > 1]
        if not costs:
            return None
        typical = statistics.fmean(costs)
        paces = [_pace(r.seconds) for r in running if r.seconds]
        rest = self.counts["waiting"] * typical
        for trial in running:
            own = [_pace(trial.seconds)] if trial.seconds else paces or [typical / max(1, trial.epochs)]
            rest += max(0, trial.epochs - trial.epoch) * statistics.fmean(own)
        left_s = rest / max(1, len(self.opened.devices))
        timeout = self.opened.space.search.timeout_s
        return min(left_s, max(0.0, timeout - self.elapsed_s)) if timeout else left_s


def _pace(seconds: Sequence[float]) -> float:
    """Seconds an epoch, without the first where there are others."""
    return statistics.fmean(seconds[1:] or seconds)
