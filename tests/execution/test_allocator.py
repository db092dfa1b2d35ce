"""Freed memory stays with the process until it is given back."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import psutil
from searchft.execution.allocator import give_back_memory, keep_freed_memory
if not keep_freed_memory():
    raise SystemExit(3)
import torch
rss = lambda: psutil.Process().memory_info().rss >> 20
before = rss()
block = torch.ones(64 << 20)
del block
kept = rss() - before
give_back_memory()
print(kept, rss() - before)
"""


def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("needs glibc")
    kept, left = map(int, done.stdout.split())
    assert kept > 200 and left < 50
