"""Turns a network into a graph of operations (torch.fx), and runs it while watching what each of them really does.

Tracing bakes `if self.training` into the graph, hence one for training and one for evaluation. Leaves are what timm lists as
untraceable, BatchNorms and the modules that draw random numbers; a cut may fall inside torchvision's composite blocks.

Graphs come out *pure*: a copy stands before every operation that works in place, and later readers of its operand read its result. So
a graph can be taken apart anywhere; `features.split` removes the copies again where nothing else looks at the operand.
"""

from __future__ import annotations

import copy
import inspect
import math
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, fx, nn

RANDOM_MODULES: tuple[type[nn.Module], ...] = (
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
    nn.FractionalMaxPool2d,
    timm.layers.DropPath,
    timm.layers.DropBlock2d,
    timm.layers.PatchDropout,
    torchvision.ops.StochasticDepth,
    torchvision.ops.DropBlock2d,
)
"""Modules that draw random numbers in training (others are found by watching the generator while the graph runs)."""

STATEFUL_MODULES: tuple[type[nn.Module], ...] = (nn.modules.batchnorm._NormBase,)
"""Modules that update buffers of their own in training, and then look at the whole batch."""

CONSTANT_PREFIX = "_tensor_constant"
"""Name under which torch.fx files tensors that are neither parameters nor buffers."""

_IN_PLACE_OPERATORS = frozenset(
    getattr(operator, name)
    for name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "imatmul", "iand", "ior", "ixor")
)


class UntraceableError(Exception):
    """The network cannot be split, and why. Caught inside this room: it becomes `Split.reason`."""

    @classmethod
    def because(cls, what: str, error: Exception) -> UntraceableError:
        """`what`, with the type and the first line of the error behind it."""
        line = (str(error).strip().splitlines() or [""])[0]
        return cls(f"{what} ({type(error).__name__}: {line})")


class _Tracer(fx.Tracer):
    def __init__(self, leaves: Sequence[str] = ()) -> None:
        wrapped: Any = (math, torchvision.ops)
        super().__init__(autowrap_modules=wrapped, autowrap_functions=tuple(timm.models._features_fx.get_notrace_functions()))
        self._leaves = (*timm.models._features_fx.get_notrace_modules(), *RANDOM_MODULES, *STATEFUL_MODULES)
        self._named_leaves = frozenset(leaves)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        named = module_qualified_name in self._named_leaves
        return named or isinstance(m, self._leaves) or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module, leaves: Sequence[str] = ()) -> fx.Graph:
    """The pure graph of `model` in its present modes: one input (the images), one output; `leaves` are not looked into.

    Raises UntraceableError with the reason in one line. May leave tensors named `_tensor_constant…` on the model:
    run it inside `traced_constants`.
    """
    parameters = list(inspect.signature(model.forward).parameters.values())
    defaults = {p.name: p.default for p in parameters[1:] if p.default is not p.empty}
    try:
        graph = _Tracer(leaves).trace(model, concrete_args=defaults)
    except Exception as error:  # torch.fx raises whatever the model's own code raises on a symbolic value
        raise UntraceableError.because("cannot be traced", error) from error
    _keep_one_input(graph)
    _purify(graph, model)
    return graph


@contextmanager
def traced_constants(model: nn.Module) -> Iterator[None]:
    """Takes away on leaving what tracing has filed on the model; graphs built meanwhile keep their own references."""
    before = set(vars(model))
    try:
        yield
    finally:
        for name in set(vars(model)) - before:
            if name.startswith(CONSTANT_PREFIX):
                delattr(model, name)


def fresh(value: Any) -> Any:
    """A copy of a tensor that keeps its layout; anything else as it is (sizes are added in place, too)."""
    return value.clone() if isinstance(value, Tensor) else value


def module_of(model: nn.Module, node: fx.Node) -> nn.Module:
    """The module that a `call_module` node calls."""
    return model.get_submodule(str(node.target))


def attribute_of(model: nn.Module, node: fx.Node) -> Any:
    """The parameter, buffer or constant that a `get_attr` node reads."""
    return operator.attrgetter(str(node.target))(model)


def _overwritten(model: nn.Module, node: fx.Node) -> fx.Node | None:
    """The operand that a node overwrites, or None. A buffer is no operand: whoever writes one is stateful."""
    hit = False
    if node.op == "call_module":
        hit = getattr(module_of(model, node), "inplace", False) is True
    elif node.op == "call_method":
        hit = _ends_in_underscore(str(node.target))
    elif node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        hit = node.target in _IN_PLACE_OPERATORS or _asks_in_place(node) or (_ends_in_underscore(name) and hasattr(torch, name))
    operand = node.args[0] if node.args else node.kwargs.get("input")
    return operand if hit and isinstance(operand, fx.Node) and operand.op != "get_attr" else None


