"""Splits a network into a frozen prefix, which is constant while the network trains, and the suffix that trains.

    split = split_model(model, set_modes, example)
    values = split.prefix(images)          # once per image, kept
    split.suffix.select(training=True)
    logits = split.suffix(*values)         # every step

Both are graphs over the very modules of `model`. A split is tried out before it is given back, in both modes, and agrees with the
model to the last bit; a network that cannot be split is its own suffix, and `Split.reason` says why. Move the model to its device
first. A split holds for images of the example's height and width.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from searchft.features.dataflow import Flow, Frontier
from searchft.features.trace import (
    STATEFUL_MODULES,
    UntraceableError,
    equal,
    fresh,
    module_of,
    observe,
    trace,
    traced_constants,
    untouched,
)


class Suffix:
    """The part of a network that trains: called with the crossing values, or with the images if there is no prefix.

    Shares parameters and buffers with the model.
    """

    def __init__(self, model: nn.Module, set_modes: Callable[[bool], None], graphs: tuple[nn.Module, ...] = ()) -> None:
        self._set_modes = set_modes
        self.graphs: tuple[nn.Module, ...] = graphs or (model, model)
        """Of training and of evaluation: whoever replaces a leaf of the model replaces it in both of them too."""
        self._training = False

    def select(self, training: bool) -> Suffix:
        """Goes over to training or to evaluation: the graph, and the modes of the model's modules."""
        self._set_modes(training)
        self._training = training
        return self

    def __call__(self, *values: Tensor) -> Any:
        """Logits [B, C] from the crossing values, each [B, …]."""
        return self.graphs[0 if self._training else 1](*values)


