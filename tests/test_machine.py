"""Freed memory stays with a process until it is given back."""

from __future__ import annotations

import subprocess
import sys

import pytest

MEMORY = """
import psutil, torch
from searchft.machine import give_back_memory, keep_freed_memory
can = keep_freed_memory()
rss = lambda: psutil.Process().memory_info().rss >> 20
before = rss()
block = torch.ones(64 << 20)
del block
kept = rss() - before
give_back_memory()
print(can, kept, rss() - before)
"""


def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    can, kept, left = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout.split()
    if can == "False":
        pytest.skip("needs glibc")
    assert int(kept) > 200 and int(left) < 50
