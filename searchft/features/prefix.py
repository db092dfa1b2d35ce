"""Runs the frozen part of a network: exactly, in fixed micro-batches, or fast.

What a layer computes in float32 for one image depends, in the last bits, on how many images are computed with it. So images go
through in micro-batches of 64, the last one padded with zeros: then an image has one value, computed for the store or for a batch.

With `Numerics()` these are the model's own modules; the fast ways (BatchNorm folded into the convolution before it, channels_last,
bfloat16) work on a copy, so the model that trains is never touched.
"""

from __future__ import annotations

import copy
from typing import Any

import timm
import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

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
        self.dtype = getattr(torch, numerics.frozen_dtype)
        self._format = torch.channels_last if numerics.channels_last else torch.contiguous_format
        here = next((t.device for t in (*prefix.parameters(), *prefix.buffers())), self.device)
        plain = self.dtype == torch.float32 and not numerics.fold and not numerics.channels_last
        self._casts = False
        self._whole: nn.Module | None = None
        """In float32, until the first run has shown whether the module runs as a whole in another dtype."""
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
        count = len(images)
        if count == 0:
            raise ValueError("images must hold at least one image but got none")
        outputs: list[Tensor] = []
        for start in range(0, count, MICRO_BATCH):
            chunk = images[start : start + MICRO_BATCH].to(self.device, non_blocking=True)
            valid = len(chunk)
            if valid < MICRO_BATCH:
                chunk = torch.cat([chunk, chunk.new_zeros((MICRO_BATCH - valid, *chunk.shape[1:]))])
            values = self._forward(chunk)
            if not outputs:
                outputs = [self._room(value, count) for value in values]
            with torch.no_grad():
                for output, value in zip(outputs, values, strict=True):
                    output[start : start + valid].copy_(value[:valid])
        return tuple(outputs)

    @torch.inference_mode()
    def _forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Crossing values of one micro-batch on the device, of whatever dtype and layout comes out."""
        images = images.contiguous(memory_format=self._format)
        whole = self._whole
        if whole is not None:
            try:
                values: tuple[Tensor, ...] = self._module(images.to(self.dtype))
                self._whole = None
                return values
            except RuntimeError:
                # The network asks for float32 by name somewhere. It does so every time, everywhere: autocast then.
                self._module, self._whole, self._casts = whole, None, True
        if self._casts:
            with torch.autocast(self.device.type, self.dtype):
                return self._module(images)
        return self._module(images.to(self.dtype))

    def _room(self, value: Tensor, count: int) -> Tensor:
        dtype = self.dtype if value.is_floating_point() else value.dtype
        layout = self._format if value.ndim == 4 else torch.contiguous_format
        return torch.empty((count, *value.shape[1:]), dtype=dtype, device=self.device, memory_format=layout)


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
            _replace(prefix, str(node.target), nn.Sequential(norm.drop, norm.act))
        else:
            node.replace_all_uses_with(before)
            prefix.graph.erase_node(node)
    prefix.delete_all_unused_submodules()
    prefix.recompile()
    return len(pairs)


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
