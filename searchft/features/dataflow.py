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
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from searchft.features.trace import (
    CONSTANT_PREFIX,
    RANDOM_MODULES,
    STATEFUL_MODULES,
    Observation,
    attribute_of,
    equal,
    fresh,
    module_of,
    tensors,
)

_MOVES = ("reshape", "flatten", "permute", "transpose", "unsqueeze", "squeeze", "chunk", "split", "unbind", "clone")
LIGHT_METHODS = frozenset((*_MOVES, "view", "contiguous", "expand", "repeat"))
LIGHT_FUNCTIONS = {fresh, operator.getitem, torch.cat, torch.relu, F.relu, F.relu6, *(getattr(torch, name) for name in _MOVES)}
LIGHT_MODULES: tuple[type[nn.Module], ...] = (nn.ReLU, nn.ReLU6, nn.Identity, nn.Flatten, nn.Unflatten)
"""What only moves values about or clips them: free to compute again behind the cut where that makes the store smaller."""

Write = Callable[[fx.Node, fx.Node, fx.Graph], Any]
"""(node of the batch size, node of the device, graph) -> the argument."""


class Flow:
    """One traced graph with what is known of its nodes."""

    def __init__(self, model: nn.Module, run: Observation, graph: fx.Graph) -> None:
        """`run` is a run of `graph` in the graph's own modes."""
        self.graph, self.run = graph, run
        self.images = next(node for node in graph.nodes if node.op == "placeholder")
        self.output = next(node for node in graph.nodes if node.op == "output")
        self.keys: dict[fx.Node, str] = {}
        """What each node computes, as a digest."""
        self.by_key: dict[str, fx.Node] = {}
        self.imaged: set[fx.Node] = set()
        """Nodes whose value depends on the images."""
        self.active: set[fx.Node] = set()
        for node in graph.nodes:
            self.keys[node] = key = _key_of(model, node, self.keys)
            self.by_key.setdefault(key, node)
            if node is self.images or any(a in self.imaged for a in node.all_input_nodes):
                self.imaged.add(node)
            if any(a in self.active for a in node.all_input_nodes) or self._is_active(model, node):
                self.active.add(node)

    def _is_active(self, model: nn.Module, node: fx.Node) -> bool:
        """Whether a node by itself trains, is random, keeps state or looks at the whole batch."""
        if node in self.run.random or node in self.run.stateful:
            return True
        if node.op == "get_attr":
            value = attribute_of(model, node)
            return isinstance(value, Tensor) and value.requires_grad
        if node.op == "call_module":
            module = module_of(model, node)
            return any(p.requires_grad for p in module.parameters()) or any(map(_works_on_batches, module.modules()))
        if node.op == "call_function" and node.target is F.batch_norm and node in self.imaged:
            return bool(node.kwargs.get("training", node.args[5] if len(node.args) > 5 else False))
        return False


def _works_on_batches(module: nn.Module) -> bool:
    if isinstance(module, STATEFUL_MODULES):
        return module.training or getattr(module, "running_mean", 0) is None
    chances = [getattr(module, name, None) for name in ("p", "drop_prob", "prob")]
    chance = next((value for value in chances if isinstance(value, int | float)), 1.0)
    return module.training and isinstance(module, RANDOM_MODULES) and chance > 0


def _key_of(model: nn.Module, node: fx.Node, keys: Mapping[fx.Node, str]) -> str:
    what = str(node.target)
    if node.op == "placeholder":
        what = "images"
    elif node.op == "get_attr" and what.startswith(CONSTANT_PREFIX):  # numbered by each trace for itself
        what = _content(attribute_of(model, node))
    elif node.op == "call_function":
        what = f"{getattr(node.target, '__module__', '')}.{getattr(node.target, '__qualname__', node.target)}"
    arguments = fx.node.map_arg((node.args, dict(node.kwargs)), lambda n: f"<{keys[n]}>")
    module = module_of(model, node) if node.op == "call_module" else ""
    return hashlib.sha256(f"{node.op}|{what}|{module}|{arguments}".encode()).hexdigest()


