"""How near training comes to this machine's matrix rate: operations of the trainable part over measured time, at each depth.

    .venv/bin/python tests/benchmarks/limit.py [--backbone lite0|resnet18] [--profile]

The rate is the best of several 2048 x 2048 matrix products, in float32 and bfloat16. Operations are counted by torch's own counter,
forward and backward (there with a formula of ours: its own takes depthwise convolutions for dense ones), for one training batch of
64; the time is the median of several steps on stored values, with freed memory kept, as workers do.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from searchft.facts import describe
from searchft.machine import keep_freed_memory
from searchft.recipe import resolve
from searchft.space import parse_space
from searchft.train.network import Network

SPACES = {
    "lite0": "backbone: timm/tf_efficientnet_lite0\n  weights: package\n  unfrozen: [head, 1, 2, all]",
    "resnet18": "backbone: torchvision/resnet18\n  weights: none\n  unfrozen: [head, layer4, layer3, all]\n"
    "  edits: {conv1.stride: 1, layer2.0.conv1.stride: 1, layer2.0.downsample.0.stride: 1}",
}
SIDES = {"lite0": 112, "resnet18": 64}
BATCH = 64


def matrix_rate(dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product."""
    a, b = torch.randn(2048, 2048, dtype=dtype), torch.randn(2048, 2048, dtype=dtype)
    best = float("inf")
    for _ in range(12):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best


def convolution_backward(grad_shape: Any, images: Any, weight: Any, *rest: Any, **more: Any) -> int:
    """Operations of a convolution's backward pass: those of its forward pass for each gradient that is asked for.

    Shapes: gradient [B,C',H',W'], weight [C',C/groups,k,k]; `rest` ends with the output mask (images, weight, bias).
    """
    mask = rest[-1]
    return 2 * grad_shape[0] * math.prod(grad_shape[2:]) * math.prod(weight) * (mask[0] + mask[1])


FORMULAS = {torch.ops.aten.convolution_backward: convolution_backward}


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=list(SPACES), default="lite0")
    parser.add_argument("--profile", action="store_true", help="then the share of each operator in a step of the whole network")
    arguments = parser.parse_args()
    name = arguments.backbone
    rates = {dtype: matrix_rate(getattr(torch, dtype)) for dtype in ("float32", "bfloat16")}
    print(", ".join(f"{dtype} {rate / 1e9:.0f} GFLOP/s" for dtype, rate in rates.items()))
    side = SIDES[name]
    space = parse_space(
        f"study: limit\ndata: {{source: orl_faces, split: {{train: 5, val: 2, test: 3}}, image_size: {side}}}\n"
        f"recipe:\n  {SPACES[name]}\n  batch_size: {BATCH}\n  epochs: 8\n"
    )
    print(f"| {name}, {side} px, batch {BATCH} | dtype | GFLOP a step | ms a step | GFLOP/s | share of the matrix rate |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        facts, _ = describe(space, Path(folder))
        for _, recipe in space.recipes(facts):
            trial = resolve(recipe, facts)
            numerics = trial.numerics
            network = Network(trial, trial.opening, side, torch.device("cpu"))
            batch = torch.randn(BATCH, 3, side, side)
            values = network.prefix(batch) if network.prefix is not None else (batch,)
            if numerics.trainable_dtype == "float32":
                values = tuple(v.float() for v in values)
            if numerics.channels_last:
                values = tuple(v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for v in values)
            labels = torch.randint(0, 40, (BATCH,))
            optimizer = torch.optim.Adam([p for p in network.model.parameters() if p.requires_grad], fused=True)
            network.split.suffix.select(True)

            def step() -> None:
                loss = F.cross_entropy(network.logits(values)[0], labels)  # noqa: B023 - called in this turn of the loop
                optimizer.zero_grad(set_to_none=True)  # noqa: B023
                loss.backward()
                optimizer.step()  # noqa: B023

            with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
                step()
            times = []
            for _ in range(9):
                started = time.perf_counter()
                step()
                times.append(time.perf_counter() - started)
            seconds, operations = statistics.median(times), counter.get_total_flops()
            share = operations / seconds / rates[numerics.trainable_dtype]
            print(
                f"| {trial.opening.spelling} | {numerics.trainable_dtype} | {operations / 1e9:.3g} | {1000 * seconds:.2f} "
                f"| {operations / seconds / 1e9:.3g} | {100 * share:.0f} % |",
                flush=True,
            )
        if arguments.profile:
            print_shares(step)  # of the last one, everything open


def print_shares(step: Callable[[], None]) -> None:
    """Each operator's share of the processor's time in four steps, from one per cent on."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(4):
            step()
    events = profile.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    for event in sorted(events, key=lambda event: -event.self_cpu_time_total):
        if event.self_cpu_time_total >= 0.01 * total:
            print(f"{event.key}: {100 * event.self_cpu_time_total / total:.0f} %")


if __name__ == "__main__":
    main()
