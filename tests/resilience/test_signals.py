"""Graceful stops: SIGINT, SIGTERM, SIGHUP end the run in order with 130; running again goes on; a second one leaves at once."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def test_a_signal_stops_in_order_and_running_again_goes_on(program, whole):
    """In mid-epoch: the worker is ended, its checkpoint of the last epoch stands. SIGINT and SIGHUP: on a terminal, below."""
    here = program(epoch_ms=40)
    process = here.start("", "--json")
    here.wait_for("driver.reported", 6)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=15)
    assert process.returncode == 130 and time.monotonic() - started < 10
    answer = json.loads(out)  # one object
    assert answer["error"]["kind"] == "interrupted" and answer["counts"]["running"] == 1
    assert f"searchft run {here.space}" in answer["error"]["message"]
    assert "Traceback" not in err
    here.assert_no_orphan()
    here.kills = 1
    here.finish()
    here.assert_equals(whole)


@pytest.mark.slow
def test_one_signal_is_enough_also_where_the_database_hangs_and_a_second_leaves_at_once(program):
    """Another program holds the database, so that the driver cannot stop in order."""
    for signals, within_s in (([signal.SIGTERM], 10), ([signal.SIGINT, signal.SIGINT], 1)):
        here = program(signals[0].name, epoch_ms=40)
        process = here.start()
        here.wait_for("driver.reported", 3)
        with contextlib.closing(sqlite3.connect(here.study / "study.db", isolation_level=None, timeout=30)) as other:
            other.execute("BEGIN EXCLUSIVE")
            time.sleep(0.3)
            for number in signals[:-1]:
                process.send_signal(number)
                time.sleep(0.6)
                assert process.poll() is None
            started = time.monotonic()
            process.send_signal(signals[-1])
            assert process.wait(15) == 130 and time.monotonic() - started < within_s
        here.assert_no_orphan()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "after_s"), [*zip(SIGNALS, (0.5, 1.5, 3.0), strict=True)])
def test_a_signal_while_images_and_backbones_are_looked_at(number, after_s, program, harness):
    """Moments from the first look to the middle of training, whatever the machine: the search itself lasts minutes."""
    here = program(text=harness.REAL.replace("trials: 6,", "trials: 2000,").replace("epochs: 3", "epochs: 50"), epoch_ms=0)
    process = here.start()
    assert "looking at" in process.stderr.readline()
    time.sleep(after_s)
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
def test_a_signal_while_leaving_changes_nothing(number):
    """The answer is out: leaving, which takes long here, ends at once, with the code and without a traceback."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", LEAVING_SLOWLY], **pipes)
    assert process.stdout.readline().startswith("searchft ") and process.stdout.readline() == "leaving\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 0 and not err


@pytest.fixture
def on_a_terminal(program):
    """The program in mid-search on a terminal of its own: itself, its process, our end of the terminal, what it wrote."""
    here = program(epoch_ms=60)
    ours, theirs = pty.openpty()
    words = ["setsid", "--ctty", "--wait", sys.executable, "-m", "searchft", "run", str(here.space)]
    environment = {**here.environ(), "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=here.folder)
    os.close(theirs)
    text, deadline = "", time.monotonic() + 60
    with open(ours, "r+b", buffering=0) as terminal:
        while len(here.epochs("driver.reported")) < 4:
            assert time.monotonic() < deadline, text
            text += read_all(terminal, 0.2)
        yield here, process, terminal, text


def read_all(terminal, seconds):
    """What comes from the terminal until it closes or time is up."""
    text, deadline = b"", time.monotonic() + seconds
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.1)[0]:
                piece = terminal.read(65536)
                if not piece:
                    break
                text += piece
    return text.decode(errors="replace")


def test_ctrl_c_on_a_terminal_leaves_it_clean(on_a_terminal):
    """As a person sees it: the key, not the signal. It reaches the workers too, which must not answer it."""
    here, process, terminal, before = on_a_terminal
    terminal.write(b"\x03")
    after = read_all(terminal, 12)
    assert process.wait(10) == 130
    text = before + after
    assert "\x1b[?25l" in before  # the live view hides the cursor
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # and it comes back
    assert "\x1b[?1049h" not in text or text.rindex("\x1b[?1049l") > text.rindex("\x1b[?1049h")
    assert "Traceback" not in text and "KeyboardInterrupt" not in text
    assert "nothing is lost" in after
    here.assert_no_orphan()


@pytest.mark.slow
def test_a_terminal_that_goes_away_ends_the_run_in_order(on_a_terminal):
    here, process, terminal, _ = on_a_terminal
    terminal.close()  # SIGHUP, and no terminal to write to any more
    assert process.wait(12) == 130
    here.assert_no_orphan()
    assert [r.state for r in here.records()].count("running") <= 1
