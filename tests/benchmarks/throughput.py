"""How much more two workers do than one, as local processes and on Ray: epochs a second on a real small study.

    python tests/benchmarks/throughput.py                 about five minutes on two quiet cores
    python tests/benchmarks/throughput.py --trials 8 --rounds 1

Workload: EfficientNet-lite0 with its ImageNet weights on the AT&T faces at 64 pixels, two images a person to learn from, the last
stage open; 16 fixed trials of 4 epochs, never pruned; one arithmetic thread a worker, whatever the number. The clock runs from
the first trial's start to the last one's end: starting processes, importing torch, decoding and the frozen layers' values (in the store
since a first run that is not counted) lie outside. Ways take turns in each round; printed are medians and the ratio to one local worker.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SPACE = """
study: throughput
data: {source: orl_faces, split: {train: 2, val: 3, test: 5, seed: 0}, image_size: 64}
recipe:
  backbone: timm/tf_efficientnet_lite0
  weights: package
  unfrozen: 1
  head_widths: [[], [256]]
  dropout: [0.0, 0.5]
  lr: [3e-3, 1e-3, 3e-4, 1e-4]
  batch_size: 32
  epochs: 4
  precision: fp32
search: {sampler: grid, pruner: none, trials: TRIALS}
"""


def local(workers: int) -> Any:
    from searchft.execution.local import LocalExecutor, Slot

    return LocalExecutor([Slot("cpu", 1)] * workers)


def on_ray(workers: int) -> Any:
    from searchft.execution.ray_cluster import Share, connect
    from searchft.execution.ray_executor import RayExecutor

    return RayExecutor(Share(workers, 1, 0.0), print, leave=connect("auto"))


def epochs_a_second(space: Any, folder: Path, make: Callable[[int], Any], workers: int) -> float:
    """One run of the whole study."""
    from searchft.execution.protocol import WorkerSetup
    from searchft.files import cache_folder
    from searchft.search.driver import run_study
    from searchft.search.events import EpochFinished
    from searchft.search.session import open_study

    study = open_study(space, folder)
    executor = make(workers)
    setup = WorkerSetup(
        study.facts.to_json(), str(study.images), space.data.image_size, str(cache_folder() / "features"), 1 << 30
    )
    up, has = [], executor._room.has
    executor._room.has = lambda device, size_bytes: (up.append(device), has(device, size_bytes))  # each worker asks once
    executor.start(setup)
    deadline = time.monotonic() + 120
    while len(up) < workers:
        assert time.monotonic() < deadline, "the workers do not come up"
        executor.wait(0.2)
    started = ended = time.perf_counter()
    epochs = 0
    with study.ledger:
        for event in run_study(study.space, study.facts, study.ledger, executor, study.folder):
            if isinstance(event, EpochFinished):
                epochs, ended = epochs + 1, time.perf_counter()
    return epochs / (ended - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    from searchft.space import parse_space

    space = parse_space(SPACE.replace("TRIALS", str(chosen.trials)))
    ways = [("local", local, 1), ("local", local, 2), ("Ray", on_ray, 1), ("Ray", on_ray, 2)]
    speeds: dict[tuple[str, int], list[float]] = {(name, workers): [] for name, _, workers in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SEARCHFT_CACHE"] = str(folder / "cache")
        epochs_a_second(space, folder / "first", local, 1)
        for turn in range(chosen.rounds):
            for what, make, workers in ways:
                speed = epochs_a_second(space, folder / f"{what} {workers} {turn}", make, workers)
                speeds[what, workers].append(speed)
    base = statistics.median(speeds["local", 1])
    print(f"{'workers':<12}{'epochs/s':>10}{'ratio':>8}   every run")
    for (what, workers), values in speeds.items():
        middle = statistics.median(values)
        print(f"{workers} {what:<10}{middle:>10.2f}{middle / base:>8.2f}   {', '.join(f'{v:.2f}' for v in values)}")


if __name__ == "__main__":
    main()
