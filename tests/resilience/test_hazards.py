"""Seven ways in which stock Optuna loses or doubles work, each reproduced there (`tests/benchmarks/kill_table.py`): not here.

The seventh way of the list, a journal file cut short, has no counterpart: there is no journal; the checkpoint is ours.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = pytest.mark.slow


def wait_for(here, point, count=1, timeout=60.0):
    deadline = time.monotonic() + timeout
    while not (here.marks / "passed").exists() or sum(name == point for name, *_ in here.passed()) < count:
        assert time.monotonic() < deadline, f"{point} was not passed {count} times"
        time.sleep(0.01)


def test_hazard_1_a_worker_killed_before_its_first_sign_of_life_does_not_leave_its_trial_running(program, whole):
    """Stock Optuna: RUNNING for ever, no heartbeat having been written."""
    here = program()
    ended = here.run("worker.job:1:self,driver.dispatched:4:other")
    assert ended.code == 0 and len(here.struck()) == 2
    here.kills = 2
    here.assert_equals(whole)


def test_hazard_2_nobody_dies_between_failing_a_trial_and_enqueueing_its_retry(program, whole):
    """Stock Optuna: a reaper killed in between loses the retry. Here there is no in between: a retry is the same trial."""
    here = program()
    assert here.run("worker.sent:3:both").code == -9
    assert here.run("driver.dispatched").code == -9  # the one that takes over dies as well
    here.kills = 2
    here.finish()
    here.assert_equals(whole)
    assert all(row[2] != "failed" for row in here.numbers())


def test_hazard_3_a_storage_error_does_not_fail_the_live_trial(program, whole):
    """Stock Optuna: one error ends the heartbeat thread, others fail the trial, `tell` raises. Here the database is waited for."""
    here = program(epoch_ms=30)
    process = here.start()
    wait_for(here, "driver.reported", 5)
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
    assert here.recomputed() == 0


def test_hazard_4_sigterm_does_not_leave_a_trial_running_for_ever(program, whole):
    """Stock Optuna: a terminated process leaves RUNNING behind, which nobody takes up."""
    here = program(epoch_ms=30)
    process = here.start()
    wait_for(here, "driver.reported", 7)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=15)
    assert process.returncode == 130
    here.kills = 1
    here.finish()
    here.assert_equals(whole)


def test_hazard_5_enqueued_trials_run_once_each(program, harness):
    """Stock Optuna on SQLite: four processes popped 120 enqueued trials 152 times. Here four workers, and a driver killed twice."""
    pairs = [(lr, opening) for lr in ("1e-2", "1e-3", "1e-4") for opening in ("head", "layer4", "layer3")]
    row = "    - {{name: row {}, lr: {}, dropout: 0.5, unfrozen: {}, head_widths: [256, 128]}}\n"
    rows = "".join(row.format(i, *pair) for i, pair in enumerate(pairs))
    text = harness.ANALYTIC.replace("max_retries", "pruner: none, max_retries")
    here = program(text=_with_rows(text, rows), options=("--workers", "4"))
    for fault in ("driver.started:3", "driver.heard:6"):
        assert here.run(fault).code == -9
    here.finish()
    named = [r.name for r in here.records() if r.name]
    assert sorted(named) == [f"row {i}" for i in range(9)]
    own = [r for r in here.records() if r.answered_from is None]
    assert len(own) == len({r.key for r in own}) == 16
    saved = here.epochs("checkpoint.saved")
    assert set(saved.values()) == {1} and len(saved) == sum(len(r.curve) for r in own)


def _with_rows(text, rows):
    """The space's one-line `search` section as a block, with enqueued rows."""
    head, _, section = text.partition("search: {")
    lines = "".join(f"  {part.strip()}\n" for part in section.strip().rstrip("}").split(","))
    return f"{head}search:\n{lines}  enqueue:\n{rows}"


def test_hazard_6_programs_that_create_one_study_at_once(program, whole):
    """Stock Optuna: 26 of 40 fail on SQLite. Here one creates it, the others are told who does (4), and nothing is damaged."""
    here = program(epoch_ms=5)
    with ThreadPoolExecutor(4) as pool:
        ended = [run.result() for run in [pool.submit(here.run) for _ in range(4)]]
    assert {e.code for e in ended} <= {0, 4} and any(e.code == 0 for e in ended), [e.err for e in ended]
    assert all("is being run by process" in e.err for e in ended if e.code == 4)
    here.assert_equals(whole)


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_hazard_7_a_file_cut_short_is_noticed_and_stays_usable(cut, program, whole):
    """Stock Optuna: a journal cut 20 bytes short opens once, then never again. Here: checkpoint, space.yaml, driver.json, -wal."""
    here = program()
    assert here.run("driver.reported:9").code == -9
    here.kills = 1
    files = [*here.study.glob("trials/*/last.ckpt"), here.study / "space.yaml", here.study / "driver.json"]
    files += [p for p in [here.study / "study.db-wal"] if p.exists()]
    assert len(files) >= 3
    for path in files:
        size = path.stat().st_size
        os.truncate(path, max(0, size - cut))
    if cut == 20:
        assert here.run("driver.reported:3").code == -9  # reopened once
        here.kills += 1
    here.finish()  # and again
    assert here.lost(whole) == 0  # a cut checkpoint is computed again from its beginning