def _ends_in_underscore(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def _asks_in_place(node: fx.Node) -> bool:
    """Whether a function is called with `inplace=True`, by name or by position."""
    try:
        arguments = inspect.signature(node.target).bind_partial(*node.args, **node.kwargs).arguments  # type: ignore[arg-type]
    except (TypeError, ValueError):  # built-in functions have no signature
        arguments = node.kwargs
    return arguments.get("inplace") is True


def _keep_one_input(graph: fx.Graph) -> None:
    """Takes out the optional inputs, which have their defaults, and torch.fx's checks that they do."""
    for extra in [node for node in graph.nodes if node.op == "placeholder"][1:]:
        checks = list(extra.users)
        for check in checks:
            checks.extend(user for user in check.users if user not in checks)
        if any(not check.users and "assert" not in getattr(check.target, "__name__", "") for check in checks):
            raise UntraceableError(f"takes a second input ({extra.target})")
        for check in reversed(checks):
            graph.erase_node(check)
        graph.erase_node(extra)


def _purify(graph: fx.Graph, model: nn.Module) -> None:
    for node in list(graph.nodes):
        operand = _overwritten(model, node)
        if operand is None:
            continue
        with graph.inserting_before(node):
            before = graph.call_function(fresh, (operand,))
        node.replace_input_with(operand, before)
        # Whoever reads the operand from here on would have seen the new value: in-place operations return it.
        later = node.next
        while later.op != "root":
            if operand in later.all_input_nodes:
                later.replace_input_with(operand, node)
            later = later.next


class Observation(fx.Interpreter):
    """One run of a graph, in which the random generator and the version counters of buffers and operands are watched.

    Afterwards `env` holds the value of every node.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, garbage_collect_values=False, graph=graph)
        self.random: set[fx.Node] = set()
        """Nodes that drew random numbers."""
        self.stateful: set[fx.Node] = set()
        """Nodes that changed a buffer or a parameter."""
        self._kept = [*model.buffers(), *model.parameters()]

    def run_node(self, n: fx.Node) -> Any:
        if n.op in ("placeholder", "get_attr", "output"):
            return super().run_node(n)
        operands = [(a, v, v._version) for a in n.all_input_nodes for v in tensors(self.env[a])]
        device = operands[0][1].device if operands else None
        kept = [tensor._version for tensor in self._kept]
        generators = _generator_states(device)
        result = super().run_node(n)
        if _generator_states(device) != generators:
            self.random.add(n)
        changed = {a for a, value, version in operands if value._version != version}
        if any(a.op == "get_attr" for a in changed) or kept != [tensor._version for tensor in self._kept]:
            self.stateful.add(n)
        for a in changed:
            if a.op != "get_attr" and not (a.target is fresh and set(a.users) == {n}):  # but the copy made for it
                raise UntraceableError(f"{n.name} overwrites {a.name}")
        return result


@torch.no_grad()
def observe(model: nn.Module, graph: fx.Graph, images: Tensor) -> Observation:
    """Runs `graph` on `images` [B,3,H,W], leaving the model's buffers and the random state as they were.

    Raises UntraceableError where the graph does not run or overwrites what it must not.
    """
    observation = Observation(model, graph)
    with untouched(model, images.device):
        try:
            observation.run(images)
        except (UntraceableError, torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # a graph may have baked in what holds for symbolic values only
            raise UntraceableError.because("its graph does not run", error) from error
    return observation


@contextmanager
def untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Restores buffers (by object and by content), caches and random states on leaving; within, the seed is fixed.

    Caches are the plain dicts and lists in which LeViT and its like keep, in evaluation, what they made of parameters.
    """
    buffers = [(m, name, b, b.clone()) for m in model.modules() for name, b in m._buffers.items() if b is not None]
    attributes = [(m, name, value) for m in model.modules() for name, value in vars(m).items() if not name.startswith("_")]
    caches = [(m, name, value, copy.copy(value)) for m, name, value in attributes if type(value) in (dict, list)]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            yield
    finally:
        with torch.no_grad():
            for module, name, buffer, content in buffers:
                buffer.copy_(content)
                module._buffers[name] = buffer
        for module, name, cache, entries in caches:
            cache.clear()
            cache.update(entries) if isinstance(cache, dict) else cache.extend(entries)
            vars(module)[name] = cache


def tensors(value: Any) -> list[Tensor]:
    """All tensors in a value made of tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return [tensor for item in items for tensor in tensors(item)]


def equal(first: Any, second: Any) -> bool:
    """Whether two values are the same to the last bit (NaN equals NaN)."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if first.shape != second.shape or first.dtype != second.dtype:
            return False
        return torch.equal(first, second) or (
            first.is_floating_point() and torch.allclose(first, second, rtol=0.0, atol=0.0, equal_nan=True)
        )
    if isinstance(first, tuple | list) and isinstance(second, tuple | list):
        return len(first) == len(second) and all(map(equal, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    return type(first) is type(second) and bool(first == second)


def _generator_states(device: torch.device | None) -> tuple[bytes, ...]:
    states = [torch.get_rng_state()]
    if device is not None and device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return tuple(state.numpy().tobytes() for state in states)
