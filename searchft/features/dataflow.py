"""Which nodes of a traced network are constant while it trains, and which of their values the rest needs.

A node is *active* if it reads a trainable parameter, is random, stateful or looks at the whole batch in training, or reads an
active node; *plain* if it does not depend on the images at all, and then copied to wherever it is needed; else *frozen*. Nodes of the
training graph are found in the evaluation graph by what they compute; frozen is what is frozen in both, bit for bit.

A frozen value can cross the cut if it is a tensor [B, …] whose rows depend on their own images only, as two runs with different
batches show. What cannot (sizes, tuples, windows moved into the batch dimension) is computed again behind the cut.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from searchft.features.observe import Observation, equal, tensors
from searchft.features.trace import (
    CONSTANT_PREFIX,
    RANDOM_MODULES,
    STATEFUL_MODULES,
    attribute_of,
    fresh,
    module_of,
)

_RESHAPES = ("view", "reshape", "flatten", "permute", "transpose", "contiguous", "expand", "unsqueeze", "squeeze")
LIGHT_METHODS = frozenset((*_RESHAPES, "chunk", "split", "unbind", "repeat", "clone"))
_MOVES = (operator.getitem, torch.cat, torch.flatten, torch.permute, torch.transpose, torch.reshape, torch.chunk, torch.split)
LIGHT_FUNCTIONS = frozenset((fresh, *_MOVES, torch.unbind, torch.unsqueeze, torch.squeeze, torch.relu, F.relu, F.relu6))
LIGHT_MODULES: tuple[type[nn.Module], ...] = (nn.ReLU, nn.ReLU6, nn.Identity, nn.Flatten, nn.Unflatten)
"""What only moves values about or clips them: free to compute again behind the cut where that makes the store smaller."""

Write = Callable[[fx.Node, fx.Node, fx.Graph], Any]
"""(node of the batch size, node of the device, graph) -> the argument."""

PLAIN_TYPES = (int, float, bool, str, type(None), torch.dtype)


@dataclass
class Flow:
    """One traced graph with what is known of its nodes."""

    graph: fx.Graph
    run: Observation
    keys: dict[fx.Node, str]
    """What each node computes, as a digest."""
    imaged: set[fx.Node]
    """Nodes whose value depends on the images."""
    active: set[fx.Node]
    images: fx.Node
    by_key: dict[str, fx.Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node, key in self.keys.items():
            self.by_key.setdefault(key, node)


def flow_of(model: nn.Module, run: Observation, graph: fx.Graph) -> Flow:
    """Keys and activity of every node of `graph`, of which `run` is a run in the graph's own modes."""
    images = next(node for node in graph.nodes if node.op == "placeholder")
    keys: dict[fx.Node, str] = {}
    imaged: set[fx.Node] = set()
    active: set[fx.Node] = set()
    for node in graph.nodes:
        keys[node] = _key_of(model, node, keys)
        if node is images or any(a in imaged for a in node.all_input_nodes):
            imaged.add(node)
        if any(a in active for a in node.all_input_nodes) or is_active(model, node, run, imaged):
            active.add(node)
    return Flow(graph, run, keys, imaged, active, images)


def is_active(model: nn.Module, node: fx.Node, run: Observation, imaged: set[fx.Node]) -> bool:
    """Whether a node by itself trains, is random, keeps state or looks at the whole batch."""
    if node in run.random or node in run.stateful:
        return True
    if node.op == "get_attr":
        value = attribute_of(model, node)
        return isinstance(value, Tensor) and value.requires_grad
    if node.op == "call_module":
        module = module_of(model, node)
        return any(p.requires_grad for p in module.parameters()) or any(map(_works_on_batches, module.modules()))
    if node.op == "call_function" and node.target is F.batch_norm and node in imaged:
        return bool(node.kwargs.get("training", node.args[5] if len(node.args) > 5 else False))
    return False


def _works_on_batches(module: nn.Module) -> bool:
    if isinstance(module, STATEFUL_MODULES):
        return module.training or getattr(module, "running_mean", 0) is None
    return module.training and isinstance(module, RANDOM_MODULES) and _probability(module) > 0