def _content(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    data = value.detach().cpu().contiguous()
    content = hashlib.sha256(data.flatten().view(torch.uint8).numpy().tobytes()).hexdigest() if data.numel() else ""
    return f"{data.dtype}{tuple(data.shape)}{content}"


class Frontier:
    """The cut between what is frozen in both graphs and the rest."""

    def __init__(self, training: Flow, evaluation: Flow, other: Observation, batch: int) -> None:
        """`other` is a run of the evaluation graph on a batch of another size whose first image is the same."""
        self.flows = (training, evaluation)
        self.evaluation, self.other = evaluation, other
        self.batch, self.other_batch = batch, len(other.env[evaluation.images])
        self._storable: dict[str, bool] = {}
        self.frozen: set[str] = set()
        """Keys of what is frozen in both graphs."""
        known = {training.keys[n] for n in training.imaged - training.active}
        for node in evaluation.graph.nodes:
            key = evaluation.keys[node]
            if node.op == "output" or node not in evaluation.imaged or node in evaluation.active or key not in known:
                continue
            inputs_frozen = all(evaluation.keys[a] in self.frozen for a in node.all_input_nodes if a in evaluation.imaged)
            if inputs_frozen and equal(evaluation.run.env[node], training.run.env[training.by_key[key]]):
                self.frozen.add(key)

    def _is_storable(self, key: str) -> bool:
        """Whether a frozen value is a tensor [B, …] whose rows are each their own image's."""
        if key not in self._storable:
            node = self.evaluation.by_key[key]
            here, there = self.evaluation.run.env[node], self.other.env[node]
            self._storable[key] = (
                isinstance(here, Tensor)
                and isinstance(there, Tensor)
                and here.layout == torch.strided
                and not here.is_complex()
                and here.shape[:1] == (self.batch,)
                and there.shape == (self.other_batch, *here.shape[1:])
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
        return _as_function_of_size(self.evaluation.run.env[node], self.other.env[node], self.batch, self.other_batch)

    def crossing(self) -> tuple[tuple[str, ...], frozenset[str]]:
        """The smallest set of values (in bytes) found that both graphs can go on from, and what is cheaper computed again."""
        again: frozenset[str] = frozenset()
        best = self._needed(again)
        tried: set[str] = set()
        while candidates := [k for k in best if k not in tried and self._is_light(k)][:200]:
            for key in candidates:
                tried.add(key)
                smaller = self._needed(again | {key})
                if self._row_bytes(smaller) < self._row_bytes(best):
                    again, best = again | {key}, smaller
        return best, again

    def _needed(self, again: frozenset[str]) -> tuple[str, ...]:
        """In the order in which the evaluation graph computes them, the same in every process."""
        needed = {key for flow in self.flows for key in self.behind(flow, again)[1]}
        return tuple(key for key in self.evaluation.by_key if key in needed)

    def behind(self, flow: Flow, again: frozenset[str]) -> tuple[set[fx.Node], set[str]]:
        """The nodes of a graph that are computed behind the cut, and the keys of the values they take from before it."""
        take = {node for node in flow.graph.nodes if node in flow.active or node.op == "output"}
        cross: set[str] = set()
        for node in reversed(flow.graph.nodes):
            for a in node.all_input_nodes if node in take else ():
                key = flow.keys[a]
                if a in take:
                    continue
                if a not in flow.imaged or key not in self.frozen or key in again:
                    take.add(a)
                elif self._is_storable(key):
                    cross.add(key)
                elif self.number(key) is None:
                    take.add(a)
        return take, cross

    def _row_bytes(self, keys: Iterable[str]) -> int:
        """Bytes per image of some storable values."""
        values = (self.evaluation.run.env[self.evaluation.by_key[key]] for key in keys)
        return sum(v[0].numel() * v.element_size() for v in values)

    def _is_light(self, key: str) -> bool:
        node = self.evaluation.by_key[key]
        if node.op == "call_module":
            return isinstance(module_of(self.evaluation.run.module, node), LIGHT_MODULES)
        return node.target in LIGHT_METHODS if node.op == "call_method" else node.target in LIGHT_FUNCTIONS


def _as_function_of_size(here: Any, there: Any, batch: int, other: int) -> Write | None:
    """`here` was found with `batch` images, `there` with `other`."""
    if tensors(here) or tensors(there) or type(here) is not type(there):
        return None
    if isinstance(here, tuple | list):
        if len(here) != len(there):
            return None
        parts = [_as_function_of_size(a, b, batch, other) for a, b in zip(here, there, strict=True)]
        known, kind = [part for part in parts if part is not None], list if isinstance(here, list) else tuple
        return (lambda size, device, graph: kind(part(size, device, graph) for part in known)) if known == parts else None
    if isinstance(here, torch.device):
        return lambda size, device, graph: device
    if isinstance(here, int | float | str | torch.dtype | None) and here == there:
        return lambda size, device, graph: here
    if isinstance(here, bool) or not isinstance(here, int):
        return None
    slope, rest = divmod(there - here, other - batch)
    offset = here - slope * batch

    def write(size: fx.Node, device: fx.Node, graph: fx.Graph) -> Any:
        value = graph.call_function(operator.mul, (size, slope)) if slope != 1 else size
        return graph.call_function(operator.add, (value, offset)) if offset else value

    return write if not rest else None
