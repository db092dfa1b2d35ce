"""Measures which way of computing is fastest here. What it finds changes numbers: ask once, record it, put it into keys.

A way is taken only if it is more than 5 % faster than the best so far, so that on a tie numbers stay exact; bfloat16
only where the processor multiplies it natively. All ways run in turn, round after round, and each counts with its
shortest time, on a batch sized to take some tens of milliseconds: a second or three in all. Under load the answer may
still differ from run to run, which is why it is never asked twice in a study.
"""

from __future__ import annotations

import functools
import math
import platform
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, fx, nn

from searchft.features.prefix import MICRO_BATCH, Prefix, count_foldable
from searchft.recipe import Numerics

GAIN = 1.05
"""How many times faster a way must be to be taken."""

_RUN_S = 0.05
"""How long one timed run should take, in seconds."""
_RUNS = 3
_ROUNDS = 6
_HOPELESS = (1.6, 1.3)
"""How many times slower than the best a way may be after one round, and after two or more, and still run on: more than what noise
makes of a tie."""
_GATHERED_BYTES = 1 << 26
"""More than a processor's caches hold."""

Way = TypeVar("Way", bound=Hashable)


def native_bf16(device: torch.device | str) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return False
    if platform.machine().lower() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def calibrate_prefix(
    prefix: nn.Module, example: Tensor, device: torch.device | str = "cpu", precision: str = "auto", budget_s: float = 1.0
) -> Numerics:
    """How to run a frozen part fastest: `prefix_dtype`, `channels_last` and `fold`; `suffix_dtype` stays float32.

    `prefix` is `Split.prefix`, `example` images [B,3,H,W] float32; real ones where there are some. A way that raises, or
    gives NaN or infinity where float32 does not, is not taken. The race ends after about `budget_s` seconds. With
    `precision` other than `auto` nothing is measured: `fp32` gives `Numerics()`.
    """
    if precision == "bf16":
        return Numerics("bfloat16", "bfloat16", channels_last=True)
    plain = Numerics()
    if precision == "fp32":
        return plain
    runner = Prefix(prefix, plain, device)
    images = sized(runner.forward_once, example.to(device))
    finite = _finite(runner.forward_once(images))
    folds = [False, True] if isinstance(prefix, fx.GraphModule) and count_foldable(prefix) else [False]
    ways: dict[Numerics, Callable[[], object]] = {}
    for dtype, channels_last in _entries(device):
        for fold in folds:
            way = Numerics(prefix_dtype=dtype, channels_last=channels_last, fold=fold)
            run = runner if way == plain else _working(prefix, way, images, device, finite)
            if run is not None:
                ways[way] = functools.partial(run.forward_once, images)
    return _clear_winner(race(ways, torch.device(device), budget_s))


def calibrate_suffix(
    step: Callable[[torch.dtype, bool, bool], object],
    device: torch.device | str = "cpu",
    precision: str = "auto",
    budget_s: float = 3.0,
    small_maps: bool = False,
) -> tuple[str, bool, bool]:
    """(`suffix_dtype`, `channels_last`, `pad_first`) that train fastest. `step(dtype, channels_last, pad_first)` does one so.

    `small_maps` says whether there is anything to pad (`meets_small_maps`): then dtype and layout race with padding, which spares them
    oneDNN's slow kernels, and the winner against itself without. A step that raises RuntimeError is not taken; the plain
    one (float32, contiguous) must work. `fp32` and `bf16` are answered without measuring.
    """
    if precision == "fp32":
        return "float32", False, False
    if precision == "bf16":
        return "bfloat16", True, False
    place = torch.device(device)
    heat_s = budget_s / 2 if small_maps else budget_s

    def fastest(ways: list[tuple[str, bool, bool]]) -> tuple[str, bool, bool]:
        run = {way: functools.partial(step, getattr(torch, way[0]), *way[1:]) for way in ways}
        return _clear_winner(race(run, place, heat_s))

    dtype, layout, padded = fastest([(*name, small_maps) for name in _entries(place)])
    return fastest([(dtype, layout, False), (dtype, layout, True)]) if padded else (dtype, layout, False)


