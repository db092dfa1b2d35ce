"""torch's compiler stays out of our processes, and is all there for whoever asks for it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import searchft
from searchft.uncompiled import bare_step


def ask(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


TRAINING = """
import sys, torch
import searchft.train.fit, searchft.data.transforms, searchft.facts
from searchft.uncompiled import bare_step, timm, torchvision
model = timm.create_model("test_resnet", num_classes=3)
optimizer = torch.optim.AdamW([{"params": list(model.parameters())}], fused=True)
model(torch.rand(2, 3, 32, 32)).sum().backward()
bare_step(optimizer)()
optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules, "sympy" in sys.modules)
"""


def test_training_does_not_import_the_compiler() -> None:
    assert ask(TRAINING) == "False False"


def test_the_compiler_is_there_for_whoever_compiles() -> None:
    boxes = "torchvision.ops.roi_align(torch.rand(1, 3, 8, 8), torch.tensor([[0, 0.0, 0, 4, 4]]), 2).shape"
    later = (
        f"print(tuple({boxes}), tuple(torch.compile(model, backend='eager')(torch.rand(2, 3, 32, 32)).shape))\n"
        "import torch._dynamo.utils; print(sys.modules['torch._dynamo.utils'].__file__.endswith('utils.py'))"
    )
    assert ask(TRAINING + later).splitlines() == ["False False", "(1, 3, 2, 2) (2, 3)", "True"]


def test_a_compiler_that_was_imported_before_stays_as_it_is() -> None:
    code = (
        "import torch._dynamo as before, torch.compiler; disable = torch.compiler.disable\n"
        "from searchft.uncompiled import timm, torchvision\n"
        "import sys; print(sys.modules['torch._dynamo'] is before, torch.compiler.disable is disable)"
    )
    assert ask(code) == "True True"


def test_a_name_that_is_asked_for_meanwhile_is_the_compilers_own() -> None:
    code = (
        "import sys, searchft.uncompiled as u\n"
        "with u._without_compiler():\n"
        "    from torch._dynamo.utils import counters\n"
        "    from torch._dynamo import utils\n"
        "    import torch._dynamo.config\n"
        "print(counters is sys.modules['torch._dynamo.utils'].counters, type(utils).__name__, 'torch._dynamo.config' in sys.modules)"
    )
    assert ask(code) == "True module True"


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
        if path.name == "uncompiled.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & {"timm", "torchvision"}, f"{path}:{node.lineno}"
