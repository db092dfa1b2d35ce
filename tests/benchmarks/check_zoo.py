"""Which networks split at half depth and agree with themselves: every timm family's smallest member, torchvision's zoo.

One process per network, with a timeout, so that one that hangs or crashes costs nothing but its row. The table in
`zoo.md` is written after every network; run again, it goes on with those that are missing, or starts over where the
versions at its head are others. Weights are random; stages, freezing and modes are searchft's own.

A network counts as agreeing if `split_model` gave it a prefix (it then has compared both modes on two images, bit for
bit) and prefix and suffix give the logits of five other images, again bit for bit.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

TABLE = Path(__file__).with_name("zoo.md")
LARGEST = 100_000_000
"""Parameters; larger networks are left out."""

COLUMNS = ("network", "parameters", "side", "result", "crosses", "bytes an image", "seconds", "note")
SPLITS, WHOLE, FAILED, SKIPPED = RESULTS = "splits and agrees", "whole", "failed", "left out"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", default="*", help="names such as 'timm:resnet', 'torchvision/vgg*' (a timm family or a network)"
    )
    parser.add_argument("--limit", type=int, default=10**6, help="check at most so many more")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds per network")
    parser.add_argument("--fresh", action="store_true", help="forget the table")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print("ROW" + "\t".join(check(options.one)), flush=True)
        return 0
    rows = {} if options.fresh else read_table()
    todo = [target for target in targets() if fnmatch.fnmatch(target, options.only) and target not in rows]
    for number, target in enumerate(todo[: options.limit], 1):
        rows[target] = run_one(target, options.timeout)
        write_table(rows)
        print(f"[{number}/{min(len(todo), options.limit)}] {target}: {' | '.join(rows[target])}", flush=True)
    print(summary(rows))
    return 0


def targets() -> list[str]:
    """`timm:FAMILY` for each of timm's model files, `torchvision/NAME` for each classification network."""
    import timm
    import torchvision

    families = [f"timm:{family}" for family in sorted(timm.list_modules())]
    return families + [f"torchvision/{name}" for name in sorted(torchvision.models.list_models(module=torchvision.models))]


def run_one(target: str, timeout_s: float) -> tuple[str, ...]:
    """The row of one network, checked in a process of its own."""
    started = time.monotonic()
    command = [sys.executable, __file__, "--one", target]
    # A session of its own, so that a timeout ends what the network's process may have started, and only that.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return (target, "", "", FAILED, "", "", f"{timeout_s:.0f}", "took too long")
    for line in output.splitlines():
        if line.startswith("ROW"):
            return tuple(line[3:].split("\t"))
    silent = "killed: out of memory" if process.returncode == -9 else "ended without a word"
    last = (errors.strip().splitlines() or [silent])[-1]
    return (target, "", "", FAILED, "", "", f"{time.monotonic() - started:.1f}", clean(last))


