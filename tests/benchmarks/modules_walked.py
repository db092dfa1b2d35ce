"""How the space walks from `api.run`, and a resolved recipe through `train.fit.fit`: which modules receive it, and which again.

    python tests/benchmarks/modules_walked.py            seconds; --show prints the ways

A way is made of calls to functions of searchft with the object, or a changed copy of it, among their arguments (`self` too), each pair
of caller and called once, when it first happens: in a real search of three trials and a real trial of two epochs. Calls to one module
one after the other are one entry; an entry to a module that the way had left is a return.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
ROOT = Path(__file__).parents[2] / "searchft"

SPACE = """
study: walked
data: {source: orl_faces, split: {train: 1, val: 1, test: 1, seed: 0}, image_size: 32}
recipe: {backbone: torchvision/resnet18, weights: none, unfrozen: [head, layer4], lr: [1e-3, 3e-3], epochs: 2, precision: fp32}
search: {trials: 3}
"""


def way_of(wanted: type | tuple[type, ...], first: str, act: Callable[[], object]) -> list[str]:
    """`module:function` from `first` on, of every such call while `act` runs; `wanted` is the object's class, or classes."""
    way: list[str] = []
    seen: set[object] = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(ROOT)) or code.co_name.startswith("<"):
            return
        step = f"{Path(code.co_filename).relative_to(ROOT).with_suffix('')}:{code.co_name}"
        given = (frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
        pair = code, frame.f_back and frame.f_back.f_code
        if pair not in seen and (way or step == first) and any(isinstance(value, wanted) for value in given):
            seen.add(pair)
            way.append(step)

    sys.setprofile(watch)
    try:
        act()
    finally:
        sys.setprofile(None)
    return way


def count(way: list[str]) -> tuple[int, int]:
    """Entries to a module, and how many of them are returns."""
    modules = [step.partition(":")[0] for step in way]
    entries = [module for i, module in enumerate(modules) if i == 0 or module != modules[i - 1]]
    return len(entries), len(entries) - len(set(entries))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--show", action="store_true", help="every step")
    show = parser.parse_args().show
    import searchft
    from searchft.recipe import Recipe, ResolvedTrial
    from searchft.space import Space, parse_space

    with tempfile.TemporaryDirectory() as name:
        os.environ["SEARCHFT_CACHE"] = name
        space = parse_space(SPACE)
        ways = {"space": way_of(Space, "api:run", lambda: searchft.run(space, studies=Path(name, "studies")))}
        trial = searchft.fit(space, {"unfrozen": "layer4"}, folder=Path(name, "trial"))
        ways["recipe"] = way_of((Recipe, ResolvedTrial), "train/fit:fit", lambda: list(trial))
    for what, way in ways.items():
        entries, returns = count(way)
        print(f"{what}: {len(way)} calls, {entries} entries to a module, {returns} of them returns")
        if show:
            print(*(f"    {step}" for step in way), sep="\n")


if __name__ == "__main__":
    main()
