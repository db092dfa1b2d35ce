"""What a worker makes of its jobs: errors sorted into kinds, a folder that an orphan still holds, dying with the driver."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from searchft.errors import InputError, StorageError
from searchft.execution import worker
from searchft.execution.local import LocalExecutor, Slot
from searchft.execution.protocol import CONTINUE, STOP, EpochDone, Job, JobDone, JobFailed, WorkerDied, WorkerSetup
from searchft.files import replacing
from searchft.recipe import Recipe
from searchft.train.results import DivergedError
from tests.analytic import epoch_result


def job_in(folder: Path) -> Job:
    return Job(7, Recipe("torchvision/resnet18"), "ab" * 10, str(folder / "0007"))


def run(folder: Path, train, answers=(CONTINUE,) * 9):
    """What the driver receives of a job: its messages, the last one last."""
    ours, theirs = multiprocessing.Pipe()
    for answer in answers:
        ours.send(answer)
    last = worker.run_job(theirs, job_in(folder), train)
    received = []
    while ours.poll():
        received.append(ours.recv())
    return [*received, last]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DivergedError("the training loss became nan in epoch 2"), "diverged"),
        (MemoryError(), "memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried"), "memory"),
        (RuntimeError("std::bad_alloc"), "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (StorageError("cannot write x: No space left on device."), "storage"),
        (OSError(errno.ENOSPC, "No space left on device"), "storage"),
        (OSError(errno.EROFS, "Read-only file system"), "storage"),
        (InputError("the weights are gone"), "input"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "error"),
        (KeyError("x"), "error"),
        (FileNotFoundError(errno.ENOENT, "no such file"), "error"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_errors_are_sorted_into_kinds(error: Exception, kind: str, tmp_path: Path) -> None:
    def train(job: Job):
        yield epoch_result(1, 0.5)
        raise error

    first, last = run(tmp_path, train)
    assert isinstance(first, EpochDone) and isinstance(last, JobFailed)
    assert last.kind == kind and "\n" not in last.message
    assert bool(last.traceback) == (kind == "error")


def test_a_job_ends_when_the_driver_stops_it(tmp_path: Path) -> None:
    received = run(tmp_path, lambda job: (epoch_result(n, 0.5) for n in range(1, 9)), (CONTINUE, CONTINUE, STOP))
    assert [m.result["epoch"] for m in received[:-1]] == [1, 2, 3] and received[-1] == JobDone(7)


def test_a_folder_that_an_orphan_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trained while another writes there; a folder that stays held is a storage failure, not the trial's."""
    code = (
        "import sys, time; from pathlib import Path; from searchft.files import lock_file\n"
        "with lock_file(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    begun: list[float] = []

    def train(job: Job):
        begun.append(time.monotonic())
        yield epoch_result(1, 0.5)

    words = [sys.executable, "-c", code, str(tmp_path / "0007" / "worker.lock")]
    orphan = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert orphan.stdout is not None and orphan.stdout.readline() == "held\n"
    monkeypatch.setattr(worker, "_LOCK_WAIT_S", 0.3)
    (refused,) = run(tmp_path, train)
    assert refused.kind == "held" and not begun
    monkeypatch.setattr(worker, "_LOCK_WAIT_S", 30.0)
    threading.Timer(0.5, orphan.kill).start()
    started = time.monotonic()
    assert isinstance(run(tmp_path, train)[-1], JobDone)
    assert 0.4 < begun[0] - started < 10
    orphan.wait()


def test_what_killed_writers_left_is_removed_before_training(tmp_path: Path) -> None:
    folder = tmp_path / "0007"
    folder.mkdir()
    (folder / ".last.ckpt.abc.part").write_bytes(b"half")
    (folder / "last.ckpt").write_bytes(b"whole")
    run(tmp_path, lambda job: iter(()))
    assert sorted(p.name for p in folder.iterdir()) == ["last.ckpt", "worker.lock"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(StorageError, match="Free some space"), replacing(path) as file:
        file.write(b"half of")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and path.read_bytes() == b"old"


# Processes ------------------------------------------------------------------------------------------------------------

ERRORS = {"memory": MemoryError, "error": RuntimeError}


def train(job: Job) -> Iterator[object]:
    """What workers do where SEARCHFT_ANALYTIC names this module: every job raises what its key names."""
    raise ERRORS[job.key](f"in process {os.getpid()}")
    yield


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """`start(module)`: an executor whose only worker trains with that module."""
    made: list[LocalExecutor] = []

    def make(module: str) -> LocalExecutor:
        monkeypatch.setenv(worker.STAND_IN, module)
        made.append(LocalExecutor([Slot("cpu", 1)]))
        return made[-1]

    yield make
    for executor in made:
        executor.close()
    assert not [c for c in psutil.Process().children() if "spawn_main" in " ".join(c.cmdline())]


def poll(executor: LocalExecutor) -> list[object]:
    """The next messages."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if messages := executor.wait(0.5):
            return [message for _, message in messages]
    raise AssertionError("the worker is silent")


SETUP = WorkerSetup(facts={}, images="", image_size=32, store="")


def test_the_executor_replaces_a_dead_worker_whose_job_goes_on_from_its_checkpoint(tmp_path: Path, start) -> None:
    def kill() -> None:
        os.kill(executor._workers[0].process.pid, signal.SIGKILL)

    executor = start("tests.analytic")
    kill()
    executor._workers[0].process.join(5)
    executor.start(SETUP)  # it died before it had anything to do
    job = job_in(tmp_path)
    executor.submit(0, job)
    (message,) = poll(executor)
    assert isinstance(message, EpochDone)
    kill()
    assert poll(executor) == [WorkerDied(7, "worker ended by SIGKILL", out_of_memory=False)]
    executor.submit(0, job)
    assert poll(executor) == [message]


@pytest.mark.parametrize("kind", ERRORS)
def test_a_worker_whose_failure_may_outlive_its_job_is_never_used_again(kind: str, tmp_path: Path, start) -> None:
    executor = start("tests.execution.test_worker")
    executor.start(SETUP)
    pids = []
    for _ in range(2):
        executor.submit(0, Job(7, Recipe("torchvision/resnet18"), kind, str(tmp_path / "0007")))
        (failed,) = poll(executor)
        assert isinstance(failed, JobFailed) and failed.kind == kind
        pids.append(failed.message.rpartition(" ")[2])
    assert pids[0] != pids[1]


@pytest.mark.parametrize(("left_bytes", "count"), [(1 << 50, 0), (1 << 20, 2)])
def test_freed_memory_goes_back_after_each_trial_where_the_machine_has_little(
    left_bytes: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[str] = []
    monkeypatch.setattr(worker, "main_memory_bytes", lambda: left_bytes)
    monkeypatch.setattr(worker, "give_back_memory", lambda: given_back.append("all"))
    ours, theirs = multiprocessing.Pipe()
    for message in ("setup", job_in(tmp_path), job_in(tmp_path)):
        ours.send(message)
    serving = threading.Thread(target=worker.serve, args=(theirs, lambda setup: lambda job: iter(())))
    serving.start()
    assert [type(ours.recv()).__name__ for _ in range(3)] == ["WorkerReady", "JobDone", "JobDone"]
    ours.close()
    serving.join(10)
    assert len(given_back) == count
