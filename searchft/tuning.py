"""What lets a process of ours start sooner and train faster. No number changes.

Figures: tests/benchmarks/small_gains.py, 2-core x86-64, whole processes or steps, with and without.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import inspect
import platform
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import timm
    import torch
    import torchvision

__all__ = ["bare_step", "collect_rarely", "give_back_memory", "keep_freed_memory", "leave_quickly", "timm", "torchvision"]

# The garbage collector ------------------------------------------------------------------------------------------------


def collect_rarely() -> None:
    """Looks for garbage after 100,000 new objects (Python: 700): importing torch and Optuna makes two million that stay.

    Importing and leaving take 4.7 instead of 8.0 s. Called first thing by every process of ours.
    """
    gc.set_threshold(100_000, 20, 100)


def leave_quickly() -> None:
    """Spares the objects that live now the last look for garbage, which the leaving interpreter takes."""
    gc.freeze()


# glibc's allocator ----------------------------------------------------------------------------------------------------

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Names of settings in glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Has freed blocks of any size used again by this process; whether that can be done here. Call it early.

    A training step of EfficientNet-lite0 (everything open, 64 images of 112 px, float32) takes 1.17 instead of 1.40 s.
    """
    libc = _glibc()
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 256 << 20))  # no mmap, never trim, grow by 256 MiB
    return libc is not None and all(libc.mallopt(name, value) == 1 for name, value in settings)


def give_back_memory() -> None:
    """Returns to the kernel what is free now: between trials, where others may need it."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None


# torch's compiler -----------------------------------------------------------------------------------------------------

_QUESTIONS = "torch._dynamo.utils"
_IMPORTED = {"timm": "timm", "torchvision": "torchvision.transforms.v2"}
"""The parts of each that are used; importing a part imports the whole."""


def __getattr__(name: str) -> Any:
    """`timm` or `torchvision`, imported when first asked for, without torch's compiler (860 modules of 2,750)."""
    if name not in _IMPORTED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _without_compiler():
        importlib.import_module(_IMPORTED[name])
    return globals().setdefault(name, sys.modules[name])


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    """While timm and torchvision are imported, neither torchvision's one question nor timm's decorator imports the compiler.

    The question is a stand-in that asks the compiler when it is called, the decorator torch's own lazy form of it. Importing, one
    step and leaving take 3.6 instead of 5.8 s. Whoever compiles something all the same finds everything as it should be.
    """
    import torch.compiler

    if "torch._dynamo" in sys.modules:
        yield
        return

    def real(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        step_aside()
        return getattr(importlib.import_module(_QUESTIONS), name)

    def step_aside() -> None:
        if sys.modules.get(_QUESTIONS) is stand_in:
            del sys.modules[_QUESTIONS]

    stand_in: Any = ModuleType(_QUESTIONS)
    stand_in.is_compile_supported = lambda device_type: real("is_compile_supported")(device_type)
    stand_in.__getattr__ = real  # whatever else a later version asks for imports the compiler as ever
    compiler: Any = torch.compiler
    disable, compiler.disable = compiler.disable, torch._disable_dynamo
    sys.modules[_QUESTIONS] = stand_in
    try:
        yield
    finally:
        compiler.disable = disable
        step_aside()
    # Building an optimiser, adding a group and loading a state would import the compiler only to be left out of what it compiles.
    for method in vars(torch.optim.Optimizer).values():
        inner = getattr(method, "__wrapped__", None)
        if inspect.isfunction(inner) and not hasattr(inner, "__dynamo_disable"):
            setattr(inner, "__dynamo_disable", inner)  # where torch looks for it


def bare_step(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """The optimiser's step without what torch wraps around it: profiling, hooks, and a break in the compiler's graph."""
    import torch

    step = inspect.unwrap(type(optimizer).step)

    def take() -> None:
        with torch.no_grad():
            step(optimizer)

    return take