def _probability(module: nn.Module) -> float:
    """Of doing anything at all, for a random module; 1 where it does not say."""
    for name in ("p", "drop_prob", "prob"):
        value = getattr(module, name, None)
        if isinstance(value, int | float):
            return float(value)
    return 1.0


def _key_of(model: nn.Module, node: fx.Node, keys: Mapping[fx.Node, str]) -> str:
    if node.op == "placeholder":
        what = "images"
    elif node.op == "output":
        what = "output"
    elif node.op == "get_attr":
        what = str(node.target)
        if what.startswith(CONSTANT_PREFIX):  # numbered by each trace for itself
            what = _content(attribute_of(model, node))
    elif node.op == "call_function":
        what = f"{getattr(node.target, '__module__', '')}.{getattr(node.target, '__qualname__', node.target)}"
    else:
        what = str(node.target)
    arguments = repr(fx.node.map_arg((node.args, dict(node.kwargs)), lambda n: _Quoted(keys[n])))
    module = repr(module_of(model, node)) if node.op == "call_module" else ""
    return hashlib.sha256(f"{node.op}|{what}|{module}|{arguments}".encode()).hexdigest()


class _Quoted(str):
    """A key inside the arguments of another: told from a string argument of the same text."""

    def __repr__(self) -> str:
        return f"<{self!s}>"


def _content(value: Any) -> str:
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous()
        content = hashlib.sha256(data.flatten().view(torch.uint8).numpy().tobytes()).hexdigest() if data.numel() else ""
        return f"{data.dtype}{tuple(data.shape)}{content}"
    return repr(value)


@dataclass(frozen=True)
class Crossing:
    """Which frozen values cross the cut, and what is computed again behind it."""

    keys: tuple[str, ...]
    """In the order in which the evaluation graph computes them."""
    again: frozenset[str]
    """Frozen values that are cheaper computed again than stored."""


