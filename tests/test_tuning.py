"""torch's compiler stays out of our processes, and is all there for whoever asks for it; freed memory stays until it is given back."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import searchft
from searchft.tuning import bare_step


def answer(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


TRAINING = """
import sys, torch
import searchft.train.fit, searchft.data.transforms, searchft.facts
from searchft.tuning import bare_step, timm, torchvision
model = timm.create_model("test_resnet", num_classes=3)
optimizer = torch.optim.AdamW([{"params": list(model.parameters())}], fused=True)
model(torch.rand(2, 3, 32, 32)).sum().backward()
bare_step(optimizer)()
optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules, "sympy" in sys.modules)
"""
COMPILING = """
boxes = torchvision.ops.roi_align(torch.rand(1, 3, 8, 8), torch.tensor([[0, 0.0, 0, 4, 4]]), 2)
print(tuple(boxes.shape), tuple(torch.compile(model, backend='eager')(torch.rand(2, 3, 32, 32)).shape))
import torch._dynamo.utils; print(sys.modules['torch._dynamo.utils'].__file__.endswith('utils.py'))
"""
IMPORTED_BEFORE = """
import sys, torch._dynamo as before, torch.compiler; disable = torch.compiler.disable
from searchft.tuning import timm, torchvision
print(sys.modules['torch._dynamo'] is before, torch.compiler.disable is disable)
"""
ANOTHER_NAME = """
import sys, searchft.tuning as t
with t._without_compiler():
    from torch._dynamo.utils import counters
    import torch._dynamo.config
print(counters is sys.modules['torch._dynamo.utils'].counters, 'torch._dynamo.config' in sys.modules)
"""


def test_training_does_not_import_the_compiler_and_whoever_compiles_finds_it() -> None:
    assert answer(TRAINING + COMPILING).splitlines() == ["False False", "(1, 3, 2, 2) (2, 3)", "True"]


@pytest.mark.parametrize("code", [IMPORTED_BEFORE, ANOTHER_NAME])
def test_the_compiler_is_its_own_for_whoever_asks_for_it(code: str) -> None:
    assert answer(code) == "True True"


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


def test_torchvision_and_timm_are_taken_from_there_only() -> None:
    for path in Path(searchft.__file__).parent.rglob("*.py"):
        if path.name == "tuning.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & {"timm", "torchvision"}, f"{path}:{node.lineno}"


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
