"""Spawns the real program, ends it in every way, and looks at what is left. Loaded by the tests and by the tables of kills."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

ANALYTIC = """
study: analytic
data: {source: orl_faces, image_size: 64}
recipe:
  backbone: torchvision/resnet18
  weights: none
  unfrozen: [head, layer4, layer3]
  head_widths: [[], [256, 128]]
  dropout: [0.0, 0.5]
  lr: [1e-2, 1e-3, 1e-4]
  epochs: 4
search: {trials: 16, startup_trials: 5, prune_startup_trials: 3, max_retries: 100, keep_checkpoints: 2}
"""

REAL = """
study: real
data: {source: orl_faces, split: {train: 1, val: 1, test: 1, seed: 0}, image_size: 32}
recipe:
  backbone: torchvision/resnet18
  weights: none
  unfrozen: [head, layer4]
  head_widths: [[], [32]]
  dropout: [0.0, 0.5]
  lr: [1e-3, 3e-3]
  batch_size: 20
  epochs: 3
  precision: fp32
search: {trials: 6, startup_trials: 4, prune_startup_trials: 2, max_retries: 100}
"""

PROGRAM = [sys.executable, "-m", "searchft"]
ROOT = str(Path(__file__).parents[2])


class Ended(NamedTuple):
    """How one run of the program ended."""

    code: int
    out: str
    err: str


with contextlib.suppress(ValueError):  # only a main thread may
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # signals that whoever started the tests ignores (nohup, a background job) count again, here and in every child
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@dataclass
class Program:
    """The program on one space in a folder of its own. Every invocation is the leader of a session, so that a group kill stays there."""

    folder: Path
    text: str = ANALYTIC
    epoch_ms: float = 1.0
    """0: the real worker."""
    environment: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    kills: int = 0

    def __post_init__(self) -> None:
        self.space, self.marks = self.folder / "space.yaml", self.folder / "marks"
        self.marks.mkdir(parents=True, exist_ok=True)
        self.space.write_text(self.text)
        self.name = next(line.split(":")[1].strip() for line in self.text.splitlines() if line.startswith("study:"))

    @property
    def study(self) -> Path:
        return self.folder / "studies" / self.name

    def environ(self, fault: str = "") -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SEARCHFT_")}
        mine = {"SEARCHFT_CACHE": str(self.folder / "cache"), "OMP_NUM_THREADS": "1", "PYTHONPATH": ROOT}
        mine |= {"SEARCHFT_FAULT": fault, "SEARCHFT_FAULT_FOLDER": str(self.marks)}
        if self.epoch_ms:
            mine |= {"SEARCHFT_ANALYTIC": "tests.analytic", "SEARCHFT_ANALYTIC_MS": f"{self.epoch_ms:g}"}
        return inherited | mine | self.environment

    def start(self, fault: str = "", *more: str, verb: str = "run", **popen: Any) -> subprocess.Popen[str]:
        """The program, begun in a session of its own."""
        words = [*PROGRAM, verb, *([str(self.space)] if verb == "run" else []), "--studies", str(self.folder / "studies")]
        pipes: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
        }
        place = {"env": self.environ(fault), "cwd": self.folder, "start_new_session": True}
        return subprocess.Popen([*words, *self.options, *more], **pipes | place | popen)

    def run(self, fault: str = "", *more: str, verb: str = "run") -> Ended:
        process = self.start(fault, *more, verb=verb)
        out, err = process.communicate(timeout=580)
        return Ended(process.returncode, out, err)

    def finish(self, fault: str = "", *more: str, verb: str = "run") -> Ended:
        """Runs to the end; whatever came before must not stand in the way."""
        return self.end_of(self.start(fault, *more, verb=verb))

    def end_of(self, process: subprocess.Popen[str]) -> Ended:
        """Waits; it must end well."""
        out, err = process.communicate(timeout=400)
        assert process.returncode == 0, err
        return Ended(0, out, err)

    def wait_for(self, point: str, count: int) -> None:
        """Until a point was passed `count` times."""
        deadline = time.monotonic() + 90
        while sum(name == point for name, *_ in self.passed()) < count:
            assert time.monotonic() < deadline, f"{point} was not passed {count} times"
            time.sleep(0.01)

    # what is left

    def records(self) -> list[Any]:
        from searchft.search.ledger import Ledger

        url = self.environment.get("SEARCHFT_STORAGE", "")
        with Ledger.open(url, self.name, self.study, create=False, exclusive=False) as ledger:
            return ledger.records()

    def numbers(self) -> list[tuple[Any, ...]]:
        """Everything about every trial that must not depend on what was killed when."""
        rows = []
        for r in self.records():
            extra = {k: v for k, v in r.extra.items() if k not in ("owner", "retries", "curves", "traceback")}
            curves = {k: v for k, v in r.extra.get("curves", {}).items() if k not in ("seconds", "stored_s")}
            rows.append((r.number, r.name, r.state, dict(r.params), r.key, r.value, r.curve, r.answered_from, extra, curves))
        return rows

    def processes(self) -> list[psutil.Process]:
        """Living processes of any invocation: they inherited where the marks are."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                mine = process.environ().get("SEARCHFT_FAULT_FOLDER") == str(self.marks)
                found += [process] if mine and process.status() != psutil.STATUS_ZOMBIE else []
        return found

    def assert_no_orphan(self) -> None:
        deadline = time.monotonic() + 2
        while left := self.processes():
            assert time.monotonic() < deadline, f"alive 2 s after the kill: {left}"
            time.sleep(0.02)

    def passed(self) -> list[tuple[str, int, str]]:
        """(point, process, detail) in order."""
        path = self.marks / "passed"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(point, int(process), detail) for point, process, detail in (f"{line} ".split(" ", 2) for line in lines)]

    def struck(self) -> set[str]:
        return {path.name.removeprefix("struck-") for path in self.marks.glob("struck-*")}

    def epochs(self, point: str) -> collections.Counter[tuple[int, int]]:
        """How often each (trial, epoch) passed a point."""
        rows = (detail.split() for name, _, detail in self.passed() if name == point)
        return collections.Counter((int(trial), int(epoch)) for trial, epoch in rows)

    def recomputed(self) -> int:
        """Epochs begun more than once."""
        begun = self.epochs("epoch.begun")
        return sum(begun.values()) - len(begun)

    def lost(self, whole: Sequence[tuple[Any, ...]]) -> int:
        """Trials of an uninterrupted run that are missing here or differ in any number, and trials that it does not have."""
        mine, theirs = {row[0]: row for row in self.numbers()}, {row[0]: row for row in whole}
        return sum(repr(mine.get(n)) != repr(theirs.get(n)) for n in mine.keys() | theirs.keys())

    def assert_equals(self, whole: Sequence[tuple[Any, ...]]) -> None:
        """Every number is the uninterrupted study's, no saved epoch was computed again, nothing is left over."""
        for mine, theirs in zip(self.numbers(), whole, strict=True):
            assert mine == theirs
        assert [where for where, count in self.epochs("checkpoint.saved").items() if count > 1] == []
        assert self.recomputed() <= self.kills
        assert [*self.folder.rglob("*.part"), *self.study.glob("trials/*/last.ckpt"), *self.processes()] == []


def kill_at(program: Program, seconds: float, who: str) -> None:
    """Starts the program, ends `driver`, `worker` (a moment later its driver), `both` or `group`, and sees that all else goes."""
    process = program.start(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    with contextlib.suppress(psutil.Error, ProcessLookupError):  # it may have ended by itself
        if who == "group":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            children = [c for c in psutil.Process(process.pid).children() if any("spawn_main" in w for w in c.cmdline())]
            targets = [] if who == "driver" else [c.pid for c in children]
            for pid in [*targets, *([process.pid] if who in ("driver", "both") else [])]:
                os.kill(pid, signal.SIGKILL)
            if who == "worker":
                time.sleep(random.Random(seconds).uniform(0.2, 0.6))
                os.kill(process.pid, signal.SIGKILL)
    process.wait()
    program.kills += 2 if who == "worker" else 1
    program.assert_no_orphan()
