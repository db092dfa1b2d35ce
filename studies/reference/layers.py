"""The layer table: kernel, stride, padding, output size, weights and receptive field of every layer, from the traced graph.

Usage: python studies/reference/layers.py spaces/face_resnet18.yaml     (a table for each network of the space)

Receptive fields follow the graph, not the order in which layers are listed: where paths meet, the longest counts, and a
side path (a ResNet's 1×1 downsample) adds nothing to the path beside it. Listing layers in one line counts side paths in,
which is how the face notebook came to 485 pixels where 125 are true.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from searchft.features.trace import UntraceableError, trace, traced_constants
from searchft.recipe import BackboneFacts

WHOLE = math.inf
"""A receptive field of everything: behind a global pooling or a linear layer."""


@dataclass(frozen=True)
class Layer:
    """One row."""

    name: str
    stage: str
    """The stage it lies in; empty for the head and for what belongs to none."""
    kind: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output: tuple[int, ...]
    """Shape of one image's output."""
    weights: int
    """Elements of its weight tensor; biases are not counted."""
    receptive_field: float
    """Side in pixels; WHOLE: the whole image."""


def layer_table(model: nn.Module, backbone: BackboneFacts, side: int) -> tuple[Layer, ...]:
    """Every convolution, pooling and linear layer of `model`, in order of execution, for images of `side` pixels.

    The model is put into evaluation mode. A network that cannot be traced has its layers listed without receptive fields
    (NaN).
    """
    model.eval()
    image = torch.zeros(1, 3, side, side)
    with traced_constants(model), torch.no_grad():
        try:
            graph = trace(model)
        except UntraceableError:
            return _untraced(model, backbone, image)
        module = fx.GraphModule(model, graph)
        shapes = _Shapes(module)
        shapes.run(image)
    return _rows(model, backbone, graph, shapes.shapes)


