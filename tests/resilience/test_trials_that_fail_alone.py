"""What goes wrong in one trial stays there: its reason is kept, the others go on, and the exit code says what came of it."""

from __future__ import annotations

import os
import resource
import sys
import uuid
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MEMORY = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def real(program, harness):
    """`real(lr=…)`: the real program with other fields in its recipe."""

    def make(options=(), **recipe):
        text = harness.REAL
        for old, new in recipe.items():
            text = text.replace(f"  {old}:", f"  # was {old}:").replace("recipe:\n", f"recipe:\n  {old}: {new}\n", 1)
        return program(text=text, epoch_ms=0, options=options)

    return make


def test_a_loss_that_is_no_number_and_a_study_of_nothing_else(real):
    """Plain SGD at a rate of 100 on a product of five matrices."""
    head = {"unfrozen": "head", "head_widths": "{choices: [[16, 16, 16, 16]]}", "head_activation": "none", "dropout": "0.0"}
    here = real(lr="[1e-3, 100]", optimizer="sgd", epochs="8", **head)
    ended = here.finish()
    first, second = sorted(here.records(), key=lambda r: r.state)
    assert (first.state, second.state) == ("complete", "failed")
    assert "training loss became" in second.reason and not second.infeasible
    assert "Traceback" not in ended.err
    ended = here.run("", "--json", "--fresh", "--set", "recipe.lr=100")
    assert ended.code == 3 and '"kind": "nothing-completed"' in ended.out, ended.err
    assert here.run("", "real", verb="show").code == 0


OWN = """
import torch
class Broken(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = torch.nn.Conv2d(3, 8, 3)
        self.fc = torch.nn.Linear(8, classes)
    def forward(self, x):
        if 'spawn_main' in open('/proc/self/cmdline').read():
            raise KeyError('a user mistake')
        return self.fc(self.body(x).mean((2, 3)))
def broken(classes):
    return Broken(classes)
"""


def test_an_exception_in_user_code(real):
    """One line on the screen, the traceback in the study, and the other network's trials complete."""
    backbones = "[torchvision/resnet18, 'python:own.py:broken']"
    here = real(("--allow-code",), backbone=backbones, unfrozen="head", head_widths="[[]]")
    (here.folder / "own.py").write_text(OWN)
    ended = here.finish()
    failed = [r for r in here.records() if r.state == "failed"]
    assert failed and all("a user mistake" in r.reason and "own.py" in r.extra["traceback"] for r in failed)
    assert any(r.state == "complete" for r in here.records())
    assert "Traceback" not in ended.err and ended.err.count("a user mistake") <= 3 * len(failed)


def assert_infeasible(here, prepare, reason):
    """The run ends in order; the wide heads fail, all of them, and something else completes."""
    assert "Traceback" not in here.end_of(here.start(preexec_fn=prepare)).err
    records = here.records()
    wide = [r for r in records if r.recipe.head_widths and r.answered_from is None]
    assert wide and all(r.state == "failed" and r.infeasible and reason in r.reason for r in wide)
    assert any(r.state == "complete" for r in records)


@pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: RLIMIT_AS is not enforced here")
def test_an_allocators_refusal_marks_the_recipe_infeasible(real):
    """A head of 3.6 billion parameters under a limit of the address space that the plain head fits into."""
    here = real(head_widths="[[], [60000, 60000]]", unfrozen="head", dropout="0.0")
    assert_infeasible(here, lambda: resource.setrlimit(resource.RLIMIT_AS, (9 << 30, 9 << 30)), "out of memory")


@pytest.mark.skipif(
    not os.access(MEMORY, os.W_OK) or os.geteuid() != 0,
    reason="NOT RUN: no memory cgroup (version 1) to write to on this machine",
)
def test_the_kernels_kill_marks_the_recipe_infeasible(real):
    """A cgroup of 1.6 GB; the wide head's optimiser does not fit, and the kernel ends the worker without a word."""
    group = MEMORY / f"searchft-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    here = real(head_widths="[[], [16000, 16000]]", unfrozen="head", dropout="0.0", optimizer="adam")
    try:
        (group / "memory.limit_in_bytes").write_text(str(1600 << 20))
        assert_infeasible(here, lambda: (group / "cgroup.procs").write_text(str(os.getpid())), "the kernel ended its worker")
    finally:
        for process in here.processes():
            process.kill()
            process.wait(5)
        group.rmdir()
