"""Several programs on one study in a file; a database that is held, or a server that goes away, is waited for."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = pytest.mark.slow


def test_programs_that_create_one_study_at_once(program, whole):
    """Stock Optuna: 26 of 40 fail on SQLite. Here one creates it, the others are told who does (4), and nothing is damaged."""
    here = program(epoch_ms=5)
    with ThreadPoolExecutor(4) as pool:
        ended = [run.result() for run in [pool.submit(here.run) for _ in range(4)]]
    assert {e.code for e in ended} <= {0, 4} and any(e.code == 0 for e in ended), [e.err for e in ended]
    assert all("is being run by process" in e.err for e in ended if e.code == 4)
    here.assert_equals(whole)


def test_a_database_that_others_hold_is_waited_for_and_a_second_driver_refused(program, whole):
    """Stock Optuna: one storage error ends the heartbeat thread, others fail the trial, `tell` raises."""
    here = program(epoch_ms=60)
    process = here.start()
    here.wait_for("driver.reported", 2)
    os.kill(process.pid, signal.SIGSTOP)  # or it might end before the second has begun
    second = here.run()
    running = [r for r in here.records() if r.state == "running"]
    os.kill(process.pid, signal.SIGCONT)
    assert second.code == 4 and f"process {process.pid} on {os.uname().nodename} since " in second.err
    assert len(running) == 1
    other = sqlite3.connect(here.study / "study.db", isolation_level=None, timeout=30)
    for _ in range(3):
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(0.4)
        other.execute("COMMIT")
        time.sleep(0.1)
    other.close()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    here.assert_equals(whole)


def test_enqueued_trials_run_once_each(program, harness):
    """Stock Optuna on SQLite: four processes popped 120 enqueued trials 152 times. Here four workers, and a driver killed twice."""
    pairs = [(lr, opening) for lr in ("1e-2", "1e-3", "1e-4") for opening in ("head", "layer4", "layer3")]
    row = "{{name: row {}, lr: {}, dropout: 0.5, unfrozen: {}, head_widths: [256, 128]}}"
    rows = ", ".join(row.format(i, *pair) for i, pair in enumerate(pairs))
    text = harness.ANALYTIC.replace("max_retries", f"pruner: none, enqueue: [{rows}], max_retries")
    here = program(text=text, options=("--workers", "4"))
    for fault in ("driver.started:3", "driver.received:6"):
        assert here.run(fault).code == -9
    here.finish()
    assert sorted(r.name for r in here.records() if r.name) == [f"row {i}" for i in range(9)]
    own = [r for r in here.records() if r.answered_from is None]
    assert len(own) == len({r.key for r in own}) == 16
    saved = here.epochs("checkpoint.saved")
    assert set(saved.values()) == {1} and len(saved) == sum(len(r.curve) for r in own)


@pytest.mark.postgres
def test_a_server_that_restarts_or_is_away_for_a_minute_is_waited_for(on_postgres, postgres_server, whole):
    here = on_postgres(epoch_ms=60)
    process = here.start()
    for reported, away_s in ((6, 2), (20, 0), (30, 65)):
        here.wait_for("driver.reported", reported)
        postgres_server.stop()
        time.sleep(away_s)
        postgres_server.start()
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    here.assert_equals(whole)
    assert here.recomputed() == 0
    assert postgres_server.password not in err


@pytest.mark.postgres
def test_a_killed_driver_on_this_host_is_replaced_at_once(on_postgres, whole):
    """No lease has to run out: the lock went with its connection."""
    here = on_postgres()
    for fault in ("driver.dispatched:2", "driver.received:9", "ledger.finishing:2:group"):
        assert here.run(fault).code == -9
        here.kills += 1
    started = time.monotonic()
    here.finish()
    assert time.monotonic() - started < 30
    here.assert_equals(whole)
