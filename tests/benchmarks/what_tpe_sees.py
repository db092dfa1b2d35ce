"""How good TPE is when it is shown fewer records: one study for each number of records and seed, over a formula.

    .venv/bin/python tests/benchmarks/what_tpe_sees.py [RECORDS,RECORDS,…] [SEED,SEED,…]

The real `suggest`, one worker, nothing pruned, the space and the values of scale.py; trials end at once, known configurations are
answered. Printed: the best value after so many trials, the mean of the best twenty, how many were answered, and the time.
"""

from __future__ import annotations

import os
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import scale

from searchft.search import suggest
from searchft.search.records import COMPLETE, TrialRecord, Trials
from searchft.space import parse_space
from tests.analytic import invented_facts

TRIALS = 800
MARKS = (100, 200, 300, 400, 600, 800)


def study(records: int, seed: int) -> str:
    suggest.SHOWN = records
    suggest._BEST_SHOWN = suggest._RUNNING_SHOWN = records // 3
    space = parse_space(scale.SPACE.replace("TRIALS", str(TRIALS)), overrides=[f"search.seed={seed}"])
    facts, trials, marks, top = invented_facts(space), Trials(), list[str](), 0.0
    begun = time.perf_counter()
    while trials.own < TRIALS:
        number = len(trials)
        chosen = suggest.suggest(space, facts, trials, number)
        assert chosen is not None
        known = trials.answer_to(chosen.key)
        value = known.value if known else scale.ceiling(chosen.recipe)
        assert value is not None
        top = max(top, value)
        trials.put(
            TrialRecord(
                number,
                "",
                COMPLETE,
                space.labels_of(chosen.chosen),
                chosen.recipe,
                chosen.key,
                value,
                () if known else (value,),
                answered_from=known.number if known else None,
            )
        )
        if known is None and trials.own in MARKS:
            marks.append(f"{top:.4f}")
    best = [trials[number].value or 0.0 for number in trials.best_numbers(20)]
    cells = (str(records), str(seed), *marks, f"{sum(best) / 20:.4f}", str(len(trials) - TRIALS))
    return f"| {' | '.join(cells)} | {time.perf_counter() - begun:.0f} s |"


def main() -> None:
    records = [int(word) for word in (sys.argv[1] if len(sys.argv) > 1 else "100,150,300,1000").split(",")]
    seeds = [int(word) for word in (sys.argv[2] if len(sys.argv) > 2 else "0,1,2,3,4").split(",")]
    heads = ("records", "seed", *(f"after {mark}" for mark in MARKS), "best twenty", "answered", "took")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for seed in seeds:
        for count in records:
            print(study(count, seed), flush=True)


if __name__ == "__main__":
    main()
