"""Runs the frozen part of a network, exactly or fast, and says under which key its values are kept.

What a layer computes in float32 for one image depends, in the last bits, on how many images are computed with it. So images go
through in micro-batches of 64, the last one padded with zeros: then an image has one value, computed for the store or for a batch.
"""

from __future__ import annotations

import copy
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from searchft.cache import FORMAT
from searchft.recipe import BackboneFacts, Numerics, digest

MICRO_BATCH = 64
"""Images that go through the prefix together, always."""

FEATURES_VERSION = 1
"""Raised whenever a change of ours makes the prefix compute other values."""

_FOLDABLE_CONVOLUTIONS = (nn.Conv2d, timm.layers.Conv2dSame)
_FOLDABLE_NORMS = (nn.BatchNorm2d, timm.layers.BatchNormAct2d)


class Prefix:
    """The frozen part of a network with its numerics.

    Args:
        prefix: `Split.prefix`, on `device`. Numerics that fold or change layout or dtype work on a copy of it.
    """

    def __init__(self, prefix: nn.Module, numerics: Numerics, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.dtype = getattr(torch, numerics.frozen_dtype)
        self._format = torch.channels_last if numerics.channels_last else torch.contiguous_format
        self._casts = False
        self._whole: nn.Module | None = None
        """In float32, until the first run has shown whether the module runs as a whole in another dtype."""
        self._module = prefix
        if self.dtype == torch.float32 and not numerics.fold and not numerics.channels_last:
            return
        self._module = copy.deepcopy(prefix).requires_grad_(False).eval()
        if numerics.fold and isinstance(self._module, fx.GraphModule):
            fold_batch_norms(self._module)
        if numerics.channels_last:
            self._module.to(memory_format=torch.channels_last)
        if self.dtype != torch.float32:
            self._whole = copy.deepcopy(self._module)
            self._module.to(self.dtype)

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Crossing values, each [B, …] on the device, of images [B,3,H,W] float32 (any device, any B ≥ 1).

        Floating values have the numerics' dtype; 4-D ones its memory format. They may enter autograd.
        """
        count = len(images)
        outputs: list[Tensor] = []  # made outside of inference mode: they may enter autograd
        for start in range(0, count, MICRO_BATCH):
            chunk = images[start : start + MICRO_BATCH].to(self.device, non_blocking=True)
            valid = len(chunk)
            if valid < MICRO_BATCH:
                chunk = torch.cat([chunk, chunk.new_zeros((MICRO_BATCH - valid, *chunk.shape[1:]))])
            values = self._forward(chunk)
            if not outputs:
                outputs = [self._empty_like(value, count) for value in values]
            with torch.no_grad():
                for output, value in zip(outputs, values, strict=True):
                    output[start : start + valid].copy_(value[:valid])
        return tuple(outputs)

    @torch.inference_mode()
    def _forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Crossing values of one micro-batch on the device, of whatever dtype and layout comes out."""
        images = images.contiguous(memory_format=self._format)
        if not self._casts:
            try:
                values: tuple[Tensor, ...] = self._module(images.to(self.dtype))
                self._whole = None
                return values
            except RuntimeError:
                if self._whole is None:
                    raise
                # The network asks for float32 by name somewhere. It does so every time, everywhere: autocast then.
                self._module, self._whole, self._casts = self._whole, None, True
        with torch.autocast(self.device.type, self.dtype):
            return self._module(images)

    def _empty_like(self, value: Tensor, count: int) -> Tensor:
        dtype = self.dtype if value.is_floating_point() else value.dtype
        layout = self._format if value.ndim == 4 else torch.contiguous_format
        return torch.empty((count, *value.shape[1:]), dtype=dtype, device=self.device, memory_format=layout)


def fold_batch_norms(prefix: fx.GraphModule) -> int:
    """Folds BatchNorms in evaluation mode into the convolutions right before them, in place; gives their number.

    Only on a copy: the convolutions are replaced. A convolution whose own output is needed elsewhere is left alone.
    """
    modules: dict[str, Any] = dict(prefix.named_modules())
    calls = [str(node.target) for node in prefix.graph.nodes if node.op == "call_module"]
    once = {name for name in calls if calls.count(name) == 1}
    folded = 0
    for node in list(prefix.graph.nodes):
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or len(before.users) != 1 or not {str(node.target), str(before.target)} <= once:
            continue
        conv, norm = modules[str(before.target)], modules[str(node.target)]
        if type(conv) not in _FOLDABLE_CONVOLUTIONS or type(norm) not in _FOLDABLE_NORMS or norm.running_mean is None:
            continue
        prefix.set_submodule(str(before.target), fuse_conv_bn_eval(conv.eval(), norm.eval()))
        if isinstance(norm, timm.layers.BatchNormAct2d):
            prefix.set_submodule(str(node.target), nn.Sequential(norm.drop, norm.act))
        else:
            node.replace_all_uses_with(before)
            prefix.graph.erase_node(node)
        once -= {str(node.target), str(before.target)}
        folded += 1
    prefix.delete_all_unused_submodules()
    prefix.recompile()
    return folded


def feature_key(
    backbone: BackboneFacts,
    values: str,
    data_fingerprint: str,
    images: str,
    numerics: Numerics,
    device: str | torch.device,
    view: int = 0,
    image_size: int = 0,
    augmentation: str = "",
) -> str:
    """32 hex digits: a digest of all that determines the values, so that openings with the same cut share them.

    Args:
        values: `Split.digest`: operations and module settings.
        images: name of the data split.
        view, augmentation: which fixed view, and the settings and the seed that make it.
    """
    exact = numerics == Numerics()  # then the number of threads counts too: it changes the order of summation
    return digest(
        {
            "features": FEATURES_VERSION,
            "store": FORMAT,
            "micro_batch": MICRO_BATCH,
            "versions": [torch.__version__, torchvision.__version__, timm.__version__],
            "backbone": backbone.backbone,
            "weights": backbone.weights_sha256,
            "normalization": [backbone.mean, backbone.std],
            "split": values,
            "data": [data_fingerprint, images, image_size, view, augmentation],
            "numerics": [numerics.frozen_dtype, numerics.channels_last, numerics.fold],
            "device": torch.device(device).type,
            "processor": [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()] if exact else [],
        }
    )[:32]