class Frontier:
    """The cut between what is frozen in both graphs and the rest."""

    def __init__(self, training: Flow, evaluation: Flow, other: Observation, batch: int) -> None:
        """`other` is a run of the evaluation graph on a batch of another size whose first image is the same."""
        self.flows = (training, evaluation)
        self.evaluation = evaluation
        self.other = other
        self.batch = batch
        self.other_batch = len(other.env[evaluation.images])
        if self._row_depends_on_others(evaluation.images):
            raise AssertionError("the two runs must share their first image")
        self.frozen = self._frozen_in_both(training, evaluation)
        self._storable: dict[str, bool] = {}

    @staticmethod
    def _frozen_in_both(training: Flow, evaluation: Flow) -> frozenset[str]:
        frozen: set[str] = set()
        known = {training.keys[n] for n in training.graph.nodes if n in training.imaged and n not in training.active}
        for node in evaluation.graph.nodes:
            key = evaluation.keys[node]
            if node.op == "output" or node not in evaluation.imaged or node in evaluation.active or key not in known:
                continue
            inputs = [evaluation.keys[a] for a in node.all_input_nodes if a in evaluation.imaged]
            if not all(k in frozen for k in inputs):
                continue
            if equal(evaluation.run.env[node], training.run.env[training.by_key[key]]):
                frozen.add(key)
        return frozenset(frozen)

    def storable(self, key: str) -> bool:
        """Whether a frozen value is a tensor [B, …] whose rows are each their own image's."""
        if key not in self._storable:
            node = self.evaluation.by_key[key]
            here, there = self.evaluation.run.env[node], self.other.env[node]
            self._storable[key] = (
                isinstance(here, Tensor)
                and isinstance(there, Tensor)
                and here.layout == torch.strided
                and not here.is_complex()
                and here.ndim > 0
                and here.shape[0] == self.batch
                and there.shape[0] == self.other_batch
                and here.shape[1:] == there.shape[1:]
                and not self._row_depends_on_others(node)
            )
        return self._storable[key]

    def _row_depends_on_others(self, node: fx.Node) -> bool:
        here, there = self.evaluation.run.env[node][0], self.other.env[node][0]
        if not here.is_floating_point():
            return not torch.equal(here, there)
        # The same image in another batch: equal up to the order of summation, which depends on the batch size.
        scale = float(here.abs().max()) if here.numel() else 0.0
        return not torch.allclose(here, there, rtol=0.0, atol=1e-3 * scale + 1e-30, equal_nan=True)

    def number(self, key: str) -> Write | None:
        """How to write a frozen value that is no tensor as a function of the batch size; None if it is none."""
        node = self.evaluation.by_key[key]
        return _number(self.evaluation.run.env[node], self.other.env[node], self.batch, self.other_batch)

    def crossing(self) -> Crossing:
        """The smallest set of values (in bytes) found that both graphs can go on from."""
        again: set[str] = set()
        best = self._needed(again)
        best_bytes = self.row_bytes(best)
        tried: set[str] = set()
        while True:
            candidates = [k for k in best if k not in tried and self._is_light(k)][:200]
            if not candidates:
                break
            for key in candidates:
                tried.add(key)
                smaller = self._needed(again | {key})
                if self.row_bytes(smaller) < best_bytes:
                    again.add(key)
                    best, best_bytes = smaller, self.row_bytes(smaller)
        order = {key: i for i, key in enumerate(self.evaluation.by_key)}
        return Crossing(tuple(sorted(best, key=order.__getitem__)), frozenset(again))

    def _needed(self, again: Iterable[str]) -> set[str]:
        return {key for flow in self.flows for key in self.behind(flow, frozenset(again))[1]}

    def behind(self, flow: Flow, again: frozenset[str]) -> tuple[set[fx.Node], set[str]]:
        """The nodes of a graph that are computed behind the cut, and the keys of the values they take from before it."""
        take = {node for node in flow.graph.nodes if node in flow.active or node.op == "output"}
        cross: set[str] = set()
        for node in reversed(flow.graph.nodes):
            if node not in take:
                continue
            for a in node.all_input_nodes:
                key = flow.keys[a]
                if a in take:
                    continue
                if a not in flow.imaged or key not in self.frozen:
                    take.add(a)
                elif key not in again and self.storable(key):
                    cross.add(key)
                elif key in again or self.number(key) is None:
                    take.add(a)
        return take, cross

    def row_bytes(self, keys: Iterable[str]) -> int:
        """Bytes per image of some storable values."""
        values = (self.evaluation.run.env[self.evaluation.by_key[key]] for key in keys)
        return sum(v[0].numel() * v.element_size() for v in values)

    def _is_light(self, key: str) -> bool:
        node = self.evaluation.by_key[key]
        if node.op == "call_method":
            return node.target in LIGHT_METHODS
        if node.op == "call_function":
            return node.target in LIGHT_FUNCTIONS
        return node.op == "call_module" and isinstance(module_of(self.evaluation.run.module, node), LIGHT_MODULES)


def _number(here: Any, there: Any, batch: int, other: int) -> Write | None:
    if tensors(here) or tensors(there) or type(here) is not type(there):
        return None
    if isinstance(here, tuple | list):
        parts = [_number(a, b, batch, other) for a, b in zip(here, there, strict=True)] if len(here) == len(there) else [None]
        known = [part for part in parts if part is not None]
        kind = list if isinstance(here, list) else tuple
        return (lambda size, device, graph: kind(part(size, device, graph) for part in known)) if known == parts else None
    if isinstance(here, torch.device):
        return lambda size, device, graph: device
    if isinstance(here, PLAIN_TYPES) and here == there:
        return lambda size, device, graph: here
    if isinstance(here, bool) or not isinstance(here, int):
        return None
    slope, rest = divmod(there - here, other - batch)
    offset = here - slope * batch

    def write(size: fx.Node, device: fx.Node, graph: fx.Graph) -> Any:
        value = graph.call_function(operator.mul, (size, slope)) if slope != 1 else size
        return graph.call_function(operator.add, (value, offset)) if offset else value

    return write if not rest else None
