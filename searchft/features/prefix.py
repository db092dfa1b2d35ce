"""Runs the frozen part of a network: exactly, in fixed micro-batches, or fast.

What a layer computes in float32 for one image depends, in the last bits, on how many images are computed with it. So
images always go through in micro-batches of 64, the last one padded with zeros: then an image has one value, whether
it was computed for the store or for a batch, and whatever its neighbours are.

With `Numerics()` the prefix is the model's own modules, contiguous. The fast ways (BatchNorm folded into the
convolution before it, channels_last, bfloat16) work on a copy, so the model that trains is never touched.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import timm
import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from searchft.features.divide import divide, kept_digest
from searchft.recipe import Numerics

MICRO_BATCH = 64
"""Images that go through the prefix together, always."""

_FOLDABLE_CONVOLUTIONS = (nn.Conv2d, timm.layers.Conv2dSame)
_FOLDABLE_NORMS = (nn.BatchNorm2d, timm.layers.BatchNormAct2d)


class Prefix:
    """The frozen part of a network with its numerics."""

    def __init__(self, prefix: nn.Module, numerics: Numerics, device: torch.device | str) -> None:
        """`prefix` is `Split.prefix`; numerics other than `Numerics()`, or another device, make a copy of it."""
        self.device = torch.device(device)
        self.numerics = numerics
        self.dtype = getattr(torch, numerics.prefix_dtype)
        self._format = torch.channels_last if numerics.channels_last else torch.contiguous_format
        here = next((t.device for t in (*prefix.parameters(), *prefix.buffers())), self.device)
        plain = self.dtype == torch.float32 and not numerics.fold and not numerics.channels_last
        self._casts = False
        self._whole: nn.Module | None = None
        if plain and (here == self.device or here.type == self.device.type == "cpu"):
            self._module = prefix
            return
        module = copy.deepcopy(prefix).requires_grad_(False)
        for part in module.modules():
            part.training = False
        if numerics.fold and isinstance(module, fx.GraphModule):
            fold_batch_norms(module)
        module = module.to(self.device)
        self._module = module.to(memory_format=torch.channels_last) if numerics.channels_last else module
        if self.dtype != torch.float32:
            self._whole = copy.deepcopy(self._module)
            self._module = self._module.to(self.dtype)

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Crossing values, each [B, …] on the device, of images [B,3,H,W] float32 (any device, any B ≥ 1).

        Floating values have the numerics' dtype; 4-D ones its memory format. They may enter autograd.
        """
        return _in_micro_batches(self.forward_once, (images,), self.device, self._room)

    def _room(self, value: Tensor, count: int) -> Tensor:
        dtype = self.dtype if value.is_floating_point() else value.dtype
        layout = self._format if value.ndim == 4 else torch.contiguous_format
        return torch.empty((count, *value.shape[1:]), dtype=dtype, device=self.device, memory_format=layout)

    @torch.inference_mode()
    def forward_once(self, images: Tensor) -> tuple[Tensor, ...]:
        """Crossing values of images [B,3,H,W] on the device, run as one batch of that very size; for timing.

        They are inference tensors, of whatever dtype and layout comes out.
        """
        whole = self._whole
        if whole is not None and not self._casts:
            try:
                values = self._module(self.entering(images))
                self._whole = None
                return values
            except RuntimeError:
                # The network asks for float32 by name somewhere. It does so every time, everywhere: autocast then.
                self._casts, self._module = True, whole
        with self.casting():
            return self._module(self.entering(images))

    @property
    def module(self) -> nn.Module:
        """What runs: folded and cast. Settled only by the first run."""
        return self._module

    def entering(self, images: Tensor) -> Tensor:
        """Images [B,3,H,W] float32 on the device as the module takes them."""
        images = images.contiguous(memory_format=self._format)
        return images if self._casts else images.to(self.dtype)

    def casting(self) -> AbstractContextManager[object]:
        """What the module must run in: autocast where it cannot be cast as a whole."""
        return torch.autocast(self.device.type, self.dtype) if self._casts else nullcontext()

    def divided(self, at: str, example: Tensor) -> tuple[First, Rest]:
        """This frozen part in two: `rest(*first(images))` is bit for bit `self(images)`.

        `at` names a position (see `searchft.features.divide`); `example` is a few images [B,3,H,W], on any device. Raises
        KeyError where there is no such position.
        """
        example = example.to(self.device)
        self.forward_once(example)
        if not isinstance(self._module, fx.GraphModule):
            raise KeyError(at)
        first, rest, position = divide(self._module, at)
        kept = First(self, first, "").forward_once(example)
        # An edge here would be kept in the numerics' dtype, and under the same digest.
        altered = tuple(str(v.dtype) if v.dtype != self._room(v, 0).dtype else "" for v in kept)
        return First(self, first, kept_digest(position, altered)), Rest(self, rest, tuple(map(layout_of, kept)))


