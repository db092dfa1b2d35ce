"""Runs a traced graph node by node and writes down what each node really did.

An operation's name says little about whether it draws random numbers, updates a buffer or overwrites what it was given. So the
random generator and the version counters of buffers and operands are watched while the graph runs on a small batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from searchft.features.trace import UntraceableError


class Observation(fx.Interpreter):
    """One run of a graph. Afterwards `env` holds the value of every node."""

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
        kept = [tensor._version for tensor in self._kept] if n.op == "call_module" or operands else []
        generator = generator_states(operands[0][1].device if operands else None)
        result = super().run_node(n)
        if generator_states(operands[0][1].device if operands else None) != generator:
            self.random.add(n)
        changed = {a for a, value, version in operands if value._version != version}
        if any(a.op == "get_attr" for a in changed) or kept != [t._version for t in self._kept][: len(kept)]:
            self.stateful.add(n)
        for a in changed:
            if a.op != "get_attr" and not is_own_copy(a, n):
                raise UntraceableError(f"{n.name} overwrites {a.name}")
        return result


def is_own_copy(operand: fx.Node, node: fx.Node) -> bool:
    """Whether `operand` is the copy that was made for the in-place operation `node`."""
    return operand.op == "call_function" and getattr(operand.target, "__name__", "") == "fresh" and set(operand.users) == {node}


@torch.no_grad()
def observe(model: nn.Module, graph: fx.Graph, images: Tensor) -> Observation:
    """Runs `graph` on `images` [B,3,H,W], leaving the model's buffers and the random state as they were.

    Raises UntraceableError where the graph does not run or overwrites what it must not.
    """
    observation = Observation(model, graph)
    with untouched(model, images.device):
        try:
            observation.run(images)
        except UntraceableError:
            raise
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # a graph may have baked in what holds for symbolic values only
            line = (str(error).strip().splitlines() or [""])[0]
            raise UntraceableError(f"its graph does not run ({type(error).__name__}: {line})") from error
    return observation


@contextmanager
def untouched(model: nn.Module, device: torch.device, seed: int = 0) -> Iterator[None]:
    """Restores buffers (by object and by content) and random states on leaving; within, the seed is fixed."""
    buffers = [(m, name, b, b.clone()) for m in model.modules() for name, b in m._buffers.items() if b is not None]
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield
    finally:
        with torch.no_grad():
            for module, name, buffer, content in buffers:
                buffer.copy_(content)
                module._buffers[name] = buffer


def tensors(value: Any) -> list[Tensor]:
    """All tensors in a value made of tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [t for item in value for t in tensors(item)]
    if isinstance(value, dict):
        return [t for item in value.values() for t in tensors(item)]
    return []


def equal(first: Any, second: Any) -> bool:
    """Whether two values are the same to the last bit (NaN equals NaN)."""
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        if not (isinstance(first, Tensor) and isinstance(second, Tensor)):
            return False
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


def generator_states(device: torch.device | None) -> tuple[bytes, ...]:
    """States of the generators that an operation on `device` may draw from."""
    states = [torch.get_rng_state()]
    if device is not None and device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return tuple(state.numpy().tobytes() for state in states)
