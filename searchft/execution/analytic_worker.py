"""Real worker processes without networks: `analytic.saturating_curve` behind the real protocol, locks and files.

    SEARCHFT_ANALYTIC=5 searchft run space.yaml     every epoch takes 5 ms; nothing is trained, torch is never imported

For tests of what kills and full disks do to the program, and for trying out a search's settings. All the rest is real:
driver, database, processes, the trial's folder with its lock and its checkpoint (JSON instead of tensors), the epoch that
is replayed. The ground is invented and says so in its fingerprint, so a study begun this way is never gone on with in
earnest, nor the other way round.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from searchft.execution.analytic import saturating_curve
from searchft.execution.protocol import Job, WorkerSetup
from searchft.execution.worker import Train, live_and_die_with, serve
from searchft.faults import fault
from searchft.files import BEST_WEIGHTS, LAST_CHECKPOINT, replacing
from searchft.recipe import BackboneFacts, DataFacts, ParameterFacts, SpaceFacts, StageFacts
from searchft.space import Space

VARIABLE = "SEARCHFT_ANALYTIC"
"""Environment variable: milliseconds per epoch."""

_STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


def invented_facts(space: Space) -> SpaceFacts:
    """A small description that fits any space whose stages are `layer1` … `layer4`, for every backbone it names."""

    def backbone(name: str) -> BackboneFacts:
        return BackboneFacts(
            backbone=name,
            weights="none",
            weights_sha256="analytic",
            weights_source="analytic",
            fell_back="",
            stages=tuple(StageFacts(stage, (stage,)) for stage in _STAGES),
            parameters=tuple(ParameterFacts(f"{stage}.conv.weight", 100, stage, "weight") for stage in _STAGES),
            batch_norms=(),
            head="fc",
            num_features=512,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            input_size=64,
        )

    counts = (("train", (200, 200)), ("val", (50, 50)))
    data = DataFacts(space.data.source, "analytic: nothing is trained", ("a", "b"), counts)
    return SpaceFacts(data, {name: backbone(recipe.backbone) for name, recipe in space.architectures().items()})


@dataclass(frozen=True)
class AnalyticEpoch:
    """What stands in an EpochResult's place."""

    epoch: int
    value: float
    seconds: float
    replayed: bool = False

    def to_json(self) -> dict[str, Any]:
        losses = {"train_loss": 1 - self.value, "val_loss": 1 - self.value}
        scores = {"train_accuracy": self.value, "val_accuracy": self.value, "val_balanced_accuracy": self.value}
        return {"epoch": self.epoch, **losses, **scores, "seconds": self.seconds, "step_curve": []}


def main(connection: Connection, device: str, threads: int, parent: int) -> None:
    """Runs until the connection closes. Called in a fresh process; arguments as those of `worker.main`."""
    live_and_die_with(parent)

    def prepare(setup: WorkerSetup) -> Train:
        return analytic_fit

    serve(connection, prepare)


def analytic_fit(job: Job) -> Iterator[AnalyticEpoch]:
    """As `train.fit.fit`: yields what the checkpoint holds, then computes on, checkpointing before it yields."""
    folder = Path(job.folder)
    seconds = float(os.environ.get(VARIABLE, "1")) / 1000
    done = [dataclasses.replace(epoch, replayed=True) for epoch in _load(folder / LAST_CHECKPOINT, job.key)]
    yield from done
    best = max((epoch.value for epoch in done), default=-1.0)
    for number in range(len(done) + 1, job.recipe.epochs + 1):
        fault("epoch.begun", f"{job.number} {number}")
        time.sleep(seconds)
        result = AnalyticEpoch(number, saturating_curve(job.recipe, job.key, number), seconds)
        done.append(result)
        if result.value > best:
            best = result.value
            with replacing(folder / BEST_WEIGHTS, sync=False) as file:
                file.write(f"{job.key} {number}\n".encode() * 100)
            fault("checkpoint.best", f"{job.number} {number}")
        _save(folder / LAST_CHECKPOINT, job.key, done)
        fault("checkpoint.saved", f"{job.number} {number}")
        yield result


def _save(path: Path, key: str, done: list[AnalyticEpoch]) -> None:
    text = json.dumps({"key": key, "epochs": [[e.epoch, e.value, e.seconds] for e in done]}).encode()
    with replacing(path, sync=False) as file:
        file.write(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def _load(path: Path, key: str) -> list[AnalyticEpoch]:
    """The epochs of a checkpoint; none where it is missing, damaged or another recipe's."""
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return []
    if hashlib.sha256(text).hexdigest().encode() != digest:
        return []
    stored = json.loads(text)
    return [AnalyticEpoch(*row) for row in stored["epochs"]] if stored["key"] == key else []
