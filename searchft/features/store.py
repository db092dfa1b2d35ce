"""Keeps frozen values on disk: computed once, by whoever comes first, and shared by every trial, worker and study.

Values come back as torch tensors over `cache.Cache`'s maps; channels_last ones lie on disk in that order and come back in it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from searchft.cache import Cache, CacheRefusal
from searchft.faults import fault

CHUNK = 256  # images computed and written together: whole micro-batches, so that only the last one is padded


class FeatureStore(Cache):
    """Frozen values by key, within a disk budget."""

    def __init__(self, root: Path, budget_bytes: int) -> None:
        super().__init__(root, budget_bytes)
        self.refusal = ""  # why the last `values` gave None
        self.computed_s: dict[str, float] = {}  # by key, of the values opened: how long computing them took, once

    def values(self, key: str, count: int, compute: Callable[[int, int], tuple[Tensor, ...]] | None) -> list[Tensor] | None:
        """The values of `key`: CPU tensors [count, …], built by `compute` if they are not there.

        `compute(start, stop)` gives the rows start … stop-1 of every value, each [stop-start, …], for ascending, adjacent ranges.
        Gives None, with the reason in `refusal`, where the values do not fit the budget or the disk, or where `compute` is None and
        nothing usable is there. Raises ValueError for a malformed key, count or row, StorageError where the disk fails.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1 but got {count}")
        try:
            found = self.open(
                key,
                None if compute is None else lambda reserve: _write(reserve, count, compute),
                lambda manifest: all(file["shape"][0] == count for file in manifest["files"]),
            )
        except CacheRefusal as refusal:
            self.refusal = refusal.reason
            return None
        self.refusal = "" if found is not None else "nothing is stored"
        if found is None:
            return None
        self.computed_s[key] = found.manifest["seconds"]
        return [_tensor(raw, file) for raw, file in zip(found.arrays, found.manifest["files"], strict=True)]


def _write(reserve: Callable[[int], Path], count: int, compute: Callable[[int, int], tuple[Tensor, ...]]) -> dict[str, Any]:
    """Computes and writes all rows; returns what the manifest says of them."""
    seconds = 0.0

    def rows(start: int) -> list[Tensor]:
        nonlocal seconds
        began = time.perf_counter()
        values = [_host(value) for value in compute(start, min(start + CHUNK, count))]
        seconds += time.perf_counter() - began
        return values

    first = rows(0)
    described = [_describe(place, value) for place, value in enumerate(first)]
    folder = reserve(sum(value[:1].nbytes for value in first) * count)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(folder / value["name"], "wb")) for value in described]
        for start in range(0, count, CHUNK):
            values = rows(start) if start else first
            for place, (value, file) in enumerate(zip(values, files, strict=True)):
                if _describe(place, value) != described[place] or len(value) != min(CHUNK, count - start):
                    raise ValueError(f"rows from {start} of value {place} have another shape, dtype or layout than the first")
                file.write(_raw(value))
            fault("store.writing", folder.name)
    described = [one | {"shape": [count, *one["shape"]]} for one in described]
    return {"files": described, "seconds": round(seconds, 4)}


def _host(tensor: Tensor) -> Tensor:
    """On the CPU, in one of the two layouts that files know."""
    tensor = tensor.detach().cpu()
    return tensor if _layout(tensor) == "channels_last" else tensor.contiguous()


def _layout(tensor: Tensor) -> str:
    last = tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    return "channels_last" if last else "contiguous"


def _describe(place: int, tensor: Tensor) -> dict[str, Any]:
    """A file of the manifest, but for the number of rows."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"name": f"{place}.bin", "dtype": dtype, "shape": list(tensor.shape[1:]), "layout": _layout(tensor)}


def _raw(tensor: Tensor) -> memoryview:
    """The bytes, in the order of memory: numpy has no bfloat16."""
    tensor = tensor.permute(0, 2, 3, 1) if _layout(tensor) == "channels_last" else tensor
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _tensor(raw: np.ndarray, file: Mapping[str, Any]) -> Tensor:
    flat, shape = torch.from_numpy(raw).view(getattr(torch, file["dtype"])), file["shape"]
    if file["layout"] == "channels_last":
        return flat.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)
    return flat.view(shape)
