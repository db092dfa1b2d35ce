"""Searches without networks: learning curves from a formula, for tests and benchmarks of everything but training.

`AnalyticExecutor` has no processes and a virtual clock. The module itself is what SEARCHFT_ANALYTIC=tests.analytic names: the real
program with real workers, whose epochs take SEARCHFT_ANALYTIC_MS milliseconds. Driver, database, processes, locks, checkpoints
(JSON instead of tensors) and replayed epochs are real; torch is never imported.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from searchft.errors import StorageError
from searchft.execution.local import Slot
from searchft.execution.protocol import CONTINUE, EpochDone, Job, JobDone, Message, WorkerSetup
from searchft.faults import fault
from searchft.files import BEST_WEIGHTS, LAST_CHECKPOINT, read_sealed, replacing, write_sealed
from searchft.recipe import BackboneFacts, DataFacts, ParameterFacts, Recipe, ResolvedTrial, SpaceFacts, StageFacts
from searchft.search.ground import Ground
from searchft.space import Space
from searchft.train.results import EpochResult

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


def saturating_curve(recipe: Recipe, key: str, epoch: int) -> float:
    """Accuracy after `epoch` (1-based) epochs: rises exponentially to a ceiling; both depend on the key's digest."""
    digest = hashlib.sha256(key.encode()).digest()
    ceiling = 0.5 + 0.5 * digest[0] / 255
    pace = 1.0 + 4.0 * digest[1] / 255
    return round(ceiling * (1 - math.exp(-epoch / pace)), 6)


def epoch_result(epoch: int, value: float, seconds: float = 0.0) -> EpochResult:
    return EpochResult(epoch, 1 - value, value, 1 - value, value, value, seconds)


def invented_facts(space: Space) -> SpaceFacts:
    """A small description that fits any space whose stages are `layer1` … `layer4`, for every backbone it names."""

    def backbone(name: str) -> BackboneFacts:
        return BackboneFacts(
            backbone=name,
            weights="none",
            weights_sha256="analytic",
            weights_source="analytic",
            fell_back="",
            stages=tuple(StageFacts(stage, (stage,)) for stage in STAGES),
            parameters=tuple(ParameterFacts(f"{stage}.conv.weight", 100, stage, "weight") for stage in STAGES),
            batch_norms=(),
            head="fc",
            num_features=512,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            input_size=64,
        )

    counts = (("train", (200, 200)), ("val", (50, 50)))
    # the fingerprint keeps a study begun this way from going on with real training, and the reverse
    data = DataFacts(space.data.source, "analytic: nothing is trained", ("a", "b"), counts)
    return SpaceFacts(data, {name: backbone(recipe.backbone) for name, recipe in space.architectures().items()})


# Real processes -------------------------------------------------------------------------------------------------------


class AnalyticGround(Ground):
    """Nothing is looked at: facts are invented."""

    def describe(self, space: Space, cache: Path, device: str) -> tuple[SpaceFacts, Path]:
        return invented_facts(space), cache

    def explain(self, space: Space, facts: SpaceFacts) -> list[str]:
        return ["SEARCHFT_ANALYTIC is set: nothing is trained"]

    def plan_slots(self, devices: str, workers: int, per_device: int) -> list[Slot]:
        return [Slot("analytic", 1)] * (workers or per_device)

    def memory_of(self, image_size: int) -> Callable[[ResolvedTrial], int]:
        return lambda trial: 0


GROUND = AnalyticGround()


def train(job: Job) -> Iterator[EpochResult]:
    """As `train.fit.fit`: yields what the checkpoint holds, then computes on, checkpointing before it yields."""
    folder = Path(job.folder)
    seconds = float(os.environ.get("SEARCHFT_ANALYTIC_MS") or 1) / 1000
    done = load_checkpoint(folder, job.key)
    yield from done
    best = max((epoch.val_accuracy for epoch in done), default=-1.0)
    for number in range(len(done) + 1, job.recipe.epochs + 1):
        fault("epoch.begun", f"{job.number} {number}")
        time.sleep(seconds)
        result = epoch_result(number, saturating_curve(job.recipe, job.key, number), seconds)
        done.append(result)
        if result.val_accuracy > best:
            best = result.val_accuracy
            with replacing(folder / BEST_WEIGHTS, sync=False) as file:
                file.write(f"{job.key} {number}\n".encode() * 100)
            fault("checkpoint.best", f"{job.number} {number}")
        write_sealed(folder / LAST_CHECKPOINT, {"key": job.key, "epochs": [one.to_json() for one in done]}, sync=False)
        fault("checkpoint.saved", f"{job.number} {number}")
        yield result


def load_checkpoint(folder: Path, key: str) -> list[EpochResult]:
    """The epochs of a checkpoint; none where it is missing, damaged or another recipe's."""
    try:
        stored = read_sealed(folder / LAST_CHECKPOINT)
    except (FileNotFoundError, StorageError):
        return []
    return [EpochResult.from_json(one, replayed=True) for one in stored["epochs"]] if stored["key"] == key else []


# Virtual time ---------------------------------------------------------------------------------------------------------


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
        self._compute(slot, 1)

    def _compute(self, slot: int, epoch: int) -> None:
        seconds = self.epoch_seconds(self._jobs[slot].recipe)
        self._under_way[slot] = self.now_s + seconds
        self.busy_s += seconds
        self._schedule(slot, epoch, seconds)

    def _schedule(self, slot: int, epoch: int, seconds: float = 0.0) -> None:
        self._order += 1
        heapq.heappush(self._events, (self.now_s + seconds, self._order, slot, epoch))

    def wait(self, timeout_s: float) -> list[tuple[int, Message]]:
        if self._left:
            worked_s = time.perf_counter() - self._left
            self.driver_s += worked_s
            self.now_s += worked_s if self.driver_takes_time else 0.0
        try:
            if self._events and (timeout_s > 0 or self._events[0][0] <= self.now_s):
                return [self._next()]
            return []
        finally:
            self._left = time.perf_counter()

    def _next(self) -> tuple[int, Message]:
        due_s, _, slot, epoch = heapq.heappop(self._events)
        self.now_s = max(self.now_s, due_s)
        job = self._jobs[slot]
        if epoch > job.recipe.epochs:
            del self._jobs[slot]
            return slot, JobDone(job.number)
        self.epochs_computed.append((job.number, epoch))
        self._epochs[slot] = epoch
        result = epoch_result(epoch, self.curve(job.recipe, job.key, epoch), self.epoch_seconds(job.recipe))
        return slot, EpochDone(job.number, result.to_json())

    def answer(self, slot: int, word: str) -> None:
        last, epoch = self._jobs[slot].recipe.epochs, self._epochs[slot]
        if word == CONTINUE and epoch < last:
            self._compute(slot, epoch + 1)
        else:
            self._schedule(slot, last + 1)

    def close(self) -> None:
        """Nothing to end."""
