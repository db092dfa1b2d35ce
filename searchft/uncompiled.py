"""torchvision and timm, imported without torch's compiler. Every module of ours takes them from here.

Importing them imports torch's compiler (torch._dynamo, and with it sympy and torch.distributed: 860 modules of 2,750), torchvision
for one question and timm for one decorator; torch's optimisers would import it at their first step. Nothing here is compiled, so
each process would pay for it in vain: importing, one step and leaving take 4.8 to 6.9 s with it, 3.5 to 3.7 without (three runs of
tests/benchmarks/small_gains.py, 2-core x86-64).

So while they are imported, torchvision's question stands for itself until somebody asks it, and timm's decorator is torch's own
lazy form of it. Whoever compiles something all the same (an adapter, say) imports the compiler then, and finds all as it should be.
Where a later version asks for more, the compiler is imported as ever.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
import torch.compiler

if TYPE_CHECKING:
    import timm
    import torchvision

__all__ = ["bare_step", "timm", "torchvision"]

_PARTS = {
    "timm": ("timm.layers", "timm.models._features_fx"),
    "torchvision": ("torchvision.datasets", "torchvision.transforms.v2"),
}
"""What is used of each that it may not import by itself."""

_QUESTIONS = "torch._dynamo.utils"


def __getattr__(name: str) -> Any:
    """`timm` or `torchvision`, imported when first asked for."""
    if name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _without_compiler():
        library = importlib.import_module(name)
        for part in _PARTS[name]:
            importlib.import_module(part)
    globals()[name] = library
    return library


class _Questions(ModuleType):
    """Stands for `torch._dynamo.utils`: imports it when something of it is used, or asked for that is not known here."""

    @staticmethod
    def is_compile_supported(device_type: Any) -> Any:
        return importlib.import_module(_QUESTIONS).is_compile_supported(device_type)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.step_aside()
        return getattr(importlib.import_module(_QUESTIONS), name)

    def step_aside(self) -> None:
        """From now on the name means the module itself."""
        if sys.modules.get(_QUESTIONS) is self:
            del sys.modules[_QUESTIONS]


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    if "torch._dynamo" in sys.modules or not hasattr(torch, "_disable_dynamo"):
        yield
        return
    disable = torch.compiler.disable

    def disable_lazily(fn: Callable[..., Any] | None = None, recursive: bool = True, **_: Any) -> Any:
        return torch._disable_dynamo(fn, recursive)

    questions = _Questions(_QUESTIONS)
    sys.modules[_QUESTIONS] = questions
    torch.compiler.disable = disable_lazily
    try:
        yield
    finally:
        torch.compiler.disable = disable
        questions.step_aside()


def _spare_optimizers() -> None:
    """Adding a group, loading a state and the like import the compiler to be left out of what it compiles, once each."""
    for method in vars(torch.optim.Optimizer).values():
        inner = getattr(method, "__wrapped__", None)
        if inspect.isfunction(inner) and not hasattr(inner, "__dynamo_disable"):
            setattr(inner, "__dynamo_disable", inner)  # where torch looks for it


_spare_optimizers()


def bare_step(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """The optimiser's step without what torch wraps around it: profiling, hooks, and a break in the compiler's graph."""
    step = inspect.unwrap(type(optimizer).step)

    def take() -> None:
        with torch.no_grad():
            step(optimizer)

    return take
