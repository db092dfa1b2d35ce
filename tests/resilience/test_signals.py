"""Graceful stops: SIGINT, SIGTERM, SIGHUP end the run in order with 130; running again goes on; a second one leaves at once."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import psutil
import pytest

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def wait_for(here, point, count=1, timeout=60.0):
    """Until a point was passed `count` times."""
    deadline = time.monotonic() + timeout
    while not (here.marks / "passed").exists() or sum(name == point for name, *_ in here.passed()) < count:
        assert time.monotonic() < deadline, f"{point} was not passed {count} times"
        time.sleep(0.01)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGINT, signal.SIGHUP))]
)
def test_a_signal_stops_in_order_and_running_again_goes_on(number, program, whole):
    """In mid-epoch: the worker is ended, its checkpoint of the last epoch stands."""
    here = program(epoch_ms=40)
    process = here.start("", "--json")
    wait_for(here, "driver.reported", 6)
    started = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=15)
    assert process.returncode == 130 and time.monotonic() - started < 10
    answer = json.loads(out)  # one object
    assert answer["error"]["kind"] == "interrupted" and answer["counts"]["running"] == 1
    assert "Traceback" not in err
    here.assert_no_orphan()
    here.kills = 1
    assert f"searchft run {here.space}" in answer["error"]["message"]
    if number == signal.SIGTERM:  # the same way on for all three
        here.finish()
        here.assert_equals(whole)


@pytest.mark.slow
def test_a_second_signal_leaves_at_once(program):
    """The driver is kept from stopping in order by a database that another program holds."""
    import sqlite3

    here = program(epoch_ms=40)
    process = here.start()
    wait_for(here, "driver.reported", 3)
    with contextlib.closing(sqlite3.connect(here.study / "study.db", isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        time.sleep(0.6)
        assert process.poll() is None
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130 and time.monotonic() - started < 1
    here.assert_no_orphan()


@pytest.mark.slow
def test_one_signal_is_enough_also_where_the_database_hangs(program):
    import sqlite3

    here = program(epoch_ms=40)
    process = here.start()
    wait_for(here, "driver.reported", 3)
    with contextlib.closing(sqlite3.connect(here.study / "study.db", isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(0.3)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 130 and time.monotonic() - started < 10
    here.assert_no_orphan()


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
@pytest.mark.parametrize("after_s", [1.0, 3.0, 6.0])
def test_a_signal_while_images_and_backbones_are_looked_at(number, after_s, program, harness):
    """Moments from the first look to the middle of training, whatever the machine: the search itself lasts minutes."""
    here = program(text=harness.REAL.replace("trials: 6,", "trials: 2000,").replace("epochs: 3", "epochs: 50"), epoch_ms=0)
    process = here.start()
    assert "looking at" in process.stderr.readline()
    time.sleep(after_s / 2)
    started = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and time.monotonic() - started < 10
    assert "Traceback" not in err
    here.assert_no_orphan()


LEAVING_SLOWLY = """
import atexit, sys, time
from searchft.cli import main

@atexit.register
def linger():
    print("leaving", flush=True)
    for _ in range(400):
        time.sleep(0.05)

main(["--version"])
"""


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_a_signal_while_leaving_changes_nothing(number, harness):
    """The answer is out: leaving, which takes long here, ends at once, with the code and without a traceback."""
    process = subprocess.Popen(
        [sys.executable, "-c", LEAVING_SLOWLY],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=harness.heeding_signals,
    )
    assert process.stdout.readline().startswith("searchft ") and process.stdout.readline() == "leaving\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 0 and not err


def on_a_terminal(here, *more):
    """The program on a terminal of its own: the process, and our end of the terminal."""
    ours, theirs = pty.openpty()
    words = ["setsid", "--ctty", "--wait", *_program(here), *more]
    environment = {**here.environ(), "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=here.folder)
    os.close(theirs)
    return process, ours


def _program(here):
    return [sys.executable, "-m", "searchft", "run", str(here.space), "--studies", str(here.folder / "studies")]


def read_all(handle, seconds):
    """What comes from the terminal until it closes or time is up."""
    text, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not select.select([handle], [], [], 0.1)[0]:
            continue
        try:
            piece = os.read(handle, 65536)
        except OSError:
            break
        if not piece:
            break
        text += piece
    return text.decode(errors="replace")


def test_ctrl_c_on_a_terminal_leaves_it_clean(program):
    """As a person sees it: the key, not the signal. It reaches the workers too, which must not answer it."""
    here = program(epoch_ms=60)
    process, terminal = on_a_terminal(here)
    try:
        before = read_until(terminal, here, "driver.reported", 4)
        os.write(terminal, b"\x03")
        after = read_all(terminal, 12)
        assert process.wait(10) == 130
    finally:
        os.close(terminal)
    whole_text = before + after
    assert "\x1b[?25l" in before  # the live view hides the cursor
    assert whole_text.rindex("\x1b[?25h") > whole_text.rindex("\x1b[?25l")  # and it comes back
    assert "\x1b[?1049h" not in whole_text or whole_text.rindex("\x1b[?1049l") > whole_text.rindex("\x1b[?1049h")
    assert "Traceback" not in whole_text and "KeyboardInterrupt" not in whole_text
    assert "nothing is lost" in after
    here.assert_no_orphan()


@pytest.mark.slow
def test_a_terminal_that_goes_away_ends_the_run_in_order(program):
    here = program(epoch_ms=60)
    process, terminal = on_a_terminal(here)
    read_until(terminal, here, "driver.reported", 4)
    os.close(terminal)  # SIGHUP, and no terminal to write to any more
    assert process.wait(12) == 130
    here.assert_no_orphan()
    assert [r.state for r in here.records()].count("running") <= 1


def read_until(terminal, here, point, count):
    text, deadline = "", time.monotonic() + 60
    while not (here.marks / "passed").exists() or sum(name == point for name, *_ in here.passed()) < count:
        assert time.monotonic() < deadline, text
        text += read_all(terminal, 0.2)
    return text


@pytest.mark.slow
def test_the_worker_sees_neither_the_storage_nor_the_signals(program):
    """Its environment and command line hold no URL; SIGINT, SIGTERM and SIGHUP do not end it."""
    here = program(epoch_ms=60)
    url = f"sqlite:///{here.folder / 'elsewhere.db'}"
    here.environment = {"SEARCHFT_STORAGE": url}
    process = here.start()
    wait_for(here, "driver.reported", 2)
    (worker,) = [c for c in psutil.Process(process.pid).children() if any("spawn_main" in w for w in c.cmdline())]
    assert "SEARCHFT_STORAGE" not in worker.environ()
    for seen in (worker, psutil.Process(process.pid)):
        assert "elsewhere.db" not in " ".join(seen.cmdline())
    for number in SIGNALS:
        worker.send_signal(number)
    wait_for(here, "driver.reported", 5)
    assert worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
