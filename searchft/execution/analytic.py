"""An executor without networks: learning curves from a formula, in virtual time. For tests of the search and for simulations.

It speaks the same protocol as real workers, so the real driver, ledger, suggest and prune run on it unchanged. A trial's
curve is a function of its recipe's key alone, as with real workers.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from searchft.execution.protocol import CONTINUE, EpochDone, Job, JobDone, Message, WorkerSetup
from searchft.recipe import Recipe


def saturating_curve(recipe: Recipe, key: str, epoch: int) -> float:
    """Accuracy after `epoch` (1-based) epochs: rises exponentially to a ceiling; both depend on the key's digest."""
    digest = hashlib.sha256(key.encode()).digest()
    ceiling = 0.5 + 0.5 * digest[0] / 255
    pace = 1.0 + 4.0 * digest[1] / 255
    return round(ceiling * (1 - math.exp(-epoch / pace)), 6)


@dataclass
class AnalyticExecutor:
    """`slots` workers whose epochs take `epoch_seconds` of virtual time; `wait` jumps to the next event.

    With `driver_takes_time` the virtual clock also goes on while the driver works (its real time), so that workers wait for a slow
    driver as they would in earnest.
    """

    slots: int = 1
    kind: str = "analytic"
    curve: Callable[[Recipe, str, int], float] = saturating_curve
    epoch_seconds: Callable[[Recipe], float] = lambda recipe: 1.0
    driver_takes_time: bool = False
    now_s: float = 0.0
    """Virtual clock."""
    driver_s: float = 0.0
    """Real seconds that the driver spent between two waits, all together."""
    busy_s: float = 0.0
    """Virtual seconds of work done, over all slots."""
    last_begun_s: float = 0.0
    """Virtual time at which the last trial began: until then there was work for every slot."""
    busy_until_then_s: float = 0.0
    """Virtual seconds of work done until then, over all slots; what was under way counts as far as it had come."""
    epochs_computed: list[tuple[int, int]] = field(default_factory=list)
    """(trial, epoch) in the order they were computed."""

    def __post_init__(self) -> None:
        self.devices = tuple(f"analytic {i}" for i in range(self.slots))
        self._events: list[tuple[float, int, int, int]] = []
        self._jobs: dict[int, Job] = {}
        self._order = 0
        self._epochs: dict[int, int] = {}
        self._under_way: dict[int, float] = {}
        """When the epoch that a slot works on will have ended."""
        self._left = 0.0
        """When `wait` last gave the driver something to do."""

    def start(self, setup: WorkerSetup) -> None:
        """Nothing to prepare."""

    def accepts(self, slot: int, memory_bytes: int) -> bool:
        return True

    def submit(self, slot: int, job: Job) -> None:
        self._jobs[slot] = job
        self.last_begun_s = self.now_s
        self.busy_until_then_s = self.busy_s - sum(max(0.0, end_s - self.now_s) for end_s in self._under_way.values())
        self._schedule(slot, 1)

    def _schedule(self, slot: int, epoch: int) -> None:
        seconds = self.epoch_seconds(self._jobs[slot].recipe)
        self._order += 1
        heapq.heappush(self._events, (self.now_s + seconds, self._order, slot, epoch))
        self._under_way[slot] = self.now_s + seconds
        self.busy_s += seconds

    def wait(self, timeout_s: float) -> list[tuple[int, Message]]:
        if self._left:
            worked_s = time.perf_counter() - self._left
            self.driver_s += worked_s
            self.now_s += worked_s if self.driver_takes_time else 0.0
        try:
            if self._events and (timeout_s > 0 or self._events[0][0] <= self.now_s):
                return self._next()
            return []
        finally:
            self._left = time.perf_counter()

    def _next(self) -> list[tuple[int, Message]]:
        due_s, _, slot, epoch = heapq.heappop(self._events)
        self.now_s = max(self.now_s, due_s)
        job = self._jobs[slot]
        if epoch > job.recipe.epochs:
            del self._jobs[slot]
            return [(slot, JobDone(job.number))]
        value = self.curve(job.recipe, job.key, epoch)
        self.epochs_computed.append((job.number, epoch))
        self._epochs[slot] = epoch
        result = {
            "epoch": epoch,
            "train_loss": 1 - value,
            "train_accuracy": value,
            "val_loss": 1 - value,
            "val_accuracy": value,
            "val_balanced_accuracy": value,
            "seconds": self.epoch_seconds(job.recipe),
            "step_curve": [],
        }
        return [(slot, EpochDone(job.number, result))]

    def answer(self, slot: int, word: str) -> None:
        job = self._jobs[slot]
        epoch = self._epochs[slot]
        self._order += 1
        if word != CONTINUE:
            heapq.heappush(self._events, (self.now_s, self._order, slot, job.recipe.epochs + 1))
        elif epoch == job.recipe.epochs:
            heapq.heappush(self._events, (self.now_s, self._order, slot, epoch + 1))
        else:
            self._schedule(slot, epoch + 1)

    def close(self) -> None:
        """Nothing to end."""
