"""A network, split for one opening and kept: trial after trial trains it anew from its pretrained values.

Splitting takes longer than a linear probe trains. So a worker keeps the last few networks and puts back the pretrained values and
a new head (a leaf of the graph): bit for bit what a new build gives.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from searchft.features import Prefix, Split, split_model
from searchft.models import build_model, freeze, head_parameters, new_head, set_modes
from searchft.recipe import Opening, Recipe, ResolvedTrial, digest

KEPT = 6
"""Split networks a worker keeps."""


class Network:
    """A model with its freezing applied and its split made, for images of `side` x `side` pixels.

    `opening` is the trial's, or its `head_opening`.
    """

    def __init__(self, trial: ResolvedTrial, opening: Opening, side: int, device: torch.device, head_seed: int = 0) -> None:
        backbone, numerics = trial.backbone, trial.numerics
        self.backbone, self.opening, self.numerics = backbone, opening, numerics
        self.num_classes, self.device = trial.num_classes, device
        self.autocast_dtype = torch.bfloat16 if numerics.trainable_dtype == "bfloat16" else None
        self.model = build_model(trial.recipe, backbone, trial.num_classes, head_seed).to(device)
        freeze(self.model, backbone, opening)
        if numerics.channels_last:
            self.model.to(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(0)
        example = torch.randn(2, 3, side, side, generator=generator).to(device)
        self.split: Split = split_model(self.model, self._set_modes, example, leaves=(backbone.head,))
        if numerics.pad_first:
            pad_first(self.model)
        self.prefix = Prefix(self.split.prefix, numerics, device) if self.split.prefix is not None else None
        head = set(head_parameters(self.model, backbone))
        self._pretrained = {name: t.clone() for name, t in self.changing().items() if name not in head}

    def _set_modes(self, training: bool) -> None:
        set_modes(self.model, self.backbone, self.opening, training)

    def renew(self, recipe: Recipe, opening: Opening, head_seed: int) -> None:
        """Pretrained values again, and a new head of the recipe's shape initialised from `head_seed`.

        `opening` trains the same parameters; its groups of rates may be others.
        """
        self.opening = opening
        self.load(self._pretrained)
        for parameter in self.model.parameters():
            parameter.grad = None
        head = new_head(recipe, self.backbone, self.num_classes, head_seed).to(self.device)
        for module in (self.model, *self.split.suffix.graphs):
            module.set_submodule(self.backbone.head, head)

    def changing(self) -> dict[str, Tensor]:
        """What training may change, by name, sharing the model's memory: open parameters, head, statistics."""
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        names = {f"{norm}.{buffer}" for norm in self.opening.train_norms for buffer in statistics}
        names |= {*self.opening.parameters, *head_parameters(self.model, self.backbone)}
        state = self.model.state_dict(keep_vars=True)
        return {name: tensor.detach() for name, tensor in state.items() if name in names}

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Copies values into the model, by name. Raises KeyError for a name that it does not have."""
        state = self.model.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, value in values.items():
                state[name].copy_(value)

    def logits(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Logits [B, C] in float32 from the trainable part's inputs; in train mode auxiliary logits after them."""
        dtype = self.autocast_dtype
        with torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            out = self.split.suffix(*values)
        return tuple(part.float() for part in out if part is not None) if isinstance(out, tuple) else (out.float(),)


class Networks:
    """The last few networks of a worker."""

    def __init__(self) -> None:
        self._kept: dict[str, Network] = {}

    def get(self, trial: ResolvedTrial, opening: Opening, side: int, device: torch.device, head_seed: int) -> Network:
        """A network for the trial under `opening`, as if newly built."""
        if trial.recipe.auxiliary:  # auxiliary heads are part of the graph: nothing to keep
            return Network(trial, opening, side, device, head_seed)
        name = digest([trial.recipe.architecture(), opening.digest, dataclasses.asdict(trial.numerics), side, str(device)])
        network = self._kept.pop(name, None)
        while len(self._kept) >= KEPT:
            del self._kept[next(iter(self._kept))]  # the one that was used longest ago
            gc.collect()  # a network refers to itself, and the collector looks rarely: a card would fill up
        self._kept[name] = network = network or Network(trial, opening, side, device)
        network.renew(trial.recipe, opening, head_seed)
        return network


def pad_first(model: nn.Module) -> None:
    """Lets depthwise convolutions whose weights train, on maps smaller than their kernel, have the zeros around the images beforehand.

    oneDNN has no fast kernel for the gradient of such weights; without padding of its own it takes one: forward and backward of
    1,152 channels, 4x4, kernel 5, 64 images in 36 ms instead of 72 (2-core x86-64). Values are equal but for rounding, so it
    counts as numerics. Evaluation runs the network as it is.
    """
    for module in model.modules():
        if (
            type(module) is nn.Conv2d  # subclasses pad in ways of their own
            and module.groups == module.in_channels > 1
            and module.weight.requires_grad
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
            and any(module.padding)
        ):
            module.forward = functools.partial(_padded, module)  # type: ignore[method-assign]


def _padded(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """Values [B,C,H',W'] of `conv` for images [B,C,H,W]."""
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(conv.kernel_size, conv.dilation, strict=True)]
    smaller = images.shape[-2] < reach[0] or images.shape[-1] < reach[1]
    if not smaller or not torch.is_grad_enabled():
        return nn.Conv2d.forward(conv, images)
    high, wide = int(conv.padding[0]), int(conv.padding[1])
    images = F.pad(images, (wide, wide, high, high))
    return F.conv2d(images, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)