@dataclass(frozen=True)
class Split:
    """A network in two parts."""

    prefix: nn.Module | None
    """Images [B,3,H,W] to a tuple of tensors [B, …]; None: nothing is constant, or the network cannot be split."""
    suffix: Suffix
    crossing: tuple[str, ...] = ()
    """Names of the crossing values: the module that computes each, or the operation."""
    reason: str = ""
    """Why there is no prefix, where that is not simply because everything trains."""
    shapes: tuple[tuple[int, ...], ...] = ()
    """Of each crossing value of one image."""
    dtypes: tuple[torch.dtype, ...] = ()
    digest: str = ""
    """What the crossing values are: every operation and module setting that leads to them, but not the weights."""

    def bytes_per_image(self, dtype: torch.dtype = torch.float32) -> int:
        """Bytes of one image's crossing values if the floating ones are kept as `dtype`."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes]
        kinds = [dtype if kind.is_floating_point else kind for kind in self.dtypes]
        return sum(size * kind.itemsize for size, kind in zip(sizes, kinds, strict=True))


def split_model(model: nn.Module, set_modes: Callable[[bool], None], example: Tensor, leaves: Sequence[str] = ()) -> Split:
    """Finds the largest part of `model` that is constant while its trainable parameters train.

    Args:
        set_modes: puts the model's modules into the modes of training (True) or evaluation; `requires_grad` is set already.
        example: [2,3,H,W] float32, where the model is.
        leaves: names of modules that stay whole, so that another may later take their place (see `Suffix.graphs`).

    Leaves parameters, buffers and the random state as they were, and the modules in evaluation. Raises what the model
    itself raises, and ValueError if `example` is not two images; a network that cannot be split comes back whole, with a reason.
    """
    if example.ndim != 4 or len(example) != 2:
        raise ValueError(f"example must be [2,3,H,W] but got {list(example.shape)}")
    if torch.equal(example[0], example[1]):
        example = example + _noise(example)
    with traced_constants(model):
        set_modes(False)
        with untouched(model, example.device), torch.no_grad():
            expected = model(example)
        try:
            split = _split(model, set_modes, example, expected, leaves)
        except UntraceableError as error:
            split = Split(None, Suffix(model, set_modes), reason=str(error))
    split.suffix.select(False)
    return split


def _split(model: nn.Module, set_modes: Callable[[bool], None], example: Tensor, expected: Any, leaves: Sequence[str]) -> Split:
    # Two graphs, each run in its own modes; the evaluation graph also on a larger batch of other images
    flows = []
    for training in (False, True):
        set_modes(training)
        with untouched(model, example.device):
            graph = trace(model, leaves)
        flows.append(Flow(model, observe(model, graph, example), graph))
    evaluation, training_flow = flows
    if not equal(evaluation.run.env[evaluation.output], expected):
        raise UntraceableError("its graph computes other values than the network itself")
    set_modes(False)
    larger = torch.cat([example[:1], example + _noise(example)])
    other = observe(model, evaluation.graph, larger)

    # The cut
    frontier = Frontier(training_flow, evaluation, other, len(example))
    keys, again = frontier.crossing()
    if not keys:
        raise UntraceableError("its output does not depend on the images")
    nodes = [evaluation.by_key[key] for key in keys]
    if nodes == [evaluation.images]:
        return Split(None, Suffix(model, set_modes))

    # Its two sides
    prefix = _build_prefix(model, evaluation, nodes)
    graphs = tuple(_build_suffix(model, flow, frontier, keys, again) for flow in (training_flow, evaluation))
    suffix = Suffix(model, set_modes, graphs)
    _try_out(model, set_modes, prefix, suffix, example, expected)
    with torch.no_grad(), untouched(model, example.device):
        _compare(other.env[evaluation.output], _call(suffix.select(False), *_call(prefix, larger)), "evaluation")
    values = [evaluation.run.env[node] for node in nodes]
    return Split(
        prefix,
        suffix,
        tuple(str(node.target) if node.op == "call_module" else node.name for node in nodes),
        shapes=tuple(tuple(v.shape[1:]) for v in values),
        dtypes=tuple(v.dtype for v in values),
        digest=hashlib.sha256("|".join(keys).encode()).hexdigest(),
    )


def _noise(example: Tensor) -> Tensor:
    """Other pixels, always the same ones: what an example of equal or blank images would not show."""
    return torch.randn(example.shape, generator=torch.Generator().manual_seed(1)).to(example.device, example.dtype)


def _compare(expected: Any, got: Any, mode: str) -> None:
    if not equal(expected, got):
        raise UntraceableError(f"its two parts compute other values than the network itself, in {mode}")


def _try_out(
    model: nn.Module, set_modes: Callable[[bool], None], prefix: nn.Module, suffix: Suffix, example: Tensor, expected: Any
) -> None:
    """Holds both parts against the whole network, in both modes, bit for bit, buffers included."""
    with torch.no_grad():
        with untouched(model, example.device):
            values = _call(prefix, example)
            given = [value.clone() for value in values]
            _compare(expected, _call(suffix.select(False), *values), "evaluation")
        set_modes(True)
        results = []
        for forward in (lambda: model(example), lambda: _call(suffix.select(True), *values)):
            with untouched(model, example.device):
                results.append((forward(), [buffer.clone() for buffer in model.buffers()]))
    _compare(results[0], results[1], "training")
    if not equal(given, list(values)):
        raise UntraceableError("its suffix overwrites the values it is given")


def _call(part: Callable[..., Any], *values: Tensor) -> Any:
    try:
        return part(*values)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise UntraceableError.because("its two parts do not run", error) from error


def _build_prefix(model: nn.Module, flow: Flow, wanted: list[fx.Node]) -> fx.GraphModule:
    take = set(wanted)
    for node in reversed(flow.graph.nodes):
        if node in take:
            take.update(node.all_input_nodes)
    graph = fx.Graph()
    new: dict[fx.Node, Any] = {flow.images: graph.placeholder("images")}
    for node in flow.graph.nodes:
        if node in take and node is not flow.images:
            new[node] = graph.node_copy(node, new.__getitem__)
    graph.output(tuple(new[node] for node in wanted))
    _drop_copies(model, graph)
    return fx.GraphModule(model, graph, "Prefix")


def _build_suffix(
    model: nn.Module, flow: Flow, frontier: Frontier, keys: tuple[str, ...], again: frozenset[str]
) -> fx.GraphModule:
    take, _ = frontier.behind(flow, again)
    graph = fx.Graph()
    given = {key: graph.placeholder(f"value_{i}") for i, key in enumerate(keys)}
    first = next(iter(given.values()))
    size, device = graph.call_method("size", (first, 0)), graph.call_function(getattr, (first, "device"))
    new: dict[fx.Node, Any] = {}
    for node in flow.graph.nodes:
        if node not in take:
            continue
        for a in node.all_input_nodes:
            key = flow.keys[a]
            if a not in new and key in given:
                new[a] = given[key]
            elif a not in new:
                write = frontier.number(key)
                assert write is not None, "neither crosses nor is known"
                new[a] = write(size, device, graph)
        new[node] = graph.node_copy(node, new.__getitem__)
    for unused in (node for node in (size, device) if not node.users):
        graph.erase_node(unused)
    _drop_copies(model, graph)
    return fx.GraphModule(model, graph, "Suffix")


def _drop_copies(model: nn.Module, graph: fx.Graph) -> None:
    """Lets in-place operations work in place again where their operand is new memory that nobody else looks at."""
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not fresh:
            continue
        operand = node.args[0]
        if set(operand.users) == {node} and _is_new_memory(model, operand):
            node.replace_all_uses_with(operand)
            graph.erase_node(node)


_NEW_MEMORY_MODULES = (*STATEFUL_MODULES, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.LayerNorm, nn.GroupNorm)
_NEW_MEMORY_FUNCTIONS = (operator.add, operator.mul, operator.sub, operator.iadd, operator.imul, torch.add, torch.cat)


def _is_new_memory(model: nn.Module, node: fx.Node) -> bool:
    """Whether a node surely gives memory of its own: layers with weights, sums, concatenations, in-place results."""
    if node.op == "call_module":
        module = module_of(model, node)
        return isinstance(module, _NEW_MEMORY_MODULES) or getattr(module, "inplace", False) is True
    return node.op == "call_function" and node.target in _NEW_MEMORY_FUNCTIONS
