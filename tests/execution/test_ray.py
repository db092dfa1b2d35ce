"""Ray for real: clusters of several nodes on this machine, whose processes are ended as a power cut would."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from searchft.errors import InputError
from searchft.execution.local import LocalExecutor, Slot
from searchft.execution.protocol import CONTINUE, EpochDone, Job, JobDone, JobFailed, WorkerDied, WorkerSetup
from tests.execution.grid import Grid, await_that, epochs_begun, run_with_losses
from tests.resilience import harness

pytestmark = [pytest.mark.ray, pytest.mark.slow]

pytest.importorskip("ray", reason="NOT RUN: needs Ray")

from searchft.execution import ray_executor  # noqa: E402
from searchft.execution.ray_executor import RayExecutor, start_on_ray  # noqa: E402

PATIENCE_S = 180.0

Trained = tuple[Path, list[list[dict[str, Any]]]]


@pytest.fixture
def make_grid(tmp_path: Path) -> Iterator[Callable[..., Grid]]:
    """`make_grid(nodes=2)`: a cluster whose head has no CPU for workers."""
    made: list[Grid] = []

    def make(**settings: Any) -> Grid:
        made.append(Grid(tmp_path / "nodes", **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def on_ray() -> Iterator[Callable[..., RayExecutor]]:
    """`on_ray(grid, workers, said)`: an executor connected to that cluster; what people must know goes to the list `said`."""
    made: list[RayExecutor] = []

    def make(grid: Grid, workers: int = 1, said: list[str] | None = None) -> RayExecutor:
        made.append(start_on_ray(grid.address, workers, None, (said if said is not None else []).append))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


# Real networks --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Ground:
    """What both executors get, and different recipes with their keys."""

    setup: WorkerSetup
    recipes: tuple[Any, ...]
    keys: tuple[str, ...]

    def job(self, number: int, folder: Path) -> Job:
        return Job(number, self.recipes[number], self.keys[number], str(folder / f"{number:04d}"))


def ground_of(text: str, cache: Path, *chosen: dict[str, Any]) -> Ground:
    from searchft.facts import describe
    from searchft.space import parse_space

    space = parse_space(text)
    facts, images = describe(space, cache)
    setup = WorkerSetup(facts.to_json(), str(images.folder), space.data.image_size, str(cache / "features"), 1 << 30)
    recipes = tuple(space.resolve({"dropout": 0.5, "lr": 3e-3, **one}) for one in chosen)
    return Ground(setup, recipes, tuple(recipe.key(facts) for recipe in recipes))


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    chosen = ({"unfrozen": "head", "head_widths": (32,)}, {"unfrozen": "layer4", "head_widths": ()})
    return ground_of(harness.REAL, tmp_path_factory.mktemp("drivers-cache"), *chosen)


@pytest.fixture(scope="session")
def locally(faces: Ground, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """What a local worker makes of the recipes of `faces`: their trials' folder, and their epochs."""
    folder = tmp_path_factory.mktemp("locally")
    executor = LocalExecutor([Slot("cpu", 1)])
    try:
        executor.start(faces.setup)
        return folder, [curve_of(executor, faces.job(number, folder)) for number in range(len(faces.recipes))]
    finally:
        executor.close()


def receive(executor: Any) -> list[Any]:
    """The driver's next messages."""
    deadline = time.monotonic() + PATIENCE_S
    while not (messages := executor.wait(0.5)):
        assert time.monotonic() < deadline, "no message"
    return [message for _, message in messages]


def free_slot(executor: Any, slots: tuple[int, ...] = (0,)) -> None:
    """Waits until one of the slots accepts a trial."""
    deadline = time.monotonic() + PATIENCE_S
    while not any(executor.accepts(slot, 0) for slot in slots):
        assert time.monotonic() < deadline, "no worker became ready"
        executor.wait(0.2)


def curve_of(executor: Any, job: Job, died: Callable[[int], None] = lambda epoch: None) -> list[dict[str, Any]]:
    """Trains a job to its end, wherever its worker dies; its epochs, each once. `died` is called after each that was received."""
    free_slot(executor)
    executor.submit(0, job)
    epochs: dict[int, dict[str, Any]] = {}
    while True:
        for message in receive(executor):
            if isinstance(message, EpochDone):
                result = {k: v for k, v in message.result.items() if k not in ("seconds", "stored_s", "replayed")}
                epoch = int(result["epoch"])
                assert epochs.setdefault(epoch, result) == result
                died(epoch)
                executor.answer(0, CONTINUE)
            elif isinstance(message, WorkerDied):
                assert message.number in (job.number, None)
                free_slot(executor)
                executor.submit(0, job)
            else:
                assert message == JobDone(job.number), message
                return [epochs[epoch] for epoch in sorted(epochs)]