class First:
    """A frozen part up to the values that are kept."""

    def __init__(self, whole: Prefix, module: nn.Module, digest: str) -> None:
        self._whole, self._module = whole, module
        self.digest = digest
        """What the kept values are, as in `Split.digest`."""

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Kept values, each [B, …] on the device, of images [B,3,H,W] float32: their own dtypes, in one of two layouts."""
        return _in_micro_batches(self.forward_once, (images,), self._whole.device, self._room)

    @torch.inference_mode()
    def forward_once(self, images: Tensor) -> tuple[Tensor, ...]:
        """Kept values of images on the device, run as one batch of that very size."""
        with self._whole.casting():
            return self._module(self._whole.entering(images))

    def _room(self, value: Tensor, count: int) -> Tensor:
        shape = (count, *value.shape[1:])
        return torch.empty(shape, dtype=value.dtype, device=value.device, memory_format=layout_of(value))


class Rest:
    """A frozen part from the values that are kept to the trained part's edge."""

    def __init__(self, whole: Prefix, module: nn.Module, layouts: tuple[torch.memory_format, ...]) -> None:
        self._whole, self._module, self._layouts = whole, module, layouts

    def __call__(self, *kept: Tensor) -> tuple[Tensor, ...]:
        """Crossing values [B, …], as `Prefix` gives them, from the kept values [B, …] (any device, any layout)."""
        return _in_micro_batches(self.forward_once, kept, self._whole.device, self._whole._room)

    @torch.inference_mode()
    def forward_once(self, *kept: Tensor) -> tuple[Tensor, ...]:
        """Crossing values from kept values on the device, run as one batch of that very size."""
        # Copies: with the very strides that the undivided part has here, since kernels are chosen by them; and because
        # operations that work in place may follow.
        placed = [
            torch.empty(value.shape, dtype=value.dtype, device=value.device, memory_format=layout).copy_(value)
            for value, layout in zip(kept, self._layouts, strict=True)
        ]
        with self._whole.casting():
            return self._module(*placed)


def layout_of(value: Tensor) -> torch.memory_format:
    """Channels last where a value lies so and in no other way, else contiguous."""
    if value.ndim == 4 and not value.is_contiguous() and value.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def _in_micro_batches(
    run: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[Tensor, ...],
    device: torch.device,
    room: Callable[[Tensor, int], Tensor],
) -> tuple[Tensor, ...]:
    """`run` on micro-batches of the inputs [B, …], the last one padded with zeros; the results [B, …] put into `room`."""
    count = len(inputs[0])
    if count == 0:
        raise ValueError("images must hold at least one image but got none")
    outputs: list[Tensor] = []
    for start in range(0, count, MICRO_BATCH):
        chunks = [value[start : start + MICRO_BATCH].to(device, non_blocking=True) for value in inputs]
        valid = len(chunks[0])
        if valid < MICRO_BATCH:
            chunks = [torch.cat([chunk, chunk.new_zeros((MICRO_BATCH - valid, *chunk.shape[1:]))]) for chunk in chunks]
        values = run(*chunks)
        if not outputs:
            outputs = [room(value, count) for value in values]
        with torch.no_grad():
            for output, value in zip(outputs, values, strict=True):
                output[start : start + valid].copy_(value[:valid])
    return tuple(outputs)


def fold_batch_norms(prefix: fx.GraphModule) -> int:
    """Folds BatchNorms in evaluation mode into the convolutions right before them, in place; gives their number.

    Only on a copy: the convolutions are replaced. A convolution whose own output is needed elsewhere is left alone.
    """
    pairs = _foldable(prefix)
    for before, node in pairs:
        conv: Any = prefix.get_submodule(str(before.target))
        norm: Any = prefix.get_submodule(str(node.target))
        _replace(prefix, str(before.target), fuse_conv_bn_eval(conv.eval(), norm.eval()))
        if isinstance(norm, timm.layers.BatchNormAct2d):
            before.meta["key"] = f"{node.meta.get('key', node.name)}, not yet activated"
            _replace(prefix, str(node.target), nn.Sequential(norm.drop, norm.act))
        else:
            before.meta["key"] = node.meta.get("key", node.name)  # it now computes what the two did
            node.replace_all_uses_with(before)
            prefix.graph.erase_node(node)
    prefix.delete_all_unused_submodules()
    prefix.recompile()
    return len(pairs)


def count_foldable(prefix: fx.GraphModule) -> int:
    """How many BatchNorms `fold_batch_norms` would fold."""
    return len(_foldable(prefix))


def _foldable(prefix: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    """(convolution, BatchNorm) node pairs."""
    modules = dict(prefix.named_modules())
    calls = [str(node.target) for node in prefix.graph.nodes if node.op == "call_module"]
    once = {name for name in calls if calls.count(name) == 1}
    pairs = []
    for node in prefix.graph.nodes:
        if node.op != "call_module" or type(modules[str(node.target)]) not in _FOLDABLE_NORMS:
            continue
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        known = type(modules[str(before.target)]) in _FOLDABLE_CONVOLUTIONS
        if known and {str(node.target), str(before.target)} <= once and modules[str(node.target)].running_mean is not None:
            pairs.append((before, node))
    return pairs


def _replace(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, module)
