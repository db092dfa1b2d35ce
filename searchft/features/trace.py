"""Turns a network into a graph of operations (torch.fx), once in the modes of training and once in those of evaluation.

Tracing bakes `if self.training` into the graph, hence two. Leaves are what timm lists as untraceable, BatchNorms and the modules that
draw random numbers; torchvision's composite blocks are looked into, so that a cut may fall inside them.

Graphs come out *pure*: a copy stands before every operation that works in place, and later readers of its operand read its result. So
a graph can be taken apart anywhere; `features.split` removes the copies again where nothing else looks at the operand.
"""

from __future__ import annotations

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


class ModelTracer(fx.Tracer):
    """torch.fx's tracer with our leaves."""

    def __init__(self, leaves: Sequence[str] = ()) -> None:
        wrapped: Any = (math, torchvision.ops)
        super().__init__(autowrap_modules=wrapped, autowrap_functions=tuple(timm.models._features_fx.get_notrace_functions()))
        self._leaves = (*timm.models._features_fx.get_notrace_modules(), *RANDOM_MODULES, *STATEFUL_MODULES)
        self._named_leaves = frozenset(leaves)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        named = module_qualified_name in self._named_leaves
        return named or isinstance(m, self._leaves) or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module, leaves: Sequence[str] = ()) -> fx.Graph:
    """The pure graph of `model` in its present modes. It has one input (the images) and one output.

    Modules named in `leaves` are not looked into.

    Raises UntraceableError with the reason in one line. May leave tensors named `_tensor_constant…` on the model:
    run it inside `traced_constants`.
    """
    parameters = list(inspect.signature(model.forward).parameters.values())
    defaults = {p.name: p.default for p in parameters[1:] if p.default is not p.empty}
    try:
        graph = ModelTracer(leaves).trace(model, concrete_args=defaults)
    except Exception as error:  # torch.fx raises whatever the model's own code raises on a symbolic value
        line = (str(error).strip().splitlines() or [""])[0]
        raise UntraceableError(f"cannot be traced ({type(error).__name__}: {line})") from error
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
    value: Any = model
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value


def works_in_place(model: nn.Module, node: fx.Node) -> fx.Node | None:
    """The operand that a node overwrites, or None. A buffer is no operand: whoever writes one is stateful."""
    if node.op == "call_module":
        hit = getattr(module_of(model, node), "inplace", False) is True
    elif node.op == "call_method":
        hit = str(node.target).endswith("_") and not str(node.target).endswith("__")
    elif node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        hit = node.target in _IN_PLACE_OPERATORS or _asks_in_place(node)
        hit = hit or (name.endswith("_") and not name.endswith("__") and hasattr(torch, name))
    else:
        return None
    operand = next(iter(node.args), None) if node.args else node.kwargs.get("input")
    return operand if hit and isinstance(operand, fx.Node) and operand.op != "get_attr" else None


def _asks_in_place(node: fx.Node) -> bool:
    """Whether a function is called with `inplace=True`, by name or by position."""
    if "inplace" in node.kwargs:
        return node.kwargs["inplace"] is True
    try:
        names = list(inspect.signature(node.target).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    if "inplace" not in names:
        return False
    place = names.index("inplace")
    return place < len(node.args) and node.args[place] is True


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
        operand = works_in_place(model, node)
        if operand is None:
            continue
        with graph.inserting_before(node):
            copy = graph.call_function(fresh, (operand,))
        copy.meta["nn_module_stack"] = node.meta.get("nn_module_stack", {})
        node.replace_input_with(operand, copy)
        # Whoever reads the operand from here on would have seen the new value: in-place operations return it.
        later = node.next
        while later.op != "root":
            if operand in later.all_input_nodes:
                later.replace_input_with(operand, node)
            later = later.next