def check(target: str) -> tuple[str, ...]:
    """The row of one network, in this process."""
    import torch

    from searchft.errors import InputError
    from searchft.features import split_model
    from searchft.models import build_model, describe_backbone, freeze, set_modes
    from searchft.recipe import Recipe, open_parameters

    name, parameters, side = chosen(target)
    if not name:
        return (target, "", "", SKIPPED, "", "", "", f"no member under {LARGEST // 1_000_000} M parameters")
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
    started = time.perf_counter()
    plain = Recipe(backbone=name, weights="none")
    remark = ""
    modes: Callable[[bool], None]
    try:
        facts = describe_backbone(plain, seed=0)
        recipe = Recipe(backbone=name, weights="none", unfrozen=max(1, len(facts.stages) // 2))
        opening = open_parameters(recipe, facts)
        model = build_model(recipe, facts, num_classes=5, head_seed=0)
        freeze(model, facts, opening)
        modes = functools.partial(set_modes, model, facts, opening)
    except InputError:
        # Several heads: searchft does not fine-tune it yet, but whether the network splits is another question.
        model, modes = halved(name)
        remark = "several heads, refused as a backbone; first half of its parameters frozen "
    images = torch.randn(7, 3, side, side, generator=torch.Generator().manual_seed(0))
    begun = time.perf_counter()
    split = split_model(model, modes, images[:2])
    took = f"{time.perf_counter() - begun:.1f}"
    row = (name, f"{parameters / 1e6:.1f} M", str(side))
    if split.prefix is None:
        return (*row, WHOLE, "", "", took, clean(remark + (split.reason or "nothing is frozen at half depth")))
    with torch.no_grad():
        together = model(images[2:])
        apart = split.suffix.select(False)(*split.prefix(images[2:]))
    note = remark if torch.equal(together, apart) else f"differs by {float((together - apart).abs().max()):.1e}"
    note += f" (all {time.perf_counter() - started:.0f} s)" if time.perf_counter() - started > 60 else ""
    result = SPLITS if torch.equal(together, apart) else FAILED
    return (*row, result, str(len(split.crossing)), str(split.bytes_per_image()), took, note.strip())


def halved(name: str) -> tuple[nn.Module, Callable[[bool], None]]:
    """A timm network as it comes, its first half frozen by order of parameters, and the rule for its modes: a module is in
    train mode if it or something below it trains."""
    import timm

    model = timm.create_model(name.removeprefix("timm/"), pretrained=False)
    parameters = list(model.parameters())
    for parameter in parameters[: len(parameters) // 2]:
        parameter.requires_grad_(False)

    def modes(training: bool) -> None:
        for module in model.modules():
            trains = any(p.requires_grad for p in module.parameters(recurse=False))
            module.training = training and (trains or not any(True for _ in module.parameters()))

    return model, modes


def chosen(target: str) -> tuple[str, int, int]:
    """(network, parameters, side in pixels): a family's smallest member by parameters, counted without memory."""
    import torch

    library, _, rest = target.partition("/")
    if library == "torchvision":
        import torchvision

        weights = torchvision.models.get_model_weights(rest).DEFAULT  # type: ignore[attr-defined]
        count = int(weights.meta["num_params"])  # some, such as RegNet, cannot be built without memory
        side = int(weights.transforms().crop_size[0])
        return (target, count, side) if count < LARGEST else ("", 0, 0)
    import timm

    best: tuple[int, str] | None = None
    for name in timm.list_models(module=target.removeprefix("timm:")):
        try:
            with torch.device("meta"):
                count = size_of(timm.create_model(name, pretrained=False))
        except Exception:  # cannot be built without memory, or wants packages that are not here: another one will do
            continue
        if count < LARGEST and (best is None or count < best[0]):
            best = (count, name)
    if best is None:
        return "", 0, 0
    size = timm.get_pretrained_cfg(best[1]).input_size  # type: ignore[union-attr]
    return f"timm/{best[1]}", best[0], int(size[-1])


def size_of(model: object) -> int:
    return sum(p.numel() for p in model.parameters())  # type: ignore[attr-defined]


def clean(text: str) -> str:
    """Fit for a table's cell."""
    return re.sub(r"\s+", " ", text.replace("|", "/"))[:160]


def versions() -> str:
    import timm
    import torch
    import torchvision

    return f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}"


def read_table() -> dict[str, tuple[str, ...]]:
    """Rows by target (the first cell names it), none if the table is of other versions."""
    if not TABLE.exists():
        return {}
    text = TABLE.read_text()
    if versions() not in text:
        return {}
    rows = {}
    for line in text.splitlines():
        cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
        if line.startswith("| ") and len(cells) == len(COLUMNS) + 1 and cells[4] in RESULTS:
            rows[cells[0]] = cells[1:]
    return rows


def write_table(rows: dict[str, tuple[str, ...]]) -> None:
    header = ("checked", *COLUMNS)
    lines = ["# Which networks split", "", summary(rows), ""]
    lines += [f"At half depth, random weights, {versions()}; `bin/check-zoo` makes this table.", ""]
    lines += ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join((target, *rows[target])) + " |" for target in sorted(rows)]
    temporary = TABLE.with_suffix(".part")
    temporary.write_text("\n".join(lines) + "\n")
    os.replace(temporary, TABLE)


def summary(rows: dict[str, tuple[str, ...]]) -> str:
    counted = [row for row in rows.values() if row[3] != SKIPPED]
    good = sum(row[3] == SPLITS for row in counted)
    share = f" ({100 * good / len(counted):.1f} %)" if counted else ""
    return f"{good} of {len(counted)} networks{share} split and agree; {len(rows) - len(counted)} left out for their size."


if __name__ == "__main__":
    raise SystemExit(main())
