"""The same with real networks: checkpoints with optimizers, the cache of frozen values and of decoded images."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

STORE = """
import os, sys
from pathlib import Path
import torch
from searchft import faults
from searchft.features.store import FeatureStore
torch.set_num_threads(1)

def compute(start, stop):
    return (torch.arange(start * 8, stop * 8, dtype=torch.float32).reshape(-1, 8),)

root = Path(sys.argv[1])
for point in ("store.writing", "store.writing:2", "cache.written", "cache.renamed"):
    child = os.fork()
    if child == 0:
        faults._FAULT, faults._ARMED = point, True
        FeatureStore(root / point, 1 << 20).values("ab" * 8, 600, compute)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9, point
    calls = []
    (values,) = FeatureStore(root / point, 1 << 20).values("ab" * 8, 600, lambda a, b: calls.append(a) or compute(a, b))
    assert torch.equal(values, compute(0, 600)[0]), point
    assert bool(calls) == (point != "cache.renamed"), point
    assert not [p for p in (root / point).glob(".building-*")], point
print("sound")
"""

IMAGES = """
import os, sys
from pathlib import Path
from searchft import faults
from searchft.data import open_images
from searchft.recipe import DataSettings
settings = DataSettings(source="orl_faces", split=(("train", 1), ("val", 1), ("test", 1)), image_size=16)
cache = Path(sys.argv[1])
for point in ("images.writing", "cache.written"):
    child = os.fork()
    if child == 0:
        faults._FAULT, faults._ARMED = point, True
        open_images(settings, cache)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
    assert [p for p in (cache / "images").glob(".building-*")]
images = open_images(settings, cache)
assert len(images.split("train").labels) == 40
assert not [p for p in (cache / "images").glob(".*")]
print("sound")
"""


@pytest.mark.parametrize("code", [STORE, IMAGES], ids=["frozen values", "images"])
def test_a_store_whose_writer_was_killed_at_any_point_is_sound(code, tmp_path):
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "sound\n", done.stderr


def assert_equals(here, real_whole):
    """In every number, and in every value of every trial's best weights. Not in their files: metadata's order is by chance."""
    from searchft.train.checkpoints import check_delta

    mine, theirs = (
        {str(p.relative_to(one.study)): check_delta(p) for p in one.study.glob("trials/*/best.safetensors")}
        for one in (here, real_whole)
    )
    here.assert_equals(real_whole.numbers())
    assert mine == theirs


@pytest.mark.slow
def test_every_point_of_a_real_worker(program, harness, real_whole):
    """Stores, checkpoints and epochs: killed once at each, the study and its best weights are the same, bit for bit."""
    here = program(text=harness.REAL, epoch_ms=0)
    for point in ("images.writing", "cache.written", "cache.renamed"):  # the driver decodes
        assert here.run(point).code == -9
    points = ["store.writing:1", "cache.written:1", "cache.renamed:1", "epoch.begun:2", "worker.epoch:3", "worker.done:1"]
    points += ["worker.locked:2", "checkpoint.best:2", "checkpoint.saved:4", "worker.sent:3", "worker.job:1"]
    faults = [f"{point}:self" for point in points]
    ended = here.run(",".join(faults))
    assert ended.code == 0, ended.err
    assert set(faults) <= here.struck()
    here.kills = len(faults)
    assert_equals(here, real_whole)


@pytest.mark.parametrize("kills", [pytest.param(3, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.exhaustive)])
def test_kills_of_the_real_program_at_random_times(kills, program, harness, real_whole):
    here, chance = program(text=harness.REAL, epoch_ms=0), random.Random(5)
    for i in range(kills):
        harness.kill_at(here, chance.uniform(1.0, 14.0), ("driver", "worker", "both", "group")[i % 4])
    here.finish()
    assert_equals(here, real_whole)
