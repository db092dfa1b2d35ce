"""A trial's folder: where it stands after each epoch, and the weights of its best one.

`LAST_CHECKPOINT` holds what the next epoch needs (trainable parameters, moving buffers, optimizer) and the results so far;
`BEST_WEIGHTS` the delta of the earliest best epoch against the pretrained model. Random states are not stored: every epoch
seeds its own generators from (trial seed, epoch), so an epoch boundary is a complete state.

Checkpoints are renamed into place but not synced: a sync costs more than an epoch of a linear probe, and a kill cannot undo a
rename. What a power cut damages is noticed by its SHA-256, and the trial, being deterministic, runs again from its beginning.
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
        self.path = Path(path)
        self.key = key

        self.last = self.path / LAST_CHECKPOINT
        self.best = self.path / BEST_WEIGHTS

    def load(self) -> Progress | None:
        """The stored progress, or None where there is none, it is damaged, or it belongs to another recipe."""
        try:
            payload = read_sealed_bytes(self.last)
        except (FileNotFoundError, StorageError):
            return None
        stored = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        if stored["key"] != self.key:
            return None
        results = [EpochResult.from_json(r, replayed=True) for r in json.loads(stored["results"])]
        progress = Progress(results, stored["state"], stored["optimizer"], stored["best_epoch"])
        if progress.best_epoch and self._best_epoch_stored() < progress.best_epoch:
            return None
        return progress

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
        metadata = {"key": self.key, "epoch": str(epoch), "sha256": delta_digest(tensors)}
        with replacing(self.best, sync=False) as file:
            file.write(save_safetensors(tensors, metadata=metadata))
        fault("checkpoint.best", f"{self.path.name} {epoch}")

    def _best_epoch_stored(self) -> int:
        """The epoch of the stored best weights; 0 where they are missing, damaged or another recipe's."""
        try:
            metadata = check_delta(self.best)
        except (FileNotFoundError, StorageError):
            return 0
        return int(metadata.get("epoch", 0)) if metadata.get("key") == self.key else 0


def delta_digest(tensors: Mapping[str, Tensor]) -> str:
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
            if written and delta_digest({name: file.get_tensor(name) for name in file.keys()}) != written:  # noqa: SIM118
                raise StorageError(f"{path} is damaged: its values are not those that were written", str(path))
    except (SafetensorError, ValueError) as error:
        raise StorageError(f"{path} is damaged: {error}", str(path)) from error
    return metadata
