"""What kills cost: searchft at every fault point and at random times, and a plain Optuna script with heartbeats beside it.

    python tests/benchmarks/kill_table.py                 about ten minutes on two quiet cores
    python tests/benchmarks/kill_table.py --random 8      fewer kills at random times

Workload: 16 trials (at the points: 27) of 4 epochs with analytic accuracies (nothing is trained), one worker. A number is lost
if a trial of the uninterrupted study is missing or differs in any value at the end; an epoch is recomputed if it was begun more than once.
The plain script is what Optuna's documentation suggests: RDBStorage on SQLite with heartbeats every second, stale trials
retried by its callback, `optimize` for the trials still missing. It is run again after each kill, like ours.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.resilience import harness

LONGER = ("--set", "search.trials=27")
"""So that a study of the first part outlives some twenty kills."""

WAYS = ("self", "other", "both", "group")

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


def at_points(folder: Path, whole: list) -> None:
    """One row a fault point: how often the program was killed there, and what that cost."""
    from searchft.faults import POINTS

    points = [p for p in POINTS if not p.startswith(("store.", "images.", "cache.")) and p != "driver.ending"] + [
        "driver.ending"
    ]
    kills = {point: dict.fromkeys(WAYS, 0) for point in points}
    again: dict[str, int] = dict.fromkeys(points, 0)
    lost = orphans = 0
    for way in WAYS:
        here = harness.Program(folder / way, options=LONGER)
        for i, point in enumerate(points):
            if way == "other" and not point.startswith(("worker.", "epoch.", "checkpoint.")):
                continue  # a driver that ends its worker goes on: no second run to count
            # What happens once a run is struck the first time; the rest at another occurrence each
            once = point.startswith(("lock.", "study.", "files.")) or point == "driver.ending"
            fault = f"{point}:{1 if once else 1 + i % 3}:{way}"
            here.run(fault)
            before = here.recomputed()
            if fault in here.struck():
                kills[point][way] += 1
            time.sleep(0.1)
            orphans += len(here.processes())
            previous = points[i - 1] if i else point
            again[previous] += before - sum_of(here, "seen", before)
        here.finish()
        again[points[-1]] += here.recomputed() - sum_of(here, "seen", here.recomputed())
        lost += here.lost(whole)
    print(f"\n{'killed at':<20}{'itself':>8}{'other':>8}{'both':>8}{'group':>8}{'epochs recomputed':>20}")
    for point in points:
        print(f"{point:<20}" + "".join(f"{kills[point][way]:>8}" for way in WAYS) + f"{again[point]:>20}")
    total = sum(sum(row.values()) for row in kills.values())
    print(
        f"{total} kills: {lost} trials lost or different, {sum(again.values())} epochs recomputed, {orphans} orphans after 0.1 s"
    )


def sum_of(here: object, name: str, value: int) -> int:
    """The value stored under a name on the program before, which is replaced by `value`."""
    before = int(getattr(here, name, 0))
    setattr(here, name, value)
    return before


def at_random(folder: Path, whole: list, count: int) -> None:
    lost = recomputed = 0
    for way in ("driver", "worker", "both", "group"):
        here, chance = harness.Program(folder / f"random-{way}", epoch_ms=40), random.Random(way)
        for _ in range(count):
            harness.kill_at(here, chance.uniform(0.3, 4.0), way)  # starting up, creating the study, searching
        here.finish()
        lost, recomputed = lost + here.lost(whole), recomputed + here.recomputed()
        print(
            f"random, {way:<7}{count:>4} kills: {here.lost(whole)} trials lost or different, {here.recomputed()} epochs recomputed"
        )


def plain(folder: Path, count: int) -> None:
    """The plain script under the same random kills, under SIGTERM, and killed before a first heartbeat."""
    folder.mkdir()
    script = folder / "plain.py"
    script.write_text(PLAIN)

    def start(where: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(script), str(where), "0.04"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    reference = folder / "whole"
    reference.mkdir()
    start(reference).wait()
    print(
        f"\n{'plain Optuna script':<26}{'trials':>8}{'running for ever':>18}{'failed':>8}{'epochs recomputed':>20}{'values differ':>15}"
    )
    row_of(reference, reference, "uninterrupted")
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
        try:
            start(where).wait(300)
        except subprocess.TimeoutExpired:
            print(f"{name}: hangs")
        row_of(where, reference, f"{count} × {name}, random")


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def row_of(where: Path, reference: Path, title: str) -> None:
    import optuna

    def trials(folder: Path) -> list:
        return optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/study.db").get_trials()

    mine, theirs = trials(where), trials(reference)
    running = sum(t.state.name == "RUNNING" for t in mine)
    failed = sum(t.state.name == "FAIL" for t in mine)
    begun = (where / "begun").read_text().splitlines()
    more = len(begun) - len((reference / "begun").read_text().splitlines())
    finished = [[(t.params, t.value) for t in some if t.state.name in ("COMPLETE", "PRUNED")] for some in (mine, theirs)]
    differ = sum(pair not in finished[0] for pair in finished[1])
    print(f"{title:<26}{len(mine):>8}{running:>18}{failed:>8}{max(0, more):>20}{differ:>12}/{len(finished[1])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--random", type=int, default=20, help="kills at random times, for each way")
    parser.add_argument("--parts", default="points,random,plain", help="which parts to run")
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uninterrupted = harness.Program(folder / "whole")
        uninterrupted.finish()
        whole = uninterrupted.numbers()
        if "points" in chosen.parts:
            longer = harness.Program(folder / "longer", options=LONGER)
            longer.finish()
            at_points(folder, longer.numbers())
        if "random" in chosen.parts:
            at_random(folder, whole, chosen.random)
        if "plain" in chosen.parts:
            plain(folder / "plain", chosen.random)


if __name__ == "__main__":
    main()
