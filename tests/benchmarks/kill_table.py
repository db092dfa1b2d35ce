"""What kills cost: searchft at every fault point and at random times, and a plain Optuna script with heartbeats beside it.

    python tests/benchmarks/kill_table.py                 about ten minutes on two quiet cores; `bin/test --exhaustive` holds it
    python tests/benchmarks/kill_table.py --random 8      fewer kills at random times

Workload: 16 trials (at the points: 27) of 4 epochs with analytic accuracies (nothing is trained), one worker. A number is lost
if a trial of the uninterrupted study is missing or differs in any value at the end; an epoch is recomputed if it was begun more than once.
The plain script is what Optuna's documentation suggests: RDBStorage on SQLite with heartbeats every second, stale trials
retried by its callback, `optimize` for the trials still missing. It is run again after each kill, like ours.
Each part writes its table, when and on what it ran into kills.md.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.resilience import harness

LONGER = ("--set", "search.trials=27")
"""So that a study of the first part outlives some twenty kills."""

WAYS = ("self", "other", "both", "group")
RECORD = Path(__file__).with_name("kills.md")


@dataclass
class Cost:
    """Of all kills of one part."""

    kills: int = 0
    lost: int = 0
    recomputed: int = 0
    orphans: int = 0
    """Processes of the program that were alive 0.1 s after a kill."""
    again: int = 0
    """Epochs begun again although the driver had heard of them."""


def record(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], closing: str = "") -> None:
    """Prints a table, and puts it and what it ran on below `## title` in kills.md in place of the last one."""
    import optuna
    import torch

    from searchft.machine import processor_name

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=RECORD.parent, capture_output=True, text=True).stdout
    table = [columns, ["---"] * len(columns), *rows]
    lines = [f"| {' | '.join(str(cell) for cell in row)} |" for row in table]
    versions = f"Python {sys.version.split()[0]}, torch {torch.__version__}, Optuna {optuna.__version__}"
    where = f"{os.cpu_count()} cores, {processor_name()}, {versions}"
    text = "\n".join([f"Last run {time.strftime('%Y-%m-%d')} at {commit.strip() or 'an unknown commit'}: {where}.", "", *lines])
    text += f"\n\n{closing}" if closing else ""
    print(f"\n{title}\n{text}", flush=True)
    with filelock.FileLock(Path(tempfile.gettempdir()) / "searchft-kills.lock"):
        page = RECORD.read_text()
        pattern = rf"(## {re.escape(title)}\n.*?)Last run .*?(?=\n## |\Z)"
        changed, found = re.subn(pattern, lambda match: match[1] + text + "\n", page, flags=re.DOTALL)
        assert found == 1, f"kills.md has no section {title!r} with a line `Last run …`"
        RECORD.write_text(changed)


PLAIN = """
import hashlib, math, os, sys, time
import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
optuna.logging.set_verbosity(optuna.logging.ERROR)
folder, epoch_s = sys.argv[1], float(sys.argv[2])

def objective(trial):
    choice = (trial.suggest_categorical("unfrozen", ["head", "layer4", "layer3"]),
              trial.suggest_categorical("head", ["linear", "256+128"]),
              trial.suggest_categorical("dropout", [0.0, 0.5]),
              trial.suggest_categorical("lr", [1e-2, 1e-3, 1e-4]))
    digest = hashlib.sha256(repr(choice).encode()).digest()
    ceiling, pace = 0.5 + 0.5 * digest[0] / 255, 1 + 4 * digest[1] / 255
    for epoch in range(1, 5):
        with open(os.path.join(folder, "begun"), "a") as file:
            file.write(f"{choice} {epoch}\\n")
        time.sleep(epoch_s)
        value = ceiling * (1 - math.exp(-epoch / pace))
        trial.report(value, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value

storage = RDBStorage(f"sqlite:///{folder}/study.db", heartbeat_interval=1, grace_period=2,
                     failed_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=100))
study = optuna.create_study(study_name="s", storage=storage, load_if_exists=True, direction="maximize",
                            sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5))
