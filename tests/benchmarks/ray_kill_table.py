"""What lost nodes and workers cost on Ray: real clusters on this machine, real kills, one row for each way.

    python tests/benchmarks/ray_kill_table.py --times 10    about ten minutes on two quiet cores; `bin/test --exhaustive` holds it

Workload: 16 trials of 4 epochs with analytic accuracies (nothing is trained), one worker on two nodes of one CPU each (the last
rows: on the head node, and two workers). A lost node is replaced by one that joins while the study runs. A trial is lost if,
at the end, it is missing or differs in any value from the uninterrupted local study's (with two workers: if it is missing,
unfinished or failed); an epoch is recomputed if it was begun more than once. `again` counts epochs that were begun again
although the driver had received them: it must be 0. The table is written into kills.md.
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
from tests.benchmarks.kill_table import Cost, record, uninterrupted
from tests.resilience import harness

ROWS: tuple[tuple[str, str, dict[str, int], int], ...] = (
    ("the worker's process", "worker", {"nodes": 2}, 1),
    ("its node's raylet", "raylet", {"nodes": 2}, 1),
    ("its whole node", "node", {"nodes": 2}, 1),
    ("nothing: nodes join", "added", {"nodes": 1}, 1),
    ("the worker on the head node", "worker", {"head_cpus": 1}, 1),
    ("a whole node, two workers", "node", {"nodes": 2}, 2),
)
"""What is killed, as people say it and as `grid` calls it; the cluster; how many workers."""


def begun_again(program: Any) -> int:
    """Epochs begun after the driver had received them."""
    received: set[str] = set()
    count = 0
    for point, _, detail in program.passed():
        received |= {detail} if point == "driver.received" else set()
        count += point == "epoch.begun" and detail in received
    return count


def missing(program: Any) -> int:
    records = [r for r in program.records() if r.answered_from is None]
    return 16 - len(records) + sum(not r.finished or r.state == "failed" for r in records)


def on_ray(folder: Path, times: int = 5, settings: dict[str, Any] | None = None) -> Cost:
    """`times` kills of each way. `settings`: the cluster's own; None: it notices a dead node within 2 s."""
    from tests.execution import grid as grids

    whole = uninterrupted(folder / "whole")
    rows, total = [], Cost()
    for title, way, nodes, workers in ROWS:
        cost, runs, started = Cost(), 0, time.monotonic()
        while cost.kills < times:
            runs += 1
            grid = grids.Grid(folder / f"nodes {title} {runs}", **nodes, settings=settings)
            options = ("--ray", grid.address, "--workers", str(workers))
            here = harness.Program(folder / f"{title} {runs}", epoch_ms=150, options=options)
            ways = (way,) * min(5, times - cost.kills)  # a study has about 50 epochs: five kills at most
            try:
                struck = grids.run_with_losses(grid, here, ways, epochs_apart=7)
            finally:
                grid.close()
            cost.kills += len(ways) if way == "added" else struck
            cost.lost += here.lost(whole) if workers == 1 else missing(here)
            cost.recomputed, cost.again = cost.recomputed + here.recomputed(), cost.again + begun_again(here)
        rows.append((title, cost.kills, runs, cost.lost, cost.recomputed, cost.again, round(time.monotonic() - started)))
        total.kills, total.lost = total.kills + cost.kills, total.lost + cost.lost
        total.recomputed, total.again = total.recomputed + cost.recomputed, total.again + cost.again
    columns = ("killed", "times", "studies", "trials lost or different", "epochs recomputed", "again", "seconds")
    record("On Ray: lost nodes and workers", columns, rows)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=5, help="kills of each way")
    parser.add_argument("--rays-own-pace", action="store_true", help="Ray's own health checks: a dead node is seen after 14 s")
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        on_ray(Path(name), chosen.times, {} if chosen.rays_own_pace else None)


if __name__ == "__main__":
    main()