def weights_in(folder: Path, number: int) -> dict[str, str]:
    """The metadata of a trial's best weights: epoch, key, and the digest of all values, checked."""
    from searchft.train.checkpoints import check_delta

    return check_delta(folder / f"{number:04d}" / "best.safetensors")


def test_results_equal_a_local_workers(
    faces: Ground, locally: Trained, make_grid: Any, on_ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: curves, best weights. The node has neither the driver's images nor its cache folder."""
    true_needs = ray_executor.find_needs

    def elsewhere(setup: WorkerSetup) -> Any:
        needs = true_needs(setup)
        path = Path("/another/machine", *Path(setup.images).parts[-2:])
        return dataclasses.replace(needs, setup=dataclasses.replace(setup, images=str(path)))

    monkeypatch.setattr(ray_executor, "find_needs", elsewhere)
    grid = make_grid(nodes=1)
    executor = on_ray(grid)
    executor.start(faces.setup)
    for number in range(len(faces.recipes)):
        assert curve_of(executor, faces.job(number, tmp_path)) == locally[1][number]
        assert weights_in(tmp_path, number) == weights_in(locally[0], number)
    cache = grid.nodes[0].cache
    assert list(cache.glob("images/*/pixels.bin")) and list((cache / "features").iterdir())
    assert not list(cache.glob("ray/*/0*")), "a finished trial's folder is left on the node"
    (line,) = executor.devices
    assert line.startswith("node ") and line.endswith("cpu (1 thread)")


def test_a_checkpoint_of_one_node_goes_on_on_another(
    faces: Ground, locally: Trained, make_grid: Any, on_ray: Any, tmp_path: Path
) -> None:
    grid = make_grid(nodes=2)
    executor = on_ray(grid)
    executor.start(faces.setup)
    where: list[Any] = []

    def lose(epoch: int) -> None:
        if epoch == len(where) + 1 and epoch < 3:
            where.append(grid.busy_node())
            grid.kill(where[-1], "node")
            if epoch == 2:
                grid.add()  # the second loss leaves nobody: a new one joins

    assert curve_of(executor, faces.job(1, tmp_path), lose) == locally[1][1]
    assert len(where) == 2
    assert weights_in(tmp_path, 1) == weights_in(locally[0], 1)


# Errors ---------------------------------------------------------------------------------------------------------------

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(4, classes)

    def forward(self, x):
        if x.shape[0] == 20 and float(x.sum()) > -1e30:  # always in training, in a way that no tracer sees through
            raise RuntimeError("twenty is too much for me")
        return self.fc(self.body(x))
"""


def test_errors_of_user_code_read_as_local_ones_do(
    make_grid: Any, on_ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kind, words and traceback are the same; a node without the file is named, before a trial is lost to it."""
    from searchft.models.backbones import PERMISSION

    (tmp_path / "net.py").write_text(NET)
    monkeypatch.setenv(PERMISSION, str(tmp_path))
    text = harness.REAL.replace("torchvision/resnet18", "python:net.py:Net").replace("[head, layer4]", "[all]")
    ground = ground_of(text, tmp_path / "cache", {"head_widths": ()})
    grid = make_grid(nodes=1)
    failures = []
    for executor in (LocalExecutor([Slot("cpu", 1)]), on_ray(grid)):
        try:
            executor.start(ground.setup)
            free_slot(executor)
            executor.submit(0, ground.job(0, tmp_path / type(executor).__name__))
            failures += receive(executor)
        finally:
            executor.close()
    local, remote = failures
    assert isinstance(local, JobFailed) and local.kind == "error" and "twenty is too much" in local.message
    assert remote == local and "net.py" in remote.traceback

    monkeypatch.setenv(PERMISSION, "/another/machine")
    executor = on_ray(grid)
    with pytest.raises(
        InputError, match=r"no worker can train.*a Python file that exists but /another/machine/net.py does not"
    ):
        executor.start(ground.setup)
        free_slot(executor)


def test_workers_that_wait_for_a_place_are_named(
    faces: Ground, make_grid: Any, on_ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "NOTICE_AFTER_S", 0.5)
    said: list[str] = []
    grid = make_grid()
    executor = on_ray(grid, 2, said)
    executor.start(faces.setup)
    assert not executor.accepts(0, 0)
    assert said == ["2 of 2 workers wait for a place: each asks for 1 CPU, the cluster has 0 CPUs and 0 GPUs on 1 node"]
    grid.add()
    free_slot(executor, (0, 1))
    assert sum(line.startswith("node ") for line in executor.devices) == 1


# The whole program ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The numbers of the analytic study with one local worker, uninterrupted."""
    uninterrupted = harness.Program(tmp_path_factory.mktemp("whole"))
    uninterrupted.finish()
    return uninterrupted.numbers()


def test_a_study_survives_the_loss_of_nodes_and_workers(make_grid: Any, program: Any, whole: list[Any]) -> None:
    """With one worker every number equals the uninterrupted local study's, whatever was killed; the terminal stays ours."""
    grid = make_grid(nodes=2)
    here = program(epoch_ms=150, options=("--ray", grid.address, "--workers", "1"))
    struck = run_with_losses(grid, here, ("worker", "raylet", "added", "node"))
    assert struck == 3
    assert here.numbers() == whole
    nothing_doubled(here)
    words = [line for line in here.said.splitlines() if line.startswith("warning: trial")]
    assert len(words) == 3 and all("it goes on from its checkpoint" in line for line in words)
    assert not [word for word in ("raylet", "Traceback", "WARN", "INFO", "GCS") if word in here.said], here.said


def test_two_workers_lose_nothing_either(make_grid: Any, program: Any) -> None:
    grid = make_grid(nodes=2)
    here = program(epoch_ms=150, options=("--ray", grid.address, "--workers", "2"))
    run_with_losses(grid, here, ("node", "worker", "raylet"))
    records = [r for r in here.records() if r.answered_from is None]
    assert len(records) == 16 and all(r.finished and r.state != "failed" for r in records)
    nothing_doubled(here)
    assert not here.processes()


def nothing_doubled(program: Any) -> None:
    """At most the epoch under way was lost each time: what the driver had received was never begun again."""
    received = set()
    for point, _, detail in program.passed():
        if point == "driver.received":
            received.add(detail)
        assert point != "epoch.begun" or detail not in received, f"epoch {detail} was computed again"
    assert program.recomputed() <= program.kills
    assert not list(program.study.glob("trials/*/last.ckpt")) and not list(program.study.rglob("*.part"))
    assert not program.processes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_driver_leaves_no_worker_and_its_study_goes_on(number: int, make_grid: Any, program: Any, whole: Any) -> None:
    """Ctrl-C within ten seconds, with a word; SIGKILL without."""
    grid = make_grid(nodes=1)
    here = program(epoch_ms=150, options=("--ray", grid.address, "--workers", "1"))
    process = here.start()
    await_that(lambda: epochs_begun(here) >= 5)
    started = time.monotonic()
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=30)
    if number == signal.SIGINT:
        assert process.returncode == 130 and time.monotonic() - started < 10 and "nothing is lost" in err, err
    here.kills += 1
    await_that(lambda: not grid.workers(grid.nodes[0]), 30)
    here.finish()
    assert here.numbers() == whole
    nothing_doubled(here)


