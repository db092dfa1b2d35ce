"""What the driver and the storage cost: a search whose trials take no time at all, on SQLite.

    .venv/bin/python tests/benchmarks/driver_overhead.py [TRIALS] [EPOCHS]

The real driver, suggest (TPE), prune (median) and ledger, with learning curves from a formula. All of the time is overhead.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))


def main() -> None:
    from searchft.search.driver import run_study
    from searchft.search.ledger import Ledger
    from searchft.space import parse_space
    from tests.analytic import AnalyticExecutor, invented_facts

    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 12
    space = parse_space(
        "study: overhead\ndata: {source: orl_faces, image_size: 64}\nrecipe:\n  backbone: torchvision/resnet18\n  weights: none\n"
        "  unfrozen: [head, layer4, layer3, layer2, all]\n  head_widths: [[], [256, 128], [1024, 512], [2048, 1024]]\n"
        "  dropout: [0.0, 0.25, 0.5, 0.75]\n  batch_size: [16, 32, 64]\n  lr: [1e-2, 3e-3, 1e-3, 3e-4, 1e-4]\n"
        f"  weight_decay: [0.0, 1e-4, 1e-3, 1e-2]\n  epochs: {epochs}\nsearch: {{trials: {trials}}}\n"
    )
    facts = invented_facts(space)
    with tempfile.TemporaryDirectory() as folder, Ledger.open("", space.name, Path(folder), create=True) as ledger:
        ledger.pin(space, facts, {})
        started = time.perf_counter()
        reports = 0
        for event in run_study(space, facts, ledger, AnalyticExecutor(), Path(folder)):
            reports += type(event).__name__ == "EpochFinished"
        seconds = time.perf_counter() - started
        records = ledger.records()
    own = sum(record.answered_from is None for record in records)
    print(
        f"{own} trials ({len(records) - own} more answered), {reports} epochs reported: {seconds:.2f} s, "
        f"{1000 * seconds / own:.1f} ms a trial"
    )


if __name__ == "__main__":
    main()
