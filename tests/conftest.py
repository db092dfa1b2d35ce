"""A small study with every kind of trial, on real images with a real network: what the upper rooms show, report and export.

It is built once for all test processes, without the driver: trials are written through the Ledger, weights trained by a few
plain steps. Tests that change a study take a copy (`study_copy`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import filelock
import pytest

import tests.resilience.harness

SPACE = """
study: faces
data:
  source: orl_faces
  split: {train: 2, val: 3, test: 5, seed: 0}
  image_size: 32
recipe:
  backbone: torchvision/resnet18
  weights: none
  edits: {conv1.stride: 1}
  unfrozen: [head, layer4]
  head_widths: [[], [256]]
  dropout: [0.0, 0.5]
  batch_size: 16
  lr: [1e-3, 3e-4]
  lr_multipliers: {top: [1.0, 0.6]}
  epochs: 2
  precision: fp32
search:
  trials: 9
  enqueue:
    - {name: Baseline, unfrozen: head, head_widths: []}
"""


@dataclass(frozen=True)
class SmallStudy:
    """The study `faces` in a folder of studies."""

    studies: Path

    @property
    def folder(self) -> Path:
        return self.studies / "faces"


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of one run of the tests share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def shared_cache(common: Path) -> Iterator[Path]:
    """A cache folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEARCHFT_CACHE", str(common / "cache"))
        yield common / "cache"


@pytest.fixture(scope="session")
def small_study(common: Path, shared_cache: Path) -> SmallStudy:
    """Trials: 0 Baseline complete, 1 complete and best, 2 pruned, 3 answered from 1, 4 failed, 5 running. Read only."""
    studies = common / "studies"
    with filelock.FileLock(common / "studies.lock"):
        if not studies.exists():
            write_small_study(studies / "faces", shared_cache)
    return SmallStudy(studies)


def write_small_study(folder: Path, cache: Path) -> None:
    from searchft.facts import describe
    from searchft.recipe import KEY_VERSION
    from searchft.search.ledger import Ledger
    from searchft.search.suggest import Suggestion
    from searchft.space import parse_space

    space = parse_space(SPACE)
    facts, images = describe(space, cache)
    folder.mkdir(parents=True)

    def suggestion(name: str = "", **chosen: object) -> Suggestion:
        recipe = space.resolve(chosen)
        active = {n: c for n, c in chosen.items() if space.is_active(n, chosen, facts)}
        return Suggestion(active, recipe, recipe.key(facts), name)

    best = suggestion(unfrozen="layer4", head_widths=(256,), dropout=0.5, lr=1e-3)
    trials = [
        suggestion("Baseline", unfrozen="head", head_widths=(), lr=1e-3),
        best,
        suggestion(unfrozen="layer4", head_widths=(), lr=3e-4),
        best,
        suggestion(unfrozen="head", head_widths=(), lr=3e-4),
        suggestion(unfrozen="head", head_widths=(256,), dropout=0.0, lr=1e-3),
    ]
    with Ledger.open("", "faces", folder, create=True) as ledger:
        ledger.pin(space, facts, {"key_version": KEY_VERSION})
        for number, trial in enumerate(trials):
            if number == 3:
                ledger.answer(trial, 3, next(r for r in ledger.records() if r.number == 1))
                continue
            ledger.start(trial, number)
            if number < 2:
                for epoch, value in enumerate((0.05, 0.1 + 0.4 * number), start=1):
                    ledger.report(number, epoch, value)
                extra = {"train_accuracy": 0.75, "best_epoch": 2, "trained_parameters": 1000 + number}
                extra["curves"] = {"train_loss": [3.0, 3.0], "seconds": [1.5, 1.5]}
                ledger.finish(number, "complete", 0.1 + 0.4 * number, extra=extra)
                save_delta(trial.recipe, facts, images, folder / "trials" / f"{number:04d}" / "best.safetensors", trial.key)
            elif number == 2:
                ledger.report(number, 1, 0.025)
                ledger.finish(number, "pruned", reason="below the median", extra={"curves": {"seconds": [1.5]}})
            elif number == 4:
                ledger.finish(number, "failed", reason="the training loss became nan")


@pytest.fixture
def study_copy(small_study: SmallStudy, tmp_path: Path) -> SmallStudy:
    """A copy that a test may change."""
    shutil.copytree(small_study.studies, tmp_path / "studies")
    return SmallStudy(tmp_path / "studies")


@pytest.fixture(scope="session")
def harness() -> ModuleType:
    """What runs the real program and kills it."""
    return tests.resilience.harness


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`program("name", text=…)`: the program in a folder of that name. Whatever still runs is ended after the test."""
    made: list[tests.resilience.harness.Program] = []

    def make(name: str = "here", **settings: Any) -> Any:
        made.append(tests.resilience.harness.Program(tmp_path / name, **settings))
        return made[-1]

    yield make
    for process in [process for one in made for process in one.processes()]:
        process.kill()


@pytest.fixture(scope="session")
def write_delta() -> Callable[..., None]:
    """`save_delta`, for tests that build trials of their own."""
    return save_delta


def save_delta(recipe, facts, images, path: Path, key: str = "", steps: int = 25) -> None:  # type: ignore[no-untyped-def]
    """Trains some plain steps and writes what they changed, as a trial does."""
    import torch
    from safetensors.torch import save_file

    from searchft.data.transforms import Preprocess
    from searchft.models import build_model, freeze, set_modes
    from searchft.recipe import open_parameters

    backbone = facts.backbones[recipe.architecture()]
    opening = open_parameters(recipe, backbone)
    model = build_model(recipe, backbone, len(facts.data.classes), head_seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    freeze(model, backbone, opening)
    set_modes(model, backbone, opening, True)
    train = images.split("train")
    preprocess = Preprocess(backbone.mean, backbone.std, train.images.shape[1])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    torch.manual_seed(0)
    for _ in range(steps):
        chosen = torch.randperm(len(train.labels))[:24]
        logits = model(preprocess(torch.from_numpy(train.images[chosen.numpy()])))
        logits = logits if isinstance(logits, torch.Tensor) else logits.logits  # beside auxiliary ones
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(train.labels[chosen.numpy()])).backward()
        optimizer.step()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    after = model.state_dict()
    delta = {n: t.clone() for n, t in after.items() if n in trained or not torch.equal(t, before[n])}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(delta, path, metadata={"key": key or recipe.key(facts), "epoch": "2"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests begin first, so that no process waits for one at the end. Ray's stand apart from one another among them: only one
    may run at a time, and a process that waits for another's does nothing."""
    quick, rays, others = [], [], []
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        (rays if "ray" in marks else others if marks & {"slow", "exhaustive"} else quick).append(item)
    for number, item in enumerate(rays):
        others.insert(number * ((len(others) + len(rays)) // len(rays)), item)
    items[:] = others + quick


@pytest.fixture(autouse=True)
def one_cluster(request: pytest.FixtureRequest, common: Path) -> Iterator[None]:
    """Ray's tests run one at a time, in whatever process: one of them must find no other cluster on this machine."""
    alone = request.node.get_closest_marker("ray")
    with filelock.FileLock(common / "ray.lock") if alone else contextlib.nullcontext():
        yield
