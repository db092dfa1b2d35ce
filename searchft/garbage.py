"""Python's garbage collector, for programs that import torch.

torch, torchvision, timm and Optuna make some two million objects that live until the end. Looking for garbage among them as often as
Python does by default, and once more when it leaves, takes over a third of the time of importing them and leaving again: 8.0 s
with, 4.7 s without (one run of tests/benchmarks/small_gains.py, 2-core x86-64).
Called first thing by every process of ours.
"""

from __future__ import annotations

import gc


def collect_rarely() -> None:
    """Looks for garbage after 100,000 new objects, among all objects after 200 million (Python: 700 and 70,000)."""
    gc.set_threshold(100_000, 20, 100)


def leave_quickly() -> None:
    """Spares the objects that live now the last look for garbage, which the leaving interpreter takes."""
    gc.freeze()
