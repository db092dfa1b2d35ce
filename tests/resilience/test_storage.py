"""Several programs on one study, some of them killed: nothing lost, nothing doubled. A database that is held or away is waited for."""

from __future__ import annotations

import collections
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
    here.end_of(process)
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
    err = here.end_of(process).err
    here.assert_equals(whole)
    assert here.recomputed() == 0
    assert postgres_server.password not in err


LONGER = ("--set", "search.trials=24", "--set", "recipe.epochs=6")


@pytest.fixture
def drivers(program, postgres_server):
    """`drivers(n, shared)`: programs that run one study; with `shared` from one folder of studies, else each from its own."""

    def make(count, shared=False):
        storage = {"SEARCHFT_STORAGE": postgres_server.fresh_database()}
        made = [program(f"driver{i}", epoch_ms=60, environment=dict(storage), options=LONGER) for i in range(count)]
        if shared:
            (made[0].folder / "studies").mkdir()
            for other in made[1:]:
                (other.folder / "studies").symlink_to(made[0].folder / "studies", target_is_directory=True)
        return made

    return make


def computed(drivers):
    """How often each (trial, epoch) was begun, over all drivers."""
    return sum((one.epochs("epoch.begun") for one in drivers), collections.Counter())


def check(drivers):
    """Every trial ran to its end, once, and no epoch is missing; returns them and how many epochs were begun again."""
    records = drivers[0].records()
    own = [r for r in records if r.answered_from is None]
    assert len(own) == 24 and len({r.key for r in own}) == 24
    assert all(r.state in ("complete", "pruned") for r in records)
    assert {(r.number, e) for r in own for e in range(1, len(r.curve) + 1)} == set(computed(drivers))
    return own, computed(drivers).total() - len(computed(drivers))


@pytest.mark.postgres
def test_three_drivers_run_one_study_and_no_epoch_twice(drivers):
    three = drivers(3)
    for one, process in [(one, one.start()) for one in three]:
        one.end_of(process)
    own, again = check(three)
    assert again == 0
    assert len({r.extra["owner"]["pid"] for r in own}) == 3  # each had its share


@pytest.mark.postgres
@pytest.mark.parametrize("shared", [True, False], ids=["one folder", "folders of their own"])
def test_a_killed_drivers_trial_goes_on_elsewhere(drivers, shared):
    two = drivers(2, shared)
    second = two[1].start()
    assert two[0].run("driver.reported:8").code == -9  # in the middle of a trial
    err = two[1].end_of(second).err
    _, again = check(two)
    if shared:
        assert again <= 1 and "begins again" not in err  # the epoch that was under way
    else:
        assert 1 <= again <= 6 and "begins again: its checkpoint is not in" in err
    two[0].assert_no_orphan()


@pytest.mark.postgres
def test_a_study_left_by_all_its_drivers_is_finished_by_the_next(drivers):
    two = drivers(2, shared=True)
    running = [one.start() for one in two]
    for one in two:
        one.wait_for("driver.reported", 5)
    for process in running:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    two[1].finish()
    _, again = check(two)
    assert again <= 2
