"""Does `precision: auto` cost accuracy? Every depth, three seeds, exact fp32 against what auto chooses here.

    .venv/bin/python tests/benchmarks/auto_vs_fp32.py

One study on the packaged faces (five images a person to train on, two to validate; EfficientNet-lite0, 112 px, 8 epochs).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

SPACE = """
study: auto_vs_fp32
data: {source: orl_faces, split: {train: 5, val: 2, test: 3}, image_size: 112}
recipe:
  backbone: timm/tf_efficientnet_lite0
  weights: package
  unfrozen: [head, 1, 2, all]
  precision: [fp32, auto]
  seed: [0, 1, 2]
  batch_size: 64
  lr: 1e-3
  epochs: 8
search: {sampler: grid, pruner: none, trials: 24}
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder, "space.yaml")
        space.write_text(SPACE)
        command = [sys.executable, "-m", "searchft", "run", str(space), "--studies", folder, "--quiet", "--json"]
        trials = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["trials"]
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for trial in trials:
        name = (str(trial["recipe"]["unfrozen"]), trial["recipe"]["precision"])
        values[name].append(trial["value"])
        seconds[name].append(trial["seconds"])
    print("| open | fp32, three seeds | auto, three seeds | difference of means | spread of fp32 | seconds fp32, auto |")
    print("|---|---|---|---|---|---|")
    for depth in dict.fromkeys(name for name, _ in values):
        exact, fast = sorted(values[depth, "fp32"]), sorted(values[depth, "auto"])
        difference = statistics.mean(fast) - statistics.mean(exact)
        times = [statistics.median(seconds[depth, precision]) for precision in ("fp32", "auto")]
        print(
            f"| {depth} | {', '.join(f'{v:.4f}' for v in exact)} | {', '.join(f'{v:.4f}' for v in fast)} "
            f"| {difference:+.4f} | {exact[-1] - exact[0]:.4f} | {times[0]:.1f}, {times[1]:.1f} |"
        )


if __name__ == "__main__":
    main()
