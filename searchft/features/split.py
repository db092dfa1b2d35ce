"""Splits a network into a frozen prefix, which is constant while the network trains, and the suffix that trains.

    split = split_model(model, set_modes, example)
    values = split.prefix(images)          # once per image, kept
    split.suffix.select(training=True)
    logits = split.suffix(*values)         # every step

Both are graphs over the very modules of `model`, whose `state_dict` stays the truth. A split is tried out before it is given back, in
both modes, and agrees with the model to the last bit; a network that cannot be split is its own suffix, and `Split.reason` says why.
Move the model to its device first. A split holds for images of the example's height and width.
"""

from __future__ import annotations

import copy
import hashlib
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from searchft.features.dataflow import Crossing, Flow, Frontier, flow_of
from searchft.features.observe import equal, observe, untouched
from searchft.features.trace import STATEFUL_MODULES, UntraceableError, fresh, module_of, trace, traced_constants


class Suffix(nn.Module):
    """The part of a network that trains: called with the crossing values, or with the images if there is no prefix.

    Shares parameters and buffers with the model. Modes follow `set_modes`, never torch's `.train()`, which would also
    set frozen BatchNorms to training; `.train(mode)` is therefore `select(mode)`.
    """

    def __init__(
        self, model: nn.Module, set_modes: Callable[[bool], None], graphs: tuple[fx.GraphModule, fx.GraphModule] | None
    ) -> None:
        super().__init__()
        self._set_modes = set_modes
        self._training_graph, self._evaluation_graph = graphs or (model, model)
        self.chosen = self._evaluation_graph
        self.training = False

    @property
    def graphs(self) -> tuple[nn.Module, ...]:
        """The modules that run: whoever replaces a leaf of the model replaces it in each of them too."""
        return (self._training_graph, self._evaluation_graph)

    def select(self, training: bool) -> Suffix:
        """Goes over to training or to evaluation: the graph, and the modes of the model's modules."""
        self._set_modes(training)
        self.chosen = self._training_graph if training else self._evaluation_graph
        self.training = training
        return self

    def train(self, mode: bool = True) -> Suffix:
        return self.select(mode)

    def forward(self, *values: Tensor) -> Any:
        """Logits [B, C] from the crossing values, each [B, …]."""
        return self.chosen(*values)