class _Shapes(fx.Interpreter):
    """Runs a graph and keeps the shape of what each node gives."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n] = tuple(result.shape)
        return result


def _rows(
    model: nn.Module, backbone: BackboneFacts, graph: fx.Graph, shapes: dict[fx.Node, tuple[int, ...]]
) -> tuple[Layer, ...]:
    # (receptive field, distance in pixels between neighbouring outputs) of every node that has gone through
    seen: dict[fx.Node, tuple[float, float]] = {}
    rows: list[Layer] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            seen[node] = (1.0, 1.0)
            continue
        inputs = [seen[i] for i in node.all_input_nodes if i in seen]
        if not inputs:
            continue
        field, jump = max(i[0] for i in inputs), max(i[1] for i in inputs)
        module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        window = _window(module) if module is not None else _function_window(node)
        if window is not None:
            kernel, stride, padding, dilation = window
            field += max((k - 1) * d for k, d in zip(kernel, dilation, strict=True)) * jump
            jump *= max(stride)
        elif _is_global(node, module):
            field = WHOLE
        elif node.target is F.interpolate or isinstance(module, nn.Upsample):
            source = next((i for i in node.all_input_nodes if i in shapes), None)
            if source is not None and node in shapes:
                jump = seen[source][1] * shapes[source][-1] / max(1, shapes[node][-1])
        seen[node] = (field, jump)
        if (window is not None or isinstance(module, nn.Linear | nn.AdaptiveAvgPool2d)) and node in shapes:
            kernel, stride, padding, _ = window or ((), (), (), ())
            name = str(node.target) if module is not None else node.name
            weight = getattr(module, "weight", None)
            rows.append(
                Layer(
                    name=name,
                    stage=_stage(name, backbone) if module is not None else "",
                    kind=type(module).__name__ if module is not None else getattr(node.target, "__name__", str(node.target)),
                    kernel=kernel,
                    stride=stride,
                    padding=padding,
                    output=shapes[node][1:],
                    weights=weight.numel() if isinstance(weight, Tensor) else 0,
                    receptive_field=field,
                )
            )
    return tuple(rows)


def _untraced(model: nn.Module, backbone: BackboneFacts, image: Tensor) -> tuple[Layer, ...]:
    rows: list[Layer] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            kernel, stride, padding, _ = _window(module) or ((), (), (), ())
            if isinstance(output, Tensor):
                weight = getattr(module, "weight", None)
                size = weight.numel() if isinstance(weight, Tensor) else 0
                shape = tuple(output.shape[1:])
                kind = type(module).__name__
                rows.append(Layer(name, _stage(name, backbone), kind, kernel, stride, padding, shape, size, math.nan))

        return hook

    handles = [
        part.register_forward_hook(note(name))
        for name, part in model.named_modules()
        if _window(part) is not None or isinstance(part, nn.Linear)
    ]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(rows)


Window = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def _window(module: nn.Module) -> Window | None:
    """(kernel, stride, padding, dilation) of a layer that slides one over its input, or None."""
    if not isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return None
    kernel = _pair(module.kernel_size)
    padding = getattr(module, "padding", 0)
    if isinstance(padding, str):  # Conv2d's "same" and "valid"
        padding = tuple(k // 2 for k in kernel) if padding == "same" else 0
    stride = module.stride if module.stride is not None else kernel
    return kernel, _pair(stride), _pair(padding), _pair(getattr(module, "dilation", 1))


def _function_window(node: fx.Node) -> Window | None:
    if node.op != "call_function" or getattr(node.target, "__name__", "") not in (
        "max_pool2d",
        "avg_pool2d",
        "boolean_dispatch",
    ):
        return None
    given = dict(zip(("input", "kernel_size", "stride", "padding"), node.args, strict=False)) | dict(node.kwargs)
    kernel = _pair(given.get("kernel_size", 1))
    return kernel, _pair(given.get("stride") or kernel), _pair(given.get("padding", 0)), _pair(1)


def _pair(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, tuple | list) else (int(value), int(value))


def _is_global(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether every output sees the whole map: global pooling, means, attention, linear layers over flattened maps."""
    if module is not None:
        return isinstance(module, nn.Linear | nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d | nn.MultiheadAttention)
    name = getattr(node.target, "__name__", str(node.target))
    return name in ("mean", "adaptive_avg_pool2d", "adaptive_max_pool2d", "scaled_dot_product_attention", "softmax")


def _stage(name: str, backbone: BackboneFacts) -> str:
    for stage in backbone.stages:
        if any(name == module or name.startswith(module + ".") for module in stage.modules):
            return stage.name
    return ""


def _times(pair: tuple[int, ...]) -> str:
    return str(pair[0]) if len(set(pair)) == 1 else "×".join(map(str, pair))


def main(space_file: str) -> None:
    """Prints the layer table of each network whose layers differ; weights do not change them."""
    from rich.console import Console
    from rich.table import Table

    from searchft.models import build_model, describe_backbone
    from searchft.space import load_space

    space = load_space(space_file)
    known = []
    for recipe in space.architectures().values():
        facts = describe_backbone(recipe, 0)
        rows = layer_table(build_model(recipe, facts, 2, 0), facts, space.data.image_size)
        if rows in known:
            continue
        known.append(rows)
        edits = f" ({len(recipe.own_edits())} edits)" if recipe.own_edits() else ""
        table = Table("layer", "stage", "kernel", "stride/padding", "output", "weights", "receptive field")
        for row in rows:
            size = "–" if math.isnan(row.receptive_field) else "all" if math.isinf(row.receptive_field) else row.receptive_field
            moves = f"{_times(row.stride)}/{_times(row.padding)}" if row.kernel else ""
            kernel = _times(row.kernel) if row.kernel else ""
            table.add_row(row.name, row.stage, kernel, moves, "×".join(map(str, row.output)), f"{row.weights:,}", str(size))
        Console().print(f"{recipe.backbone}{edits} at {space.data.image_size} px", table)


if __name__ == "__main__":
    main(sys.argv[1])
