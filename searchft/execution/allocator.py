"""The C library's allocator, told what training does: the same large blocks, again and again.

glibc gives every block above some megabytes back to the kernel when it is freed, and the kernel clears each page anew when the next
step asks for it. Kept instead, a training step of EfficientNet-lite0 (everything open, batch 64, 112 px, float32) took 1.17 and 1.09 s
instead of 1.40 and 1.48 (two runs each of tests/benchmarks/small_gains.py, 2-core x86-64, glibc 2.36); never trimming the heap within
a trial 0.34 instead of 0.37, and not between trials either, where the machine has plenty, 2.4 s a trial of two such epochs instead
of 2.7 (another 2-core x86-64, medians of three runs). Peak memory rises a little.
No number changes. Elsewhere (macOS, musl) nothing is done.
"""

from __future__ import annotations

import ctypes
import platform
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Names of settings in glibc's malloc.h."""

_NEVER = -1
"""A trim threshold; the largest that the call takes, two GB, is less than a step of a whole network frees."""

_GROW_BYTES = 256 << 20
"""How much more than asked for the heap grows at a time."""


def keep_freed_memory() -> bool:
    """Has freed blocks of any size used again by this process; whether that can be done here. Call it early."""
    libc = _glibc()
    if libc is None:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROW_BYTES))
    return all(libc.mallopt(name, value) == 1 for name, value in settings)


def give_back_memory() -> None:
    """Returns to the kernel what is free now: between trials, where others may need it."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None)
