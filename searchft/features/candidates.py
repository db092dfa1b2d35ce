"""Finds the places inside a frozen part where keeping values could pay, and measures what each would cost.

Of two places with the same number of bytes the deeper one saves more. So only those are candidates that hold fewer bytes
than every deeper one, the edge included: few, and none at all where the edge is the narrowest place, as behind a global
pooling. Then nothing is timed.

The frozen part runs node by node on a small real batch, several rounds, and each node counts with its shortest time.
Running so takes longer than running the whole: what is measured is which share of the whole lies before each place.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from searchft.features.calibrate import sized
from searchft.features.cut import Candidate
from searchft.features.divide import Position, positions
from searchft.features.observe import equal
from searchft.features.prefix import Prefix, layout_of

_ROUNDS = 5


def find_candidates(
    prefix: Prefix, example: Tensor, edge_bytes: int, seconds_per_image: float, budget_s: float = 0.5
) -> list[Candidate]:
    """The edge, then shallower places with ever fewer bytes.

    `example` is three real images [B ≥ 3,3,H,W] or more, float32; `edge_bytes` what the crossing values of one image take;
    `seconds_per_image` what the whole was measured to take. Timing ends after about `budget_s` seconds, with two rounds at least.
    """
    edge = Candidate("", edge_bytes, seconds_per_image)
    module = prefix.module
    if not isinstance(module, fx.GraphModule) or len(example) < 3:
        return [edge]
    example = example.to(prefix.device)

    # Where fewer bytes live than at every deeper place
    rows = _rows(prefix, example)
    module = prefix.module  # the first run may have settled for another
    assert isinstance(module, fx.GraphModule)
    narrow: list[tuple[Position, int]] = []
    fewest = edge_bytes
    for position in reversed(positions(module)):
        sizes = [rows.get(node.name) for node in position.live]
        size = sum(s for s in sizes if s is not None)
        if None not in sizes and 0 < size < fewest:
            narrow.append((position, size))
            fewest = size
    if not narrow:
        return [edge]

    # Which share of the time lies before each
    seconds = _node_seconds(prefix, sized(prefix.forward_once, example), budget_s)
    total = sum(seconds.values())
    found = [edge]
    for position, size in narrow:
        before = 0.0
        for node in module.graph.nodes:
            before += seconds.get(node.name, 0.0)
            if node is position.node:
                break
        share = before / total if total else 1.0
        found.append(Candidate(position.name, size, share * seconds_per_image, (1 - share) * seconds_per_image))
    return found


def agrees(prefix: Prefix, at: str, images: Tensor) -> bool:
    """Whether a frozen part divided at `at` gives the values of the undivided one to the last bit.

    Half of the images' kept values are wiped out: the others' values must not change by that.
    """
    images = images[:4].to(prefix.device)
    half = (len(images) + 1) // 2
    try:
        first, rest = prefix.divided(at, images)
        expected = [value[:half] for value in prefix.forward_once(images)]
        kept = [torch.cat([value[:half], torch.zeros_like(value[half:])]) for value in first.forward_once(images)]
        return equal(expected, [value[:half] for value in rest.forward_once(*kept)])
    except (KeyError, RuntimeError, ValueError, IndexError, TypeError, AssertionError):
        return False


def _rows(prefix: Prefix, example: Tensor) -> dict[str, int]:
    """Bytes per image of every node's value that can be stored: a tensor [B, …] in a layout that files know."""
    prefix.forward_once(example[:2])
    two, three = _looked_at(prefix, example[:2]), _looked_at(prefix, example[:3])
    return {
        name: here.size_bytes
        for name, here in two.items()
        if (there := three.get(name)) is not None
        and (here.rows, there.rows) == (2, 3)
        and here.plain
        and (here.shape, here.size_bytes) == (there.shape, there.size_bytes)
    }


@dataclass(frozen=True)
class _Looked:
    """What is seen of a tensor."""

    rows: int
    shape: tuple[int, ...]
    """Of one row."""
    size_bytes: int
    """Of one row."""
    plain: bool
    """Whether its strides are those of a new tensor of its shape: kernels may be chosen by them."""


def _looked_at(prefix: Prefix, images: Tensor) -> dict[str, _Looked]:
    seen: dict[str, _Looked] = {}

    def look(node: fx.Node, run: Callable[[], Any]) -> Any:
        value = run()
        storable = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_complex() and value.ndim > 0
        if storable and not value.is_quantized:
            same = torch.empty(value.shape, memory_format=layout_of(value), device="meta")
            shape = tuple(value.shape[1:])
            seen[node.name] = _Looked(
                len(value), shape, math.prod(shape) * value.element_size(), value.stride() == same.stride()
            )
        return value

    _interpret(prefix, images, look)
    return seen


def _node_seconds(prefix: Prefix, images: Tensor, budget_s: float) -> dict[str, float]:
    """The shortest time of every node in seconds; the first round, which allocates, does not count."""
    seconds: dict[str, float] = {}

    def clock(node: fx.Node, run: Callable[[], Any]) -> Any:
        started = now()
        value = run()
        if prefix.device.type == "cuda":  # gpu: the call returns before the work is done
            torch.cuda.synchronize(prefix.device)
        seconds[node.name] = min(seconds.get(node.name, math.inf), now() - started)
        return value

    # One node takes so short a time that whoever takes the processor away meanwhile would decide alone: time on it counts.
    now = time.perf_counter if prefix.device.type == "cuda" else time.thread_time

    began = time.perf_counter()
    _interpret(prefix, images, lambda node, run: run())
    for count in range(_ROUNDS):
        _interpret(prefix, images, clock)
        if count >= 1 and time.perf_counter() - began > budget_s:
            break
    return seconds


class _Interpreter(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, around: Callable[[fx.Node, Callable[[], Any]], Any]) -> None:
        super().__init__(module)
        self._around = around

    def run_node(self, n: fx.Node) -> Any:
        return self._around(n, lambda: super(_Interpreter, self).run_node(n))


@torch.inference_mode()
def _interpret(prefix: Prefix, images: Tensor, around: Callable[[fx.Node, Callable[[], Any]], Any]) -> None:
    """Runs the frozen part node by node, `around` each."""
    module = prefix.module
    assert isinstance(module, fx.GraphModule)
    with prefix.casting():
        _Interpreter(module, around).run(prefix.entering(images))
