"""What a training step has to remember: the bytes that autograd keeps between forward and backward.

Counted, not guessed: the network runs once on torch's `meta` device, where tensors have shapes but no values, and every
tensor that autograd saves is added up, shared memory once, parameters and buffers left out. That takes milliseconds at any
batch size and follows what is frozen: torch keeps nothing for layers below the first trained one.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from searchft.models import build_model, freeze, set_modes
from searchft.recipe import OPTIMIZERS, BackboneFacts, Opening, Recipe, SpaceFacts, digest, open_parameters, trained_parameters


def activation_bytes(
    recipe: Recipe, backbone: BackboneFacts, opening: Opening, num_classes: int, side: int, batch: int, device: str = "meta"
) -> int:
    """Bytes that autograd saves in one training step of `batch` float32 images of `side` pixels, the loss included.

    On any other `device` than `meta` the step is really run. bfloat16 activations take about half.
    """
    model = build_model(recipe, backbone, num_classes, head_seed=0)
    freeze(model, backbone, opening)
    set_modes(model, backbone, opening, training=True)
    return saved_bytes(model, side, batch, num_classes, device)


def saved_bytes(model: nn.Module, side: int, batch: int, num_classes: int, device: str = "meta") -> int:
    """As `activation_bytes`, of a model whose gradients and modes are set. The model itself is left as it is.

    One image alone cannot pass a BatchNorm in train mode on a 1×1 map: its share is then what three images need beyond two.
    """
    model = copy.deepcopy(model).to(device)
    try:
        return _saved(model, side, batch, num_classes, device)
    except ValueError:
        if batch != 1:
            raise
        two, three = (_saved(model, side, count, num_classes, device) for count in (2, 3))
        return two - (three - two)


def _saved(model: nn.Module, side: int, batch: int, num_classes: int, device: str) -> int:
    own = {_memory(tensor) for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, int] = {}
    kept: list[Tensor] = []  # alive until the end, so that no two memories get the same name

    def pack(tensor: Tensor) -> Tensor:
        if _memory(tensor) not in own:
            saved[_memory(tensor)] = tensor.untyped_storage().nbytes()
            kept.append(tensor)
        return tensor

    images = torch.zeros(batch, 3, side, side, device=device)
    labels = torch.zeros(batch, dtype=torch.int64, device=device) % num_classes
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(images)
        for logits in [part for part in out if part is not None] if isinstance(out, tuple) else [out]:
            F.cross_entropy(logits, labels)
    return sum(saved.values())


def _memory(tensor: Tensor) -> int:
    """A name for the memory behind a tensor: views of one another have the same."""
    return int(tensor.untyped_storage()._cdata)


PROCESS_BYTES = 600 << 20
"""What a worker holds before it trains: torch and its libraries in main memory, or a context on a card."""


class PeakMemory:
    """Estimates what a trial holds at its peak on its device, in bytes; remembers networks that it has counted.

    The network twice (the values that train, and the pretrained ones for the next trial), gradients and what the optimiser
    keeps for the open parameters, what autograd saves for one batch in float32, and the worker itself. Values of the
    frozen part are not counted: they are mapped from a file, and leave when something else needs the room.
    """

    def __init__(self, facts: SpaceFacts, side: int) -> None:
        """`side`: height and width of the images in pixels."""
        self.facts, self.side = facts, side
        self._counted: dict[str, tuple[int, int]] = {}

    def __call__(self, recipe: Recipe) -> int:
        backbone = self.facts.backbones[recipe.architecture()]
        opening = open_parameters(recipe, backbone)
        head = [recipe.head_widths, recipe.dropout > 0, recipe.input_dropout > 0]
        name = digest([recipe.architecture(), opening.digest, *head])
        if name not in self._counted:
            classes = len(self.facts.data.classes)
            two, four = (activation_bytes(recipe, backbone, opening, classes, self.side, batch) for batch in (2, 4))
            self._counted[name] = (max(0, 2 * two - four), (four - two) // 2)
        fixed, per_image = self._counted[name]
        trained = trained_parameters(recipe, self.facts)
        network = sum(parameter.size for parameter in backbone.parameters)
        values = 2 * network + trained * (2 + OPTIMIZERS[recipe.optimizer].states)
        batch = min(recipe.batch_size, self.facts.data.train_size)
        return PROCESS_BYTES + 4 * values + fixed + per_image * batch
