"""What a trial holds in memory while it trains, and where the frozen part's values are kept.

What autograd keeps between forward and backward is counted: the network runs once on torch's `meta` device, where tensors have
shapes but no values, and every tensor that autograd saves is added up, shared memory once, parameters and buffers left out. Where
values are kept is a question of bytes alone, and changes no number.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from searchft.features.trace import tensors
from searchft.files import store_budget_bytes
from searchft.machine import main_memory_bytes
from searchft.models import build_model, freeze, head_parameters, set_modes
from searchft.recipe import (
    OPTIMIZERS,
    BackboneFacts,
    DataFacts,
    Opening,
    Recipe,
    ResolvedTrial,
    Rule,
    SpaceFacts,
    digest,
    rule_for,
)
from searchft.space import Space, list_openings


def training_model(recipe: Recipe, backbone: BackboneFacts, opening: Opening, num_classes: int) -> nn.Module:
    """The network of a recipe with gradients and modes set for training."""
    model = build_model(recipe, backbone, num_classes, head_seed=0)
    freeze(model, backbone, opening)
    set_modes(model, backbone, opening, training=True)
    return model


def saved_bytes(model: nn.Module, side: int, batch: int, num_classes: int, device: str = "meta") -> int:
    """Bytes that autograd saves in one training step of `batch` float32 images of `side` pixels, the loss included.

    On any other `device` than `meta` the step is really run. bfloat16 takes about half.
    """
    model = copy.deepcopy(model).to(device)
    try:
        return _saved(model, side, batch, num_classes, device)
    except ValueError:  # one image alone cannot pass a BatchNorm in train mode on a 1x1 map
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

    The network twice (the values that train, and the pretrained ones for the next trial), gradients and optimizer state of the
    open parameters, what autograd saves for one batch in float32, and the worker itself. Stored values of the frozen part
    are not counted: they are mapped from a file, and leave when something else needs the room.
    """

    def __init__(self, side: int) -> None:
        self.side = side
        """Height and width of the images in pixels."""
        self._counted: dict[str, tuple[int, int]] = {}

    def __call__(self, trial: ResolvedTrial) -> int:
        recipe, backbone, opening = trial.recipe, trial.backbone, trial.opening
        head = [recipe.head_widths, recipe.dropout > 0, recipe.input_dropout > 0]
        name = digest([recipe.architecture(), opening.digest, *head])
        if name not in self._counted:
            model = training_model(recipe, backbone, opening, trial.num_classes).to("meta")
            two, four = (saved_bytes(model, self.side, batch, trial.num_classes) for batch in (2, 4))
            self._counted[name] = (max(0, 2 * two - four), (four - two) // 2)
        fixed, per_image = self._counted[name]
        network = sum(parameter.size for parameter in backbone.parameters)
        values = 2 * network + trial.trained_parameters * (2 + OPTIMIZERS[recipe.optimizer].states)
        return PROCESS_BYTES + 4 * values + fixed + per_image * recipe.batch_size


MEMORY_SHARE = 2
"""The system may use one in so many bytes of free memory to hold stored values; what is larger is read from the disk."""

MOST_LINES = 12
"""Of `explain_openings`; `searchft plan` has one for every opening."""


@dataclass(frozen=True)
class Keeping:
    """What happens to the values that one opening's trainable part reads, and why."""

    keep: str
    """`memory` (a file that the system holds in memory), `disk` (read as needed) or `recompute`."""
    reason: str
    size_bytes: int
    """Of all images together, whether kept or not."""

    def __str__(self) -> str:
        where = {"memory": "kept in memory", "disk": "kept on disk", "recompute": "computed for every batch"}[self.keep]
        return f"{where} ({self.reason})"


def choose_keeping(
    bytes_per_image: int, images: int, memory_bytes: int, disk_bytes: int, *, constant: bool = True, why_whole: str = ""
) -> Keeping:
    """In memory where the values fit, else on disk where they fit, else computed for every batch.

    Args:
        bytes_per_image: of the values that the trainable part reads; 0: nothing is frozen.
        images: how many are kept, fixed views included.
        memory_bytes: what memory could give now.
        disk_bytes: the store's budget.
        constant: whether an image's values are the same in every epoch: not under fresh random augmentation.
        why_whole: why a network cannot be split; empty: it can.
    """
    size = bytes_per_image * images
    if why_whole or not bytes_per_image:
        return Keeping("recompute", why_whole or "nothing is frozen", 0)
    if not constant:
        return Keeping("recompute", "random augmentation makes every epoch's images new; augment_views: n would keep n", size)
    sizes = f"{_bytes(bytes_per_image)} an image, {_bytes(size)} in all"
    if size > disk_bytes:
        return Keeping("recompute", f"{sizes}, more than the {_bytes(disk_bytes)} that the disk has for them", size)
    if size > memory_bytes // MEMORY_SHARE:
        return Keeping("disk", f"{sizes}, more than half of the {_bytes(memory_bytes)} of free memory", size)
    return Keeping("memory", sizes, size)


def keeping_of(bytes_per_image: int, recipe: Recipe, data: DataFacts, store: Path, why_whole: str = "") -> Keeping:
    """`choose_keeping` for a recipe's training and validation images on this machine, with the feature store in `store`."""
    views = max(1, recipe.augment_views) if recipe.augments else 1
    return choose_keeping(
        bytes_per_image,
        data.train_size * views + data.size("val"),
        main_memory_bytes(),
        store_budget_bytes(store),
        constant=not recipe.augments or recipe.augment_views > 0,
        why_whole=why_whole,
    )


class Tape(TorchFunctionMode):
    """What each call of one forward pass read and gave: enough to say, for any opening, what its trainable part reads.

    One image of `side` pixels runs through `model`, which is left in evaluation mode.
    """

    def __init__(self, model: nn.Module, side: int) -> None:
        super().__init__()
        self._names = {id(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())}
        self._calls: list[tuple[list[Tensor], list[Tensor]]] = []
        self._images = torch.zeros(1, 3, side, side)
        with torch.no_grad(), self:
            model.eval()(self._images)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._calls.append((tensors([args, kwargs or {}]), tensors(result)))
        return result

    def edge_bytes(self, trainable: Collection[str], frozen_dtype: str = "float32") -> int:
        """About how many bytes of one image the trainable part reads (0: nothing is frozen).

        `trainable` names the parameters that train and the buffers that move.
        """
        active: set[int] = set()
        edge: dict[int, Tensor] = {}
        for given, made in self._calls:
            if any(id(tensor) in active or self._names.get(id(tensor)) in trainable for tensor in given):
                edge |= {_memory(t): t for t in given if id(t) not in active and id(t) not in self._names}
                active |= {id(tensor) for tensor in made}
        if _memory(self._images) in edge:
            return 0
        size = getattr(torch, frozen_dtype).itemsize
        return sum(t.numel() * (size if t.is_floating_point() else t.element_size()) for t in edge.values())


def explain_openings(space: Space, facts: SpaceFacts, store: Path) -> list[str]:
    """A line for people about each opening of the space, at most `MOST_LINES`. Runs one image through each network."""
    lines: dict[str, None] = {}
    tapes: dict[str, tuple[Tape, frozenset[str]]] = {}
    precisions = space.by_name["precision"].choices if "precision" in space.by_name else ()
    for recipe, backbone, opening in list_openings(space, facts):
        name = recipe.architecture()
        if name not in tapes:
            model = build_model(recipe, backbone, len(facts.data.classes), head_seed=0)
            tapes = {name: (Tape(model, space.data.image_size), frozenset(head_parameters(model, backbone)))}
        tape, head = tapes[name]
        trainable = head.union(opening.parameters, (f"{norm}.running_mean" for norm in opening.train_norms))
        for precision in precisions or (recipe.precision,):
            rule = rule_for(replace(recipe, precision=precision), facts)
            keeping = keeping_of(tape.edge_bytes(trainable, rule.numerics.frozen_dtype), recipe, facts.data, store)
            lines.setdefault(explain(f"{backbone.backbone}, open {opening.spelling or recipe.unfrozen}", rule, keeping))
    more = [f"and {len(lines) - MOST_LINES} openings more: `searchft plan` says it of each"] if len(lines) > MOST_LINES else []
    return [*list(lines)[:MOST_LINES], *more]


def explain(name: str, rule: Rule, keeping: Keeping) -> str:
    """`resnet18, open layer4: frozen layers in bfloat16 … (why); values of the frozen layers kept in memory (18.4 kB …)`."""
    return f"{name}: {rule.numerics} ({rule.why}); values of the frozen layers {keeping}"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
