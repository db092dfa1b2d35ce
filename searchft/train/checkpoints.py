"""A trial's folder: where it stands after each epoch, and the weights of its best one.

`BEST_WEIGHTS` holds the delta of the earliest best epoch against the pretrained model. Random states are not stored: every epoch
seeds its own generators. Files are renamed into place but not synced, which a kill cannot undo; what a power cut damages is
noticed by its SHA-256, and the trial, being deterministic, runs again from its beginning.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_safetensors
from torch import Tensor

from searchft.errors import StorageError
from searchft.faults import fault
from searchft.files import BEST_WEIGHTS, LAST_CHECKPOINT, read_sealed_bytes, replacing, replacing_sealed
from searchft.train.results import EpochResult


@dataclass
class Progress:
    """How far a trial has come."""

    results: list[EpochResult] = field(default_factory=list)
    state: dict[str, Tensor] = field(default_factory=dict)
    """Trainable parameters and moving buffers by name."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    best_epoch: int = 0


class TrialFolder:
    """Reads and writes a trial's checkpoint. A checkpoint belongs to one recipe key; others are ignored."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = Path(path), key
        self.last, self.best = self.path / LAST_CHECKPOINT, self.path / BEST_WEIGHTS

    def load(self) -> Progress | None:
        """The stored progress, or None where there is none, it is damaged, or it belongs to another recipe."""
        try:
            stored = torch.load(io.BytesIO(read_sealed_bytes(self.last)), map_location="cpu", weights_only=True)
            best = check_delta(self.best) if stored["best_epoch"] else {}
        except (FileNotFoundError, StorageError):
            return None
        if stored["key"] != self.key or best.get("key", self.key) != self.key:
            return None
        if int(best.get("epoch", 0)) < stored["best_epoch"]:
            return None
        results = [EpochResult.from_json(r, replayed=True) for r in json.loads(stored["results"])]
        return Progress(results, stored["state"], stored["optimizer"], stored["best_epoch"])

    def save(self, progress: Progress) -> None:
        """Replaces the checkpoint. Raises StorageError where the disk refuses; the old one is then intact."""
        content = {
            "key": self.key,
            "results": json.dumps([r.to_json() for r in progress.results]),
            "state": progress.state,
            "optimizer": progress.optimizer,
            "best_epoch": progress.best_epoch,
        }
        with replacing_sealed(self.last, sync=False) as file:
            torch.save(content, file)  # type: ignore[arg-type] # it asks for write and flush only
        fault("checkpoint.saved", f"{self.path.name} {len(progress.results)}")

    def save_best(self, delta: Mapping[str, Tensor], epoch: int) -> None:
        """Replaces the best epoch's delta: every parameter and buffer that training changed, contiguous, on the CPU."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in delta.items()}
        metadata = {"key": self.key, "epoch": str(epoch), "sha256": _delta_digest(tensors)}
        with replacing(self.best, sync=False) as file:
            file.write(save_safetensors(tensors, metadata=metadata))
        fault("checkpoint.best", f"{self.path.name} {epoch}")


def _delta_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values: safetensors files have no checksum of their own."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_delta(path: Path) -> dict[str, str]:
    """A delta's metadata, once its values are found to be those that were written.

    Raises FileNotFoundError, or StorageError naming the file where it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            written = metadata.get("sha256")
            if written and _delta_digest({name: file.get_tensor(name) for name in file.keys()}) != written:  # noqa: SIM118
                raise StorageError(f"{path} is damaged: its values are not those that were written", str(path))
    except (SafetensorError, ValueError) as error:
        raise StorageError(f"{path} is damaged: {error}", str(path)) from error
    return metadata