done = sum(t.state in (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED) for t in study.get_trials())
study.optimize(objective, n_trials=max(0, 16 - done))
"""


def uninterrupted(folder: Path, *options: str) -> list:
    """The numbers of a study that nobody kills."""
    program = harness.Program(folder, options=options)
    program.finish()
    return program.numbers()


def at_points(folder: Path) -> Cost:
    """One row a fault point: how often the program was killed there, and what that cost."""
    from searchft.faults import POINTS

    whole = uninterrupted(folder / "whole", *LONGER)
    cached = ("store.", "images.", "cache.")
    points = [p for p in POINTS if not p.startswith(cached) and p != "driver.ending"] + ["driver.ending"]
    kills: collections.Counter[tuple[str, str]] = collections.Counter()
    again: collections.Counter[str] = collections.Counter()
    cost = Cost()
    for way in WAYS:
        here = harness.Program(folder / way, options=LONGER)
        previous = points[0]
        for i, point in enumerate(points):
            if way == "other" and not point.startswith(("worker.", "epoch.", "checkpoint.")):
                continue  # a driver that ends its worker goes on: no second run to count
            # What happens once a run is struck the first time; the rest at another occurrence each
            once = point.startswith(("lock.", "study.", "files.")) or point == "driver.ending"
            fault = f"{point}:{1 if once else 1 + i % 3}:{way}"
            known = here.recomputed()
            here.run(fault)
            kills[point, way] += fault in here.struck()
            time.sleep(0.1)
            cost.orphans += len(here.processes())
            again[previous] += here.recomputed() - known
            previous = point
        known = here.recomputed()
        here.finish()
        again[previous] += here.recomputed() - known
        cost.lost += here.lost(whole)
    cost.kills, cost.recomputed = sum(kills.values()), sum(again.values())
    record(
        "Ended by SIGKILL at every named point",
        ("killed at", "itself", "its worker", "both", "group", "epochs recomputed"),
        [(point, *(kills[point, way] for way in WAYS), again[point]) for point in points],
        f"{cost.kills} kills: {cost.lost} trials lost or different, {cost.recomputed} epochs recomputed, "
        f"{cost.orphans} orphans after 0.1 s.",
    )
    return cost


def at_random(folder: Path, count: int = 20) -> Cost:
    whole = uninterrupted(folder / "whole")
    rows, cost = [], Cost()
    for way in ("driver", "worker", "both", "group"):
        here, chance = harness.Program(folder / way, epoch_ms=40), random.Random(way)
        for _ in range(count):
            harness.kill_at(here, chance.uniform(0.3, 4.0), way)  # starting up, creating the study, searching
        here.finish()
        rows.append((way, count, here.lost(whole), here.recomputed()))
        cost.kills += count
        cost.lost += here.lost(whole)
        cost.recomputed += here.recomputed()
    record("Ended at random times", ("ended", "kills", "trials lost or different", "epochs recomputed"), rows)
    return cost


def plain(folder: Path, count: int) -> None:
    """The plain script under the same random kills, and under SIGTERM."""
    script = folder / "plain.py"
    script.write_text(PLAIN)

    def start(where: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(script), str(where), "0.04"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    reference = folder / "plain"
    reference.mkdir()
    start(reference).wait()
    rows = [row_of(reference, reference, "uninterrupted")]
    for name, number in (("SIGKILL", signal.SIGKILL), ("SIGTERM", signal.SIGTERM)):
        where, chance = folder / name, random.Random(name)
        where.mkdir()
        for _ in range(count):
            size, process = lines_of(where / "begun"), start(where)
            while lines_of(where / "begun") == size and process.poll() is None:
                time.sleep(0.01)  # until it computes: a kill during the imports proves nothing
            time.sleep(chance.uniform(0.0, 1.0))
            process.send_signal(number)
            process.wait()
        start(where).wait(300)
        rows.append(row_of(where, reference, f"{count} × {name}"))
    columns = "", "trials in the study", "running for ever", "failed", "epochs recomputed", "values that differ or are missing"
    record("The same work in a plain Optuna script", columns, rows)


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def row_of(where: Path, reference: Path, title: str) -> tuple[object, ...]:
    import optuna

    def trials(folder: Path) -> list:
        return optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/study.db").get_trials()

    mine, theirs = trials(where), trials(reference)
    states = collections.Counter(t.state.name for t in mine)
    more = lines_of(where / "begun") - lines_of(reference / "begun")
    finished = [[(t.params, t.value) for t in some if t.state.name in ("COMPLETE", "PRUNED")] for some in (mine, theirs)]
    differ = sum(pair not in finished[0] for pair in finished[1])
    return title, len(mine), states["RUNNING"], states["FAIL"], max(0, more), f"{differ} of {len(finished[1])}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--random", type=int, default=20, help="kills at random times, for each way")
    parser.add_argument("--parts", default="points,random,plain", help="which parts to run")
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    parts = {"points": at_points, "random": lambda f: at_random(f, chosen.random), "plain": lambda f: plain(f, chosen.random)}
    for part in chosen.parts.split(","):
        with tempfile.TemporaryDirectory() as name:
            parts[part](Path(name))


if __name__ == "__main__":
    main()