def test_a_lost_head_node_is_named_and_the_study_goes_on(make_grid: Any, program: Any, whole: list[Any]) -> None:
    grid = make_grid(nodes=1)
    here = program(epoch_ms=5000, options=("--ray", grid.address, "--workers", "1"))
    process = here.start()
    await_that(lambda: epochs_begun(here) >= 2)
    os.kill(grid.cluster.head_node.all_processes["gcs_server"][0].process.pid, signal.SIGKILL)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 4 and f"the head node of the Ray cluster ({grid.address}) is gone" in err, (out, err)
    here.kills, here.epoch_ms, here.options = 1, 1.0, ()
    here.finish()  # without Ray: it is the same study
    assert here.numbers() == whole
    nothing_doubled(here)


def test_ray_is_started_where_none_runs(program: Any, whole: list[Any]) -> None:
    import ray

    if ray.is_initialized() or os.environ.get("RAY_ADDRESS"):
        pytest.skip("NOT RUN: Ray runs here")
    here = program(options=("--ray", "--workers", "1"))
    here.finish()
    here.assert_equals(whole)


FROM_PYTHON = """
import sys, searchft
study = searchft.run(sys.argv[1], studies=sys.argv[2], ray=sys.argv[3], workers=1)
print(study.why)
"""


def test_from_python_too(make_grid: Any, program: Any, whole: list[Any]) -> None:
    grid, here = make_grid(nodes=1), program()
    words = [sys.executable, "-c", FROM_PYTHON, str(here.space), str(here.folder / "studies"), grid.address]
    done = subprocess.run(words, env=here.environ(), cwd=here.folder, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["trials"], done.stderr
    here.assert_equals(whole)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ray", "127.0.0.1:9"), "nobody answers at 127.0.0.1:9"),
        (("--ray", "--devices", "cpu"), "--devices: must not stand beside --ray"),
        (("--gpus-per-worker", "0.5"), "--gpus-per-worker: has a meaning only with --ray"),
    ],
)
def test_wrong_options_end_at_once(options: tuple[str, ...], words: str, program: Any) -> None:
    here = program(options=options)
    ended = here.run()
    assert ended.code == 2 and words in ended.err, ended.err
    assert ended.err.count("\n") <= 2 and not here.study.exists()
