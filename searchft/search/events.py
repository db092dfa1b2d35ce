"""What happens in a running study, as plain data. The driver yields these; the caller draws, prints or ignores them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from searchft.recipe import SpaceFacts
from searchft.search.records import TrialRecord
from searchft.space import Space


class StopReason(StrEnum):
    """Why a run has ended, in the words that events and `--json` print."""

    TRIALS = "trials"  # the budget is spent
    EXHAUSTED = "exhausted"  # every configuration is known
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    FAILURES = "failures"  # several trials in a row raised an error: the fault is not theirs


@dataclass(frozen=True)
class StudyOpened:
    """The study is there, new or resumed, and its workers are about to start."""

    space: Space
    facts: SpaceFacts
    records: tuple[TrialRecord, ...]
    storage: str  # its URL, password masked
    devices: tuple[str, ...]  # One per worker, e.g. ("cpu (2 threads)",).
    resumed: bool


@dataclass(frozen=True)
class TrialStarted:
    """A worker begins or goes on with a trial, after `resumed_at` epochs."""

    record: TrialRecord
    worker: int
    resumed_at: int = 0


@dataclass(frozen=True)
class EpochFinished:
    """One more epoch (1-based) of a running trial, out of `epochs`."""

    number: int
    worker: int
    epoch: int
    epochs: int
    train_loss: float
    train_accuracy: float
    val_accuracy: float
    seconds: float
    stored_s: float = 0.0  # what it did not spend because values came from the store


@dataclass(frozen=True)
class TrialFinished:
    """A trial ended: complete, pruned or failed. Answered ones have `record.answered_from`."""

    record: TrialRecord


@dataclass(frozen=True)
class Note:
    """A line for people: a store being built, a worker that died, a fallback."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class StudyFinished:
    """The last event."""

    records: tuple[TrialRecord, ...]
    why: StopReason
    saved_seconds: dict[str, float] = field(default_factory=dict)  # estimated seconds saved, by `store`, `memo` and `pruning`


Event = StudyOpened | TrialStarted | EpochFinished | TrialFinished | Note | StudyFinished
