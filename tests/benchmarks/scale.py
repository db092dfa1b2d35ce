"""How far one driver carries: the real suggest, prune, ledger and SQLite, with workers in virtual time.

    .venv/bin/python tests/benchmarks/scale.py [--workers 1,8,64,512] [--trials 10000] [--epoch-s 10] [--storage URL]

Workers take `--epoch-s` virtual seconds an epoch (more where more is open) and learn along analytic curves. The virtual clock also
goes on by the real time that the driver needs, so that workers wait for a slow driver as they would in earnest. Printed for each
number of workers: the driver's own work per trial, the share of time in which slots were idle (until the last trial began, and in
all: in the end there is less and less to do, which no driver can help), how long the study took against
perfect scaling of the work that was done, when it reached a given accuracy, and how often the sampler named a configuration that
was known already (answered from the record) or ran at that moment (asked again).

Run it on a quiet machine: a driver that shares its processor looks slower than it is.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

from searchft.recipe import Recipe
from searchft.search.driver import run_study
from searchft.search.events import EpochFinished
from searchft.search.ledger import Ledger
from searchft.space import parse_space
from tests.analytic import AnalyticExecutor, invented_facts

OPEN = ("head", "layer4", "layer3", "layer2", "all")
WIDTHS = ((), (256,), (256, 128), (1024, 512), (2048, 1024))
DROPOUT = (0.0, 0.1, 0.25, 0.5, 0.75)
BATCH = (16, 32, 64, 128)
LR = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5)
DECAY = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
DEEP = (1.0, 0.3, 0.1, 0.03)

SPACE = f"""
study: scale
data: {{source: orl_faces, image_size: 64}}
recipe:
  backbone: torchvision/resnet18
  weights: none
  unfrozen: [{", ".join(OPEN)}]
  head_widths: {[list(w) for w in WIDTHS]}
  dropout: {list(DROPOUT)}
  batch_size: {list(BATCH)}
  lr: {list(LR)}
  weight_decay: {list(DECAY)}
  lr_multipliers: {{deep: {list(DEEP)}}}
  epochs: 12
search: {{trials: TRIALS, startup_trials: 20}}
"""
"""About 35,000 different configurations."""


def ceiling(recipe: Recipe) -> float:
    """What a configuration reaches in the end: smooth, with one best point and a little of its own."""
    deep = dict(recipe.lr_multipliers).get("deep", 1.0)
    places = (
        (OPEN.index(str(recipe.unfrozen)), 2, 0.03),
        (WIDTHS.index(recipe.head_widths), 1, 0.02),
        (DROPOUT.index(recipe.dropout), 2, 0.015),
        (BATCH.index(recipe.batch_size), 1, 0.015),
        (LR.index(recipe.lr), 4, 0.02),
        (DECAY.index(recipe.weight_decay), 3, 0.01),
        (DEEP.index(deep), 1, 0.01),
    )
    own = hashlib.sha256(repr(places).encode()).digest()[0] / 255
    return max(0.05, 0.98 - sum(cost * (place - top) ** 2 for place, top, cost in places) - 0.01 * own)


def curve(recipe: Recipe, key: str, epoch: int) -> float:
    """Accuracy after `epoch` epochs."""
    return round(ceiling(recipe) * (1 - math.exp(-epoch / 3)), 6)


def run(workers: int, trials: int, epoch_s: float, goal: float, storage: str) -> str:
    space = parse_space(SPACE.replace("TRIALS", str(trials)).replace("study: scale", f"study: scale{workers}"))
    facts = invented_facts(space)
    executor = AnalyticExecutor(
        slots=workers,
        curve=curve,
        epoch_seconds=lambda recipe: epoch_s * (0.5 + 0.25 * OPEN.index(str(recipe.unfrozen))),
        driver_takes_time=True,
    )
    reached = math.nan
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, Ledger.open(storage, space.name, Path(name), create=True) as ledger:
        ledger.pin(space, facts, {})
        for event in run_study(space, facts, ledger, executor, Path(name)):
            if isinstance(event, EpochFinished) and event.val_accuracy >= goal and math.isnan(reached):
                reached = executor.now_s
        records = ledger.records()
    own = [r for r in records if r.answered_from is None]
    perfect_s = executor.busy_s / workers
    cells = (
        str(workers),
        str(len(own)),
        f"{1000 * executor.driver_s / len(own):.1f} ms",
        f"{100 * (1 - executor.busy_until_then_s / workers / executor.last_begun_s):.1f} %",
        f"{100 * (1 - perfect_s / executor.now_s):.1f} %",
        f"{executor.now_s / 3600:.2f} h",
        f"{perfect_s / executor.now_s:.3f}",
        f"{reached / 60:.1f} min",
        f"{len(records) - len(own)} ({100 * (len(records) - len(own)) / len(records):.0f} %)",
        str(len(own) - len({r.key for r in own})),
        f"{time.perf_counter() - begun:.0f} s",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,8,64,512")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epoch-s", type=float, default=10.0)
    parser.add_argument("--goal", type=float, default=0.92, help="the accuracy whose time is told")
    parser.add_argument("--storage", default="", help="a database URL instead of SQLite")
    chosen = parser.parse_args()
    heads = (
        "workers",
        "trials",
        "driver a trial",
        "idle while trials were left",
        "idle in all",
        "study took",
        "of perfect scaling",
        f"{chosen.goal} after",
    )
    heads += ("answered from the record", "computed twice", "this took")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for workers in map(int, chosen.workers.split(",")):
        print(run(workers, chosen.trials, chosen.epoch_s, chosen.goal, chosen.storage), flush=True)


if __name__ == "__main__":
    main()
