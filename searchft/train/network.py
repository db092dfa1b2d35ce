"""A network, split for one opening and kept: trial after trial trains it anew from its pretrained values.

Tracing, splitting and checking a network takes longer than a whole linear probe trains. It depends on network and opening
alone, not on the head (a leaf of the graph), the rates or the batch size. So a worker keeps the last few splits and
for each trial puts back the pretrained values and a new head: the result is bit for bit that of a new build.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from searchft.features.padding import pad_first
from searchft.features.prefix import First, Prefix, Rest
from searchft.features.split import Split, split_model
from searchft.models import build_model, freeze, head_parameters, new_head, set_modes
from searchft.recipe import BackboneFacts, Numerics, Opening, Recipe, SpaceFacts, digest

KEPT = 6
"""Split networks a worker keeps."""

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Buffers that a BatchNorm in train mode changes."""


class Network:
    """A model with its freezing applied and its split made.

    Args:
        side: height and width of the images, in pixels.
        device: where it runs.
    """

    def __init__(
        self,
        recipe: Recipe,
        backbone: BackboneFacts,
        opening: Opening,
        numerics: Numerics,
        num_classes: int,
        side: int,
        device: torch.device,
        head_seed: int = 0,
    ) -> None:
        self.backbone, self.opening, self.numerics = backbone, opening, numerics
        self.num_classes, self.device = num_classes, device
        self.autocast_dtype = torch.bfloat16 if numerics.suffix_dtype == "bfloat16" else None
        self.model = build_model(recipe, backbone, num_classes, head_seed).to(device)
        freeze(self.model, backbone, opening)
        if numerics.channels_last:
            self.model.to(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(0)
        example = torch.randn(2, 3, side, side, generator=generator).to(device)
        self.split: Split = split_model(self.model, self._set_modes, example, leaves=(backbone.head,))
        self._example = example
        self._divided: dict[str, tuple[First, Rest] | None] = {}
        if numerics.pad_first:
            pad_first(self.model)
        self._set_modes(False)  # splitting leaves the modes as it found them; the frozen part is always in evaluation mode
        self.prefix = Prefix(self.split.prefix, numerics, device) if self.split.prefix is not None else None
        head = set(head_parameters(self.model, backbone))
        self._pretrained = {name: t.clone() for name, t in self.changing().items() if name not in head}

    def _set_modes(self, training: bool) -> None:
        set_modes(self.model, self.backbone, self.opening, training)

    def divided(self, at: str) -> tuple[First, Rest] | None:
        """The frozen part in two, kept from trial to trial; None where it has no place named `at`."""
        if at not in self._divided:
            try:
                self._divided[at] = self.prefix.divided(at, self._example) if self.prefix is not None else None
            except KeyError:  # measured with another release of the network's library: its nodes may have other names
                self._divided[at] = None
        return self._divided[at]

    def renew(self, recipe: Recipe, head_seed: int) -> None:
        """Pretrained values again, and a new head of the recipe's shape initialised from `head_seed`."""
        state = self.model.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, tensor in self._pretrained.items():
                state[name].copy_(tensor)
                state[name].grad = None
        head = new_head(recipe, self.backbone, self.num_classes, head_seed).to(self.device)
        for module in (self.model, *self.split.suffix.graphs):
            module.set_submodule(self.backbone.head, head)

    def changing(self) -> dict[str, Tensor]:
        """What training may change, by name in the model's state, sharing its memory: open parameters, head, statistics."""
        names = {f"{norm}.{buffer}" for norm in self.opening.train_norms for buffer in STATISTICS}
        names |= {*self.opening.parameters, *head_parameters(self.model, self.backbone)}
        state = self.model.state_dict(keep_vars=True)
        return {name: tensor.detach() for name, tensor in state.items() if name in names}

    def load(self, values: dict[str, Tensor]) -> None:
        """Copies values into the model, by name. Raises KeyError for a name that it does not have."""
        state = self.model.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, value in values.items():
                state[name].copy_(value)

    def head_state(self) -> dict[str, Tensor]:
        """The head's present values, by name."""
        return {name: p.detach() for name, p in head_parameters(self.model, self.backbone).items()}

    @property
    def trained(self) -> list[nn.Parameter]:
        """Parameters with gradients."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def logits(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Logits [B, C] in float32 from the trained part's inputs; in train mode auxiliary logits after them."""
        dtype = self.autocast_dtype
        with torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            out = self.split.suffix(*values)
        return tuple(part.float() for part in out if part is not None) if isinstance(out, tuple) else (out.float(),)


class Networks:
    """The last few networks of a worker."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Network] = OrderedDict()

    def get(
        self, recipe: Recipe, facts: SpaceFacts, opening: Opening, side: int, device: torch.device, head_seed: int
    ) -> Network:
        """A network for the recipe under `opening`, as if newly built."""
        backbone = facts.backbones[recipe.architecture()]
        numerics = facts.numerics_for(recipe)
        name = digest([recipe.architecture(), opening.digest, numerics.__dict__, side, str(device)])
        classes = len(facts.data.classes)
        if recipe.auxiliary:  # auxiliary heads are part of the graph: nothing to keep
            return Network(recipe, backbone, opening, numerics, classes, side, device, head_seed)
        if name not in self._kept:
            while len(self._kept) >= KEPT:
                self._kept.popitem(last=False)
            self._kept[name] = Network(recipe, backbone, opening, numerics, classes, side, device)
        self._kept.move_to_end(name)
        network = self._kept[name]
        network.renew(recipe, head_seed)
        return network
