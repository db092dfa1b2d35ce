"""What the trainable part of the network reads, batch by batch: stored values of the frozen part (no random augmentation, or fixed
views), images through the frozen part, or, where nothing is frozen, images. In fp32 all give the same numbers.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from searchft.data.images import Images
from searchft.data.transforms import Augment, Preprocess
from searchft.errors import StorageError
from searchft.features import FeatureStore, feature_key
from searchft.recipe import AUGMENTATIONS, Recipe, ResolvedTrial
from searchft.train.network import Network, Networks


@dataclass
class TrainingData:
    """What `fit` trains on: images, and where constant values are kept."""

    images: Images
    image_size: int
    """Side of the square that the network sees, in pixels; at most the stored side."""
    store: FeatureStore | None = None
    """None: the frozen part is computed for every batch."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    networks: Networks = field(default_factory=Networks)
    """Split networks kept from trial to trial."""


class SplitInputs:
    """Inputs of the trainable part of `network` for one split: `train`, `val` or `test`. Only `train` is augmented."""

    def __init__(self, data: TrainingData, split: str, trial: ResolvedTrial, network: Network) -> None:
        recipe, numerics, side = trial.recipe, trial.numerics, data.image_size
        part = data.images.split(split)
        self.size = len(part.labels)
        self.labels = torch.from_numpy(part.labels).to(data.device)
        self._images = torch.from_numpy(part.images)
        self._device, self._recipe, self._prefix = data.device, recipe, network.prefix
        self._float = numerics.trainable_dtype == "float32"
        self._channels_last = numerics.channels_last
        mean, std = trial.backbone.mean, trial.backbone.std
        self._preprocess = Preprocess(mean, std, side, data.device, torch.float32, channels_last=numerics.channels_last)
        augments = split == "train" and recipe.augments
        self._augment = Augment(recipe, side) if augments else None
        self._views: list[list[Tensor]] = []
        self.stored_s = 0.0
        """What an epoch does not spend because its values come from the store: what computing them took, once."""
        self.spent_s = 0.0
        """What the first epoch has spent on the store: computing its values, waiting for who did, or opening them."""
        if network.prefix is None or data.store is None or (augments and not recipe.augment_views):
            return
        backbone, fingerprint, text = trial.backbone, trial.data.fingerprint, augmentation_text(recipe) if augments else ""
        views = recipe.augment_views if augments else 1
        for view in range(views):
            key = feature_key(backbone, network.split.digest, fingerprint, split, numerics, data.device, view, side, text)
            began = time.perf_counter()
            stored = data.store.values(key, self.size, functools.partial(self._frozen_values, view))
            if stored is None:
                if data.store.refusal.startswith("the disk is full"):
                    # computing on, per batch, would take many times as long without anybody knowing why
                    why = f"cannot keep the frozen part's values: {data.store.refusal}"
                    raise StorageError(f"{why}. Free some space and run again, or run with --no-store.", str(data.store.root))
                self._views, self.stored_s = [], 0.0
                return
            self._views.append([_placed(value, data.device) for value in stored])
            self.stored_s += data.store.computed_s.get(key, 0.0) / views
            self.spent_s += time.perf_counter() - began

    def _frozen_values(self, view: int, start: int, stop: int) -> tuple[Tensor, ...]:
        """The frozen part's values of one fixed view of the images start … stop-1."""
        assert self._prefix is not None
        return self._prefix(self._seen(torch.arange(start, stop), self._recipe.seed, view))

    def _seen(self, indices: Tensor, seed: int, view: int) -> Tensor:
        """Images [B,3,H,W] float32 as the network sees them: augmented (one generator per image and view), normalized."""
        images = self._images[indices].to(self._device)
        if self._augment is not None:
            parts = []
            for position, index in enumerate(indices.tolist()):
                generator = torch.Generator().manual_seed(mixed_seed(seed, view, index))
                parts.append(self._augment(images[position : position + 1], generator))
            images = torch.cat(parts)
        return self._preprocess(images)

    def batch(self, indices: Tensor, epoch: int, seed: int) -> tuple[Tensor, ...]:
        """The trainable part's inputs for `indices` (int64 [B], on the CPU) in an epoch (0-based): tensors [B, …]."""
        if self._views:
            view = self._views[epoch % len(self._views)]
            values = tuple(v.index_select(0, indices.to(v.device)).to(self._device, non_blocking=True) for v in view)
        else:
            fixed = self._recipe.augment_views
            seen = self._seen(indices, self._recipe.seed, epoch % fixed) if fixed else self._seen(indices, seed, epoch)
            values = self._prefix(seen) if self._prefix is not None else (seen,)
        if self._float:
            values = tuple(v.float() if v.is_floating_point() else v for v in values)
        if self._channels_last:
            values = tuple(v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for v in values)
        return values


def _placed(value: Tensor, device: torch.device) -> Tensor:
    """Stored values where training reads them: on a card that has room, else in pinned memory; on a CPU as they are."""
    if device.type != "cuda":
        return value.to(device)
    free, _ = torch.cuda.mem_get_info(device)  # gpu: never reached on a machine without one
    return value.to(device) if value.nbytes < free // 3 else value.pin_memory()


def mixed_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers; neighbours give unrelated streams (a Weyl sequence through splitmix64)."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


def augmentation_text(recipe: Recipe) -> str:
    """Names stored views: the augmentations that are on, and the seed. One that comes to the table changes no name."""
    default = Recipe(recipe.backbone)
    names = [name for name in AUGMENTATIONS if getattr(recipe, name) != getattr(default, name)]
    return ",".join(f"{name}={getattr(recipe, name)}" for name in names) + f",seed={recipe.seed}"
