"""Kill anything, any time: the next run finishes the study, and no number tells that anything happened."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from searchft.faults import POINTS
from tests.benchmarks import kill_table, ray_kill_table

NOT_IN_THE_ANALYTIC = {"store.writing", "images.writing", "cache.written", "cache.renamed"}
"""Points that a worker without networks does not pass: see test_real_kills.py."""

WORKERS = tuple(
    name for name in POINTS if name.startswith(("worker.", "epoch.", "checkpoint.")) and name not in NOT_IN_THE_ANALYTIC
)


def end_at(program, faults, whole):
    """Ends the program at one point after the other, going on each time; then lets the study come to its end."""
    for fault in faults:
        ended = program.run(fault)
        assert fault in program.struck() and ended.code == -9, (fault, ended.err)
        program.kills += 1
        program.assert_no_orphan()
    program.finish()
    program.assert_equals(whole)
    own = [r for r in program.records() if r.answered_from is None]
    assert all(r.extra["owner"].keys() == {"pid", "host", "boot_id", "since"} and r.extra["owner"]["pid"] > 0 for r in own)


def test_a_handful_of_kills_changes_no_number(program, whole):
    """The driver while it opens, suggests, reports and finishes; by its worker; both; and the whole group."""
    driver = ["study.pinning:2", "driver.started", "driver.reported:2", "ledger.finishing"]
    end_at(program(), [*driver, "worker.sent:2:other", "checkpoint.saved:3:both", "epoch.begun:4:group"], whole)


BY_THE_DRIVER = (
    *("driver.started", "driver.dispatched:2", "driver.dispatched:4", "driver.received:3"),
    *("driver.reported:5", "ledger.finishing:2", "driver.finished:3"),
)


@pytest.mark.parametrize(("who", "points"), [("self", WORKERS), pytest.param("other", BY_THE_DRIVER, marks=pytest.mark.slow)])
def test_the_worker_killed_at_every_point(who, points, program, whole):
    """`self`: at every point of its own, in one run. `other`: by the driver at every point of the driver's round."""
    faults = [f"{point if ':' in point else point + ':1'}:{who}" for point in points]
    here = program()
    ended = here.run(",".join(faults))
    assert ended.code == 0, ended.err
    assert here.struck() == set(faults)
    here.kills = len(faults)
    here.assert_equals(whole)
    assert 1 <= sum(r.extra.get("retries", 0) for r in here.records()) <= len(faults)


@pytest.mark.slow
def test_the_driver_killed_at_every_point_of_its_own(program, whole):
    """Three studies at once, each killed several times over; every occurrence number differs."""
    firsts = ["lock.taken", "study.created", "study.pinning:2", "study.pinned", "files.written:2", "files.replaced:2"]
    seconds = [
        "driver.suggested",
        "driver.started:2",
        "driver.dispatched",
        "driver.received:2",
        "driver.reported",
        "driver.answered",
    ]
    # whoever takes over from a driver that died with its worker dies as well
    thirds = [
        "ledger.finishing",
        "driver.finished",
        "driver.cleaning:3",
        "worker.sent:3:both",
        "driver.dispatched",
        "driver.ending",
    ]
    assert {f.partition(":")[0] for f in (*firsts, *seconds, *thirds)} >= {
        p for p in POINTS if p.startswith(("driver.", "ledger.", "study.", "lock.", "files."))
    }
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(end_at, program(str(i)), f, whole) for i, f in enumerate((firsts, seconds, thirds))]
        for run in runs:
            run.result()


@pytest.mark.slow
def test_kills_at_random_times(program, harness, whole):
    """From the first moments of the process on: driver, worker, both, group."""
    here, chance = program(epoch_ms=15), random.Random(0)
    for i in range(8):
        harness.kill_at(here, chance.uniform(0.05, 3.0), ("driver", "worker", "both", "group")[i % 4])
    here.finish()
    here.assert_equals(whole)


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", ["at_points", "at_random"])
def test_the_whole_table_of_kills(part, tmp_path):
    """Every point in every way, and eighty kills at random times; the tables are written into kills.md."""
    cost = getattr(kill_table, part)(tmp_path)
    assert cost.lost == cost.orphans == 0 and cost.recomputed <= cost.kills


@pytest.mark.exhaustive
@pytest.mark.ray
def test_the_whole_table_of_kills_on_ray(tmp_path):
    cost = ray_kill_table.on_ray(tmp_path)
    assert cost.lost == cost.again == 0 and cost.recomputed <= cost.kills
