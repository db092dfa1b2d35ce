"""Several drivers on one PostgreSQL study, some of them killed: nothing lost, nothing doubled."""

from __future__ import annotations

import collections
import os
import signal

import pytest

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

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


def begun_again(drivers):
    return sum(computed(drivers).values()) - len(computed(drivers))


def check(drivers):
    records = drivers[0].records()
    own = [r for r in records if r.answered_from is None]
    assert len(own) == 24 and len({r.key for r in own}) == 24
    assert all(r.state in ("complete", "pruned") for r in records)
    assert {(r.number, e) for r in own for e in range(1, len(r.curve) + 1)} == set(computed(drivers))
    return own


def test_three_drivers_run_one_study_and_no_epoch_twice(drivers):
    three = drivers(3)
    for process in [one.start() for one in three]:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    own = check(three)
    assert begun_again(three) == 0
    assert len({r.extra["owner"]["pid"] for r in own}) == 3  # each had its share


@pytest.mark.parametrize("shared", [True, False], ids=["one folder", "folders of their own"])
def test_a_killed_drivers_trial_goes_on_elsewhere(drivers, shared):
    two = drivers(2, shared)
    second = two[1].start()
    assert two[0].run("driver.reported:8").code == -9  # in the middle of a trial
    _, err = second.communicate(timeout=240)
    assert second.returncode == 0, err
    check(two)
    if shared:
        assert begun_again(two) <= 1 and "begins again" not in err  # the epoch that was under way
    else:
        assert 1 <= begun_again(two) <= 6 and "begins again: its checkpoint is not in" in err
    two[0].assert_no_orphan()


def test_a_study_left_by_all_its_drivers_is_finished_by_the_next(drivers):
    two = drivers(2, shared=True)
    running = [one.start() for one in two]
    for one in two:
        one.wait_for("driver.reported", 5)
    for process in running:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    two[1].finish()
    check(two)
    assert begun_again(two) <= 2