def _entries(device: torch.device | str) -> list[tuple[str, bool]]:
    """What races: (dtype, channels_last). bfloat16 only so: convolutions in it reorder contiguous images first."""
    return [("float32", False), ("float32", True), *([("bfloat16", True)] if native_bf16(device) else [])]


def race(ways: Mapping[Way, Callable[[], object]], device: torch.device, budget_s: float) -> dict[Way, float]:
    """The shortest time of each way in seconds, over rounds in which every way runs once.

    Turn by turn, so that a burst of load from elsewhere hits all of them alike and no way is judged by it alone. A way
    that is clearly slower than the best drops out (`_HOPELESS`). Ends when one is left, after `_ROUNDS`, or with the round in
    which `budget_s` is over, two at least. The first way must work; others that raise RuntimeError are left out.
    """
    started = time.perf_counter()
    times: dict[Way, float] = {}
    alive = list(ways)
    for way in list(alive):
        try:
            ways[way]()  # allocates, and lets the library choose and compile its kernels
        except (RuntimeError, NotImplementedError):
            if way is alive[0]:
                raise
            alive.remove(way)
    for count in range(_ROUNDS):
        for way in alive:
            clock = time.perf_counter()
            ways[way]()
            if device.type == "cuda":  # gpu: the call returns before the work is done
                torch.cuda.synchronize(device)
            times[way] = min(times.get(way, math.inf), time.perf_counter() - clock)
        shortest = min(times.values())
        alive = [way for way in alive if times[way] <= _HOPELESS[min(count, 1)] * shortest]
        if len(alive) == 1 or (count >= 1 and time.perf_counter() - started > budget_s):
            break
    return times


def _clear_winner(times: Mapping[Way, float]) -> Way:
    """The fastest way, if it is clearly faster than what stands before it: on a tie numbers stay exact."""
    first, *others = times
    best = first
    for way in others:
        if times[way] * GAIN < times[best]:
            best = way
    return best


def seconds_per_image(prefix: Prefix, example: Tensor) -> float:
    """How long one image takes through the frozen part, in seconds: what `choose_cut` weighs against reading."""
    images = sized(prefix.forward_once, example.to(prefix.device))
    return _shortest(lambda: prefix.forward_once(images), prefix.device) / len(images)


def gathered_bytes_per_s(bytes_per_image: int) -> float:
    """How fast stored values are read: rows of that size, gathered at random from memory in micro-batches, on the CPU.

    Time on the processor counts, and the median of many micro-batches: load from elsewhere must not make memory look so
    slow that computing seems the better choice. Takes some tens of milliseconds.
    """
    rows = max(MICRO_BATCH * 8, min(4096, _GATHERED_BYTES // max(1, bytes_per_image)))
    rows = min(rows, max(MICRO_BATCH, 4 * _GATHERED_BYTES // max(1, bytes_per_image)))
    stored = torch.ones((rows, max(1, bytes_per_image // 4)))
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    seconds = []
    for batch in (*order.split(MICRO_BATCH), *order.split(MICRO_BATCH)):
        started = time.thread_time()
        stored.index_select(0, batch)
        seconds.append((time.thread_time() - started) / len(batch))
    return stored.nbytes / rows / max(statistics.median(seconds), 1e-9)


def _working(prefix: nn.Module, way: Numerics, images: Tensor, device: torch.device | str, finite: bool) -> Prefix | None:
    """The frozen part run that way, or None where it raises or gives NaN or infinity and float32 does not."""
    try:
        runner = Prefix(prefix, way, device)
        return runner if not finite or _finite(runner.forward_once(images)) else None
    except (RuntimeError, NotImplementedError):
        return None


def _finite(values: tuple[Tensor, ...]) -> bool:
    return all(bool(value.isfinite().all()) for value in values if value.is_floating_point())


def sized(run: Callable[[Tensor], object], example: Tensor) -> Tensor:
    """As many of the example's images as take about `_RUN_S` together."""
    few = example[:1]
    run(few)
    started = time.perf_counter()
    run(few)
    each = max(time.perf_counter() - started, 1e-6)
    return example[: max(1, min(len(example), int(_RUN_S / each)))]


def _shortest(run: Callable[[], object], device: torch.device) -> float:
    def once() -> float:
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    once()  # the first run allocates, and lets the library choose and compile its kernels
    return min(once() for _ in range(_RUNS))
