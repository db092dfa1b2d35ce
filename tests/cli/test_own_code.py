"""A network of the user's own, from `plan` to a finished study: with --allow-code, and not without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SPACE = """
study: own
data: {source: orl_faces, split: {train: 2, val: 1, test: 1}, image_size: 64}
recipe:
  backbone: ["python:net.py:Net", torchvision/googlenet]
  weights: none
  unfrozen: all
  auxiliary: [false, true]
  precision: fp32
  epochs: 1
search:
  trials: 3
  pruner: none
  enqueue:
    - {name: mine}
    - {name: GoogLeNet, backbone: torchvision/googlenet}
    - {name: GoogLeNet with auxiliary heads, backbone: torchvision/googlenet, auxiliary: true}
"""
NET = """
from torch import nn

def Net(num_classes):
    return nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, num_classes))
"""


def searchft(*arguments: str, cwd: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SEARCHFT_CACHE": str(cache)}
    environment.pop("SEARCHFT_ALLOW_CODE", None)
    command = [sys.executable, "-m", "searchft", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_code_runs_only_where_it_was_allowed_and_in_the_workers_too(tmp_path: Path, shared_cache: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "net.py").write_text(NET)
    refused = searchft("run", "space.yaml", cwd=tmp_path, cache=shared_cache)
    assert refused.returncode == 2 and "--allow-code" in refused.stderr and not (tmp_path / "studies").exists()
    assert searchft("plan", "space.yaml", "--no-timing", cwd=tmp_path, cache=shared_cache).returncode == 2

    planned = searchft("plan", "space.yaml", "--no-timing", "--allow-code", cwd=tmp_path, cache=shared_cache)
    assert planned.returncode == 0 and "python:net.py:Net" in planned.stdout
    done = searchft("run", "space.yaml", "--allow-code", "--json", "--quiet", cwd=tmp_path, cache=shared_cache)
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)["trials"]
    names = ("mine", "GoogLeNet", "GoogLeNet with auxiliary heads")
    assert {trial["name"]: trial["state"] for trial in trials} == dict.fromkeys(names, "complete")
    assert len({trial["key"] for trial in trials}) == 3