@dataclass(frozen=True)
class Split:
    """A network in two parts."""

    prefix: nn.Module | None
    """Images [B,3,H,W] to a tuple of tensors [B, …]; None: nothing is constant, or the network cannot be split."""
    suffix: Suffix
    crossing: tuple[str, ...]
    """Names of the crossing values: the module that computes each, and the operation."""
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

    `set_modes(training)` puts the model's modules into the modes of training or evaluation; `requires_grad` is set
    already. `example` is [2,3,H,W], float32, where the model is; two equal images are told apart by noise. Modules
    named in `leaves` stay whole, so that another module may later take their place (see `Suffix.graphs`).

    Leaves parameters, buffers and the random state as they were, and the modules in the modes of evaluation. Raises
    what the model itself raises on the example, and ValueError if the example is not two images; a network that cannot
    be traced or does not agree comes back whole, with a reason.
    """
    if example.ndim != 4 or len(example) != 2:
        raise ValueError(f"example must be [2,3,H,W] but got {list(example.shape)}")
    if torch.equal(example[0], example[1]):
        example = example + _noise(example)
    with _same_caches(model), traced_constants(model):
        set_modes(False)
        with untouched(model, example.device), torch.no_grad():
            expected = model(example)
        try:
            split = _split(model, set_modes, example, expected, leaves)
        except UntraceableError as error:
            split = Split(None, Suffix(model, set_modes, None), (), str(error))
    split.suffix.select(False)
    return split


def _split(model: nn.Module, set_modes: Callable[[bool], None], example: Tensor, expected: Any, leaves: Sequence[str]) -> Split:
    # Two graphs, each run in its own modes
    set_modes(False)
    with _same_caches(model):
        graph = trace(model, leaves)
    run = observe(model, graph, example)
    output = next(node for node in graph.nodes if node.op == "output")
    if not equal(run.env[output], expected):
        raise UntraceableError("its graph computes other values than the network itself")
    evaluation = flow_of(model, run, graph)
    larger = torch.cat([example[:1], example + _noise(example)])
    other = observe(model, graph, larger)
    set_modes(True)
    with _same_caches(model):
        graph = trace(model, leaves)
    training = flow_of(model, observe(model, graph, example), graph)

    # The cut
    frontier = Frontier(training, evaluation, other, len(example))
    crossing = frontier.crossing()
    if not crossing.keys:
        raise UntraceableError("its output does not depend on the images")
    if crossing.keys == (evaluation.keys[evaluation.images],):
        return Split(None, Suffix(model, set_modes, None), ())

    # Its two sides
    prefix = _build_prefix(model, evaluation, crossing)
    graphs = (_build_suffix(model, training, frontier, crossing), _build_suffix(model, evaluation, frontier, crossing))
    suffix = Suffix(model, set_modes, graphs)
    _try_out(model, set_modes, prefix, suffix, example, expected)
    with torch.no_grad():
        _compare(other.env[output], _call(suffix.select(False), *_call(prefix, larger)), "evaluation")
    values = [evaluation.run.env[evaluation.by_key[key]] for key in crossing.keys]
    return Split(
        prefix,
        suffix,
        _node_names([evaluation.by_key[key] for key in crossing.keys]),
        shapes=tuple(tuple(v.shape[1:]) for v in values),
        dtypes=tuple(v.dtype for v in values),
        digest=hashlib.sha256("|".join(crossing.keys).encode()).hexdigest(),
    )


def _noise(example: Tensor) -> Tensor:
    """Other pixels, always the same ones, of ordinary size: what an example of equal or blank images would not show."""
    return torch.randn(example.shape, generator=torch.Generator().manual_seed(1)).to(example.device, example.dtype)


def _compare(expected: Any, got: Any, mode: str) -> None:
    if not equal(expected, got):
        raise UntraceableError(f"its two parts compute other values than the network itself, in {mode}")


def _try_out(
    model: nn.Module, set_modes: Callable[[bool], None], prefix: nn.Module, suffix: Suffix, example: Tensor, expected: Any
) -> None:
    """Holds both parts against the whole network, in both modes, bit for bit, buffers included."""
    with torch.no_grad():
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
        line = (str(error).strip().splitlines() or [""])[0]
        raise UntraceableError(f"its two parts do not run ({type(error).__name__}: {line})") from error


def _build_prefix(model: nn.Module, flow: Flow, crossing: Crossing) -> fx.GraphModule:
    wanted = [flow.by_key[key] for key in crossing.keys]
    take = set(wanted)
    for node in reversed(flow.graph.nodes):
        if node in take:
            take.update(node.all_input_nodes)
    graph = fx.Graph()
    new: dict[fx.Node, Any] = {flow.images: graph.placeholder("images")}
    for node in flow.graph.nodes:
        if node in take and node is not flow.images:
            new[node] = _copy_node(graph, node, new)
    graph.output(tuple(new[node] for node in wanted))
    _drop_copies(model, graph)
    return fx.GraphModule(model, graph, "Prefix")


def _build_suffix(model: nn.Module, flow: Flow, frontier: Frontier, crossing: Crossing) -> fx.GraphModule:
    take, _ = frontier.behind(flow, crossing.again)
    graph = fx.Graph()
    given = {key: graph.placeholder(f"value_{i}") for i, key in enumerate(crossing.keys)}
    first = next(iter(given.values()))
    size, device = graph.call_method("size", (first, 0)), graph.call_function(getattr, (first, "device"))
    new: dict[fx.Node, Any] = {}
    for node in flow.graph.nodes:
        if node not in take:
            continue
        for a in node.all_input_nodes:
            if a in new:
                continue
            key = flow.keys[a]
            if key in given:
                new[a] = given[key]
            else:
                write = frontier.number(key)
                assert write is not None, "neither crosses nor is known"
                new[a] = write(size, device, graph)
        new[node] = _copy_node(graph, node, new)
    for unused in (node for node in (size, device) if not node.users):
        graph.erase_node(unused)
    _drop_copies(model, graph)
    return fx.GraphModule(model, graph, "Suffix")


def _copy_node(graph: fx.Graph, node: fx.Node, new: dict[fx.Node, Any]) -> fx.Node:
    arguments = fx.node.map_arg((node.args, node.kwargs), lambda a: new[a])
    copied = graph.create_node(node.op, node.target, arguments[0], arguments[1], name=node.name)
    copied.meta["nn_module_stack"] = node.meta.get("nn_module_stack", {})
    return copied


def _drop_copies(model: nn.Module, graph: fx.Graph) -> None:
    """Lets in-place operations work in place again where their operand is new memory that nobody else looks at."""
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not fresh:
            continue
        operand = node.args[0]
        if set(operand.users) == {node} and _is_new_memory(model, operand):
            node.replace_all_uses_with(operand)
            graph.erase_node(node)


def _is_new_memory(model: nn.Module, node: fx.Node) -> bool:
    """Whether a node surely gives memory of its own: layers with weights, sums, concatenations, in-place results."""
    if node.op == "call_module":
        module = module_of(model, node)
        if isinstance(module, STATEFUL_MODULES) or getattr(module, "inplace", False) is True:
            return True
        return isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear | nn.LayerNorm | nn.GroupNorm)
    if node.op == "call_function":
        return node.target in (operator.add, operator.mul, operator.sub, operator.iadd, operator.imul, torch.add, torch.cat)
    return False


def _node_names(nodes: Iterable[fx.Node]) -> tuple[str, ...]:
    """A name for people of each node, all different: the module that it calls, or the module it stands in and its own."""
    names: list[str] = []
    for node in nodes:
        stack = list(node.meta.get("nn_module_stack", {}) or {})
        name = str(node.target) if node.op == "call_module" else ".".join(filter(None, [stack[-1] if stack else "", node.name]))
        names.append(name if name not in names else f"{name}#{sum(n.split('#')[0] == name for n in names) + 1}")
    return tuple(names)


@contextmanager
def _same_caches(model: nn.Module) -> Iterator[None]:
    """Restores on leaving the plain dicts and lists in which some modules keep what they computed.

    LeViT and its like cache tensors made from parameters while in evaluation mode, and would file symbolic values there.
    """
    caches = [
        (module, name, value, copy.copy(value))
        for module in model.modules()
        for name, value in vars(module).items()
        if type(value) in (dict, list) and not name.startswith("_")
    ]
    try:
        yield
    finally:
        for module, name, value, content in caches:
            if isinstance(value, dict):
                value.clear()
                value.update(content)
            else:
                value[:] = content
            vars(module)[name] = value
