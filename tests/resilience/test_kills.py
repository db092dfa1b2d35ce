"""Kill anything, any time: the next run finishes the study, and no number tells that anything happened."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from searchft.faults import POINTS

NOT_IN_THE_ANALYTIC = {"store.writing", "images.writing", "cache.written", "cache.renamed"}
"""Points that a worker without networks does not pass: see test_real_kills.py."""

OPENING = ("lock.taken", "study.created", "study.pinning:2", "study.pinned", "files.written:2", "files.replaced:2")
WORKERS = tuple(
    name for name in POINTS if name.startswith(("worker.", "epoch.", "checkpoint.")) and name not in NOT_IN_THE_ANALYTIC
)


def end_at(program, faults, whole):
    """Ends the driver at one point after the other, going on each time; then lets the study come to its end."""
    for fault in faults:
        ended = program.run(fault)
        if fault in program.struck():
            assert ended.code == -9, (fault, ended.err)
            program.kills += 1
            program.assert_no_orphan()
    program.finish()
    program.assert_equals(whole)
    assert program.struck() and all(owner_of(r)["pid"] > 0 for r in program.records() if r.answered_from is None)
    return program.struck()


def owner_of(record):
    """Who ran a trial last: noted on it for people."""
    assert record.extra["owner"].keys() == {"pid", "host", "boot_id", "since"}
    return record.extra["owner"]


def test_the_driver_killed_at_every_point_of_its_own(program, whole):
    """Three studies at once, each killed a dozen times over; every occurrence number differs."""
    firsts = [*OPENING, "driver.suggested", "driver.started"]
    seconds = ["driver.dispatched", "driver.heard:2", "driver.reported", "driver.answered"]
    thirds = ["ledger.finishing", "driver.told", "driver.tidying:3", "driver.dispatched:2", "driver.ending"]
    assert {f.partition(":")[0] for f in (*firsts, *seconds, *thirds)} >= {
        p for p in POINTS if p.startswith(("driver.", "ledger.", "study.", "lock.", "files."))
    }
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(end_at, program(str(i)), f, whole) for i, f in enumerate((firsts, seconds, thirds))]
        struck = [run.result() for run in runs]
    assert struck[0] == set(firsts) and struck[1] == set(seconds) and struck[2] == set(thirds)


BY_THE_DRIVER = (
    *("driver.started", "driver.dispatched:2", "driver.heard:3"),
    *("driver.reported:5", "ledger.finishing:2", "driver.told:3"),
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
def test_the_driver_killed_by_its_worker_and_the_whole_group(program, whole):
    here = program()
    assert end_at(here, ["worker.sent:2:other", "checkpoint.saved:3:both", "epoch.begun:4:group"], whole)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["self", "other", "both", "group"])
def test_every_point_in_every_way(who, program, whole):
    """`other`: a worker's points, at which the driver dies; the driver's are in the test above."""
    points = [p for p in POINTS if p not in NOT_IN_THE_ANALYTIC and (who != "other" or p in WORKERS)]
    here = program()
    end_at(here, [f"{point}:{1 + i % 3}:{who}" for i, point in enumerate(points)], whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_eighty_kills_at_random_times(seed, program, harness, whole):
    """Twenty kills for each of four studies: driver, worker, both, group."""
    here, chance = program(epoch_ms=15), random.Random(seed)
    for i in range(20):
        harness.kill_at(here, chance.uniform(0.05, 3.0), ("driver", "worker", "both", "group")[(i + seed) % 4])
    here.finish()
    here.assert_equals(whole)
