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


DIVERGING = {
    "unfrozen": "head",
    "head_widths": "{choices: [[16, 16, 16, 16]]}",
    "head_activation": "none",
    "dropout": "0.0",
    "optimizer": "sgd",
    "epochs": "8",
}
"""Plain SGD at a rate of 100 on a product of five matrices."""


def text_of(harness, *lines, **replaced):
    text = harness.REAL
    for old, new in replaced.items():
        text = text.replace(f"  {old}:", f"  # was {old}:").replace("recipe:\n", f"recipe:\n  {old}: {new}\n", 1)
    return text + "".join(lines)


def test_a_loss_that_is_no_number(program, harness):
    here = program(text=text_of(harness, lr="[1e-3, 100]", **DIVERGING), epoch_ms=0)
    ended = here.run()
    assert ended.code == 0, ended.err
    first, second = sorted(here.records(), key=lambda r: r.state)
    assert (first.state, second.state) == ("complete", "failed")
    assert "training loss became" in second.reason and not second.infeasible
    assert "Traceback" not in ended.err


def test_nothing_completed_is_exit_3(program, harness):
    here = program(text=text_of(harness, lr="100", **DIVERGING), epoch_ms=0)
    ended = here.run("", "--json")
    assert ended.code == 3, ended.err
    assert '"kind": "nothing-completed"' in ended.out
    assert here.run("", "real", verb="show").code == 0


def test_an_exception_in_user_code(program, harness):
    """One line on the screen, the traceback in the study, and the other network's trials complete."""
    text = text_of(harness, backbone="[torchvision/resnet18, 'python:own.py:broken']", unfrozen="head", head_widths="[[]]")
    here = program(text=text, epoch_ms=0, options=("--allow-code",))
    (here.folder / "own.py").write_text(
        "import os, torch\n"
        "class Broken(torch.nn.Module):\n"
        "    def __init__(self, classes):\n"
        "        super().__init__()\n"
        "        self.body = torch.nn.Conv2d(3, 8, 3)\n"
        "        self.fc = torch.nn.Linear(8, classes)\n"
        "    def forward(self, x):\n"
        "        y = self.fc(self.body(x).mean((2, 3)))\n"
        "        if 'spawn_main' in open('/proc/self/cmdline').read():\n"
        "            raise KeyError('a user mistake')\n"
        "        return y\n"
        "def broken(classes):\n"
        "    return Broken(classes)\n"
    )
    ended = here.run()
    assert ended.code == 0, ended.err
    failed = [r for r in here.records() if r.state == "failed"]
    assert failed and all("a user mistake" in r.reason for r in failed)
    assert all("own.py" in r.extra["traceback"] for r in failed)
    assert any(r.state == "complete" for r in here.records())
    assert "Traceback" not in ended.err and ended.err.count("a user mistake") <= 3 * len(failed)


def limited(here, soft_bytes):
    """Starts the program under a real limit of its address space."""
    return here.start(before=lambda: resource.setrlimit(resource.RLIMIT_AS, (soft_bytes, soft_bytes)))


@pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: RLIMIT_AS is not enforced here")
def test_an_allocators_refusal_marks_the_recipe_infeasible(program, harness):
    """A head of 2 × 64 million parameters under a limit that the plain head fits into."""
    here = program(text=text_of(harness, head_widths="[[], [60000, 60000]]", unfrozen="head", dropout="0.0"), epoch_ms=0)
    process = limited(here, 9 << 30)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    records = here.records()
    refused = [r for r in records if r.recipe.head_widths]
    assert refused and all(
        r.state == "failed" and r.infeasible and "out of memory" in r.reason for r in refused if r.answered_from is None
    )
    assert any(r.state == "complete" for r in records)
    assert "Traceback" not in err


@pytest.mark.skipif(
    not os.access(MEMORY, os.W_OK) or os.geteuid() != 0,
    reason="NOT RUN: no memory cgroup (version 1) to write to on this machine",
)
def test_the_kernels_kill_marks_the_recipe_infeasible(program, harness):
    """A cgroup of 1.6 GB; the wide head's optimiser does not fit, and the kernel ends the worker without a word."""
    group = MEMORY / f"searchft-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(1600 << 20))
        here = program(
            text=text_of(harness, head_widths="[[], [16000, 16000]]", unfrozen="head", dropout="0.0", optimizer="adam"),
            epoch_ms=0,
        )
        process = here.start(before=lambda: (group / "cgroup.procs").write_text(str(os.getpid())))
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        killed = [r for r in here.records() if r.recipe.head_widths and r.answered_from is None]
        assert killed and all(r.infeasible and "the kernel ended its worker" in r.reason for r in killed)
        assert any(r.state == "complete" for r in here.records())
    finally:
        for process in here.processes():
            process.kill()
            process.wait(5)
        group.rmdir()
