"""Fault points: named places at which a test may end the program, as a power switch would. Without a variable they do nothing.

SEARCHFT_FAULT=driver.started              the first process to pass the point is ended there by SIGKILL
SEARCHFT_FAULT=worker.epoch:3              … the third time that it passes
SEARCHFT_FAULT=driver.reported:2:group     … with its whole process group; `other`: not itself but its driver, or
                                           its workers; `both`: these and itself
SEARCHFT_FAULT=worker.job,worker.done:2    several, each on its own
SEARCHFT_FAULT_FOLDER=DIR                  every passing is written to DIR/passed; a fault strikes once, whichever
                                           process comes first (DIR/struck-… says that it has)
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import MappingProxyType

POINTS = MappingProxyType(
    {
        # opening
        "lock.taken": "the study's folder is locked, nothing written to it",
        "study.created": "the database holds an empty study, nothing is pinned",
        "study.pinning": "space and facts are half pinned",
        "study.pinned": "pinned, its space.yaml not yet written",
        # the driver's round
        "driver.suggested": "a trial is suggested, nothing of it written",
        "driver.started": "the trial stands in the database as running, no worker has it",
        "driver.dispatched": "a worker has it",
        "driver.answered": "a duplicate was answered from the record",
        "driver.received": "a worker reported an epoch, the database does not know of it",
        "driver.reported": "the epoch is in the database, the worker still waits for its answer",
        "ledger.finishing": "an ended trial is written, its transaction still open",
        "driver.finished": "the trial has ended in the database, its folder is not cleaned",
        "driver.cleaning": "some of its files are gone",
        "driver.ending": "the last trial has ended, the workers still live",
        # the worker's
        "worker.job": "a job has come, its folder is not locked",
        "worker.locked": "the folder is locked, nothing is trained",
        "epoch.begun": "an epoch is about to be trained",
        "worker.epoch": "an epoch is trained and checkpointed, the driver does not know of it",
        "worker.sent": "an epoch was sent to the driver, its answer has not come",
        "worker.done": "a trial is trained to its end, the driver does not know of it",
        "checkpoint.best": "new best weights lie beside the checkpoint of the epoch before",
        "checkpoint.saved": "the checkpoint holds the epoch, nobody knows of it",
        # files
        "files.written": "a file's new content lies whole under a temporary name",
        "files.replaced": "it has taken its name",
        "store.writing": "some of the frozen part's values are written",
        "images.writing": "the images are decoded under a temporary name, without a manifest",
        "cache.written": "an entry of the cache is whole, under a temporary name",
        "cache.renamed": "it has its name",
    }
)
"""Every name, and how things stand there."""

_FAULT = os.environ.get("SEARCHFT_FAULT", "")
_FOLDER = os.environ.get("SEARCHFT_FAULT_FOLDER", "")
_ARMED = bool(_FAULT or _FOLDER)
_passed: dict[str, int] = {}


def fault(point: str, detail: str = "") -> None:
    """A fault point. `detail` (which trial, which epoch) is for DIR/passed alone."""
    if _ARMED:
        _pass(point, detail)


def _pass(point: str, detail: str) -> None:
    if point not in POINTS:
        raise KeyError(f"{point} is no fault point: add it to POINTS")
    _passed[point] = count = _passed.get(point, 0) + 1
    if _FOLDER:
        with open(Path(_FOLDER, "passed"), "ab", buffering=0) as file:  # one write: lines of several processes do not mix
            file.write(f"{point} {os.getpid()} {detail}\n".encode())
    for one in _FAULT.split(","):
        name, _, rest = one.partition(":")
        number, _, who = rest.partition(":")
        if name == point and count == int(number or 1) and _first(one):
            _strike(who or "self")


def _first(one: str) -> bool:
    """Whether nobody has struck in this way before."""
    try:
        if _FOLDER:
            os.close(os.open(Path(_FOLDER, f"struck-{one}"), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        return True
    except FileExistsError:
        return False


def _strike(who: str) -> None:
    sys.stderr.flush()
    if who == "group":
        os.killpg(0, signal.SIGKILL)
    if who in ("other", "both"):
        for process in _others():
            os.kill(process, signal.SIGKILL)
    if who in ("self", "both"):
        os.kill(os.getpid(), signal.SIGKILL)


def _others() -> list[int]:
    """The driver, seen from a worker; the workers, seen from the driver."""
    import psutil

    me = psutil.Process()
    if any("spawn_main" in word for word in me.cmdline()):
        return [me.ppid()]
    return [child.pid for child in me.children() if any("spawn_main" in word for word in child.cmdline())]
