"""Freed memory stays with a process until it is given back; a bare step is the optimiser's."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from searchft.tuning import bare_step


def answer(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_a_bare_step_is_the_optimisers_step(kind: type[torch.optim.Optimizer]) -> None:
    def trained(bare: bool) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
        optimizer = kind([weight], lr=0.1, weight_decay=0.01, fused=True)  # type: ignore[call-arg]
        step = bare_step(optimizer) if bare else optimizer.step
        for scale in (1.0, 2.0, 3.0):
            optimizer.zero_grad()
            (weight * scale).square().sum().backward()
            step()
        return weight.detach()

    assert torch.equal(trained(True), trained(False))


MEMORY = """
import psutil, torch
from searchft.tuning import give_back_memory, keep_freed_memory
keep_freed_memory()
rss = lambda: psutil.Process().memory_info().rss >> 20
before = rss()
block = torch.ones(64 << 20)
del block
kept = rss() - before
give_back_memory()
print(kept, rss() - before)
"""


def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    if answer("from searchft.tuning import keep_freed_memory; print(keep_freed_memory())") == "False":
        pytest.skip("needs glibc")
    kept, left = map(int, answer(MEMORY).split())
    assert kept > 200 and left < 50
