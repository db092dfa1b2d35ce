"""What lets a process of ours start sooner and train faster, without a change of any number. Figures: 2-core x86-64."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Names of settings in glibc's malloc.h."""


def collect_rarely() -> None:
    """Looks for garbage after 100,000 new objects (Python: 700): importing torch and Optuna makes two million that stay.

    Importing them and leaving takes 2.2 instead of 3.0 s of processor time (min of 3). Call it first thing.
    """
    gc.set_threshold(100_000, 20, 100)


def leave_quickly() -> None:
    """Spares the objects that live now the last look for garbage, which the leaving interpreter takes."""
    gc.freeze()


def keep_freed_memory() -> bool:
    """Has freed blocks of any size used again by this process; whether that can be done here. Call it early.

    A training step of EfficientNet-lite0 (everything open, 64 images of 112 px, float32) takes 1.17 instead of 1.40 s.
    """
    libc = _glibc()
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 256 << 20))  # no mmap, never trim, grow by 256 MiB
    return libc is not None and all(libc.mallopt(name, value) == 1 for name, value in settings)


def give_back_memory() -> None:
    """Returns to the kernel what is free now: between trials, where others may need it."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None
