"""What lost nodes and workers cost on Ray: real clusters on this machine, real kills, one row for each way.

    python tests/benchmarks/ray_kill_table.py               about ten minutes on two quiet cores
    python tests/benchmarks/ray_kill_table.py --times 2     fewer of each

Workload: 16 trials of 4 epochs with analytic accuracies (nothing is trained), one worker on two nodes of one CPU each (the last
rows: on the head node, and two workers). A lost node is replaced by one that joins while the study runs. A trial is lost if,
at the end, it is missing or differs in any value from the uninterrupted local study's (with two workers: if it is missing,
unfinished or failed); an epoch is recomputed if it was begun more than once. `again` counts epochs that were begun again
although the driver had heard of them: it must be 0.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.execution import grid as grids
from tests.resilience import harness

ROWS: tuple[tuple[str, str, dict[str, int], int], ...] = (
    ("worker's process", "worker", {"nodes": 2}, 1),
    ("node's raylet", "raylet", {"nodes": 2}, 1),
    ("whole node", "node", {"nodes": 2}, 1),
    ("node added", "added", {"nodes": 1}, 1),
    ("worker on the head", "worker", {"head_cpus": 1}, 1),
    ("whole node, 2 workers", "node", {"nodes": 2}, 2),
)
"""What a row is called, what is killed, the cluster, and how many workers."""


def begun_again(program: Any) -> int:
    """Epochs begun after the driver had heard of them."""
    heard: set[str] = set()
    count = 0
    for point, _, detail in program.passed():
        heard |= {detail} if point == "driver.heard" else set()
        count += point == "epoch.begun" and detail in heard
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=10, help="kills of each way")
    parser.add_argument(
        "--rays-own-pace", action="store_true", help="health checks as Ray has them: a dead node is seen after 14 s"
    )
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uninterrupted = harness.Program(folder / "whole")
        uninterrupted.finish()
        whole = uninterrupted.numbers()
        print(f"{'killed':<24}{'times':>7}{'runs':>6}{'trials lost':>13}{'recomputed':>12}{'again':>7}{'seconds':>9}")
        for title, way, nodes, workers in ROWS:
            times = runs = lost = recomputed = again = 0
            started = time.monotonic()
            while times < chosen.times:
                runs += 1
                grid = grids.Grid(folder / f"nodes {title} {runs}", **nodes, settings={} if chosen.rays_own_pace else None)
                options = ("--ray", grid.address, "--workers", str(workers))
                here = harness.Program(folder / f"{title} {runs}", epoch_ms=150, options=options)
                ways = (way,) * min(5, chosen.times - times)  # a study has about 50 epochs: five kills at most
                try:
                    struck = grids.run_with_losses(grid, here, ways, epochs_apart=7)
                finally:
                    grid.close()
                times += len(ways) if way == "added" else struck
                lost += here.lost(whole) if workers == 1 else missing(here)
                recomputed, again = recomputed + here.recomputed(), again + begun_again(here)
            took = time.monotonic() - started
            print(f"{title:<24}{times:>7}{runs:>6}{lost:>13}{recomputed:>12}{again:>7}{took:>9.0f}", flush=True)


def missing(program: Any) -> int:
    records = [r for r in program.records() if r.answered_from is None]
    return 16 - len(records) + sum(not r.finished or r.state == "failed" for r in records)


if __name__ == "__main__":
    main()
