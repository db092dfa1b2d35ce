"""Kill anything, any time: the next run finishes the study, and no number tells that anything happened."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from searchft import faults
from searchft.data import open_images
from searchft.faults import POINTS
from searchft.features.store import FeatureStore
from searchft.recipe import DataSettings
from searchft.train.checkpoints import check_delta
from tests.benchmarks import kill_table, ray_kill_table

WORKERS = tuple(name for name in POINTS if name.startswith(("worker.", "epoch.", "checkpoint.")))


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


DRIVERS = (
    "driver.started",
    "driver.dispatched:2",
    "driver.received:3",
    "driver.reported:5",
    "ledger.finishing:2",
    "driver.finished:3",
)


@pytest.mark.slow
@pytest.mark.parametrize(("who", "points"), [("self", WORKERS), ("other", DRIVERS)])
def test_the_worker_killed_at_every_point(who, points, program, whole):
    """`self`: at every point of its own, in one run. `other`: by the driver at every point of the driver's round."""
    faults = [f"{point if ':' in point else point + ':1'}:{who}" for point in points]
    here = program()
    here.finish(",".join(faults))
    assert here.struck() == set(faults)
    here.kills = len(faults)
    here.assert_equals(whole)
    assert 1 <= sum(r.extra.get("retries", 0) for r in here.records()) <= len(faults)


@pytest.mark.slow
def test_the_driver_killed_at_every_point_of_its_own(program, whole):
    """Three studies at once, each killed several times over; every occurrence number differs."""
    # in the third, whoever takes over from a driver that died with its worker dies as well
    studies = (
        "lock.taken study.created study.pinning:2 study.pinned files.written:2 files.replaced:2",
        "driver.suggested driver.started:2 driver.dispatched driver.received:2 driver.reported driver.answered",
        "ledger.finishing driver.finished driver.cleaning:3 worker.sent:3:both driver.dispatched driver.ending",
    )
    struck = {fault.partition(":")[0] for faults in studies for fault in faults.split()}
    assert struck >= {p for p in POINTS if p.startswith(("driver.", "ledger.", "study.", "lock.", "files."))}
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(end_at, program(str(i)), faults.split(), whole) for i, faults in enumerate(studies)]
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


def kill_writer_at(point, write):
    """Ends a copy of this process where it passes the point."""
    child = os.fork()
    if child == 0:
        faults._FAULT, faults._ARMED = point, True
        try:
            write()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9, point


@pytest.mark.parametrize("point", ["store.writing", "store.writing:2", "cache.written", "cache.renamed"])
def test_frozen_values_whose_writer_was_killed_are_whole_or_computed_again(point, tmp_path):
    def compute(start, stop):
        calls.append(start)
        return (torch.arange(start * 8, stop * 8, dtype=torch.float32).reshape(-1, 8),)

    calls, store = [], FeatureStore(tmp_path, 1 << 20)
    kill_writer_at(point, lambda: store.values("ab" * 8, 600, compute))
    (values,) = store.values("ab" * 8, 600, compute)
    assert bool(calls) == (point != "cache.renamed")
    assert torch.equal(values, compute(0, 600)[0]) and not [*tmp_path.glob(".building-*")]


@pytest.mark.parametrize("point", ["images.writing", "cache.written"])
def test_images_whose_writer_was_killed_are_decoded_again(point, tmp_path):
    settings = DataSettings(source="orl_faces", split=(("train", 1), ("val", 1), ("test", 1)), image_size=16)
    kill_writer_at(point, lambda: open_images(settings, tmp_path))
    assert [*tmp_path.glob("images/.building-*")]
    assert len(open_images(settings, tmp_path).split("train").labels) == 40
    assert not [*tmp_path.glob("images/.*")]


def assert_equals_real(here, real_whole):
    """In every number, and in every value of every trial's best weights. Not in their files: metadata's order is by chance."""
    mine, theirs = (
        {str(p.relative_to(one.study)): check_delta(p) for p in one.study.glob("trials/*/best.safetensors")}
        for one in (here, real_whole)
    )
    here.assert_equals(real_whole.numbers())
    assert mine == theirs


@pytest.mark.slow
def test_every_point_of_a_real_worker(program, harness, real_whole):
    """Stores, checkpoints and epochs: killed once at each, the study and its best weights are the same, bit for bit."""
    here = program(text=harness.REAL, epoch_ms=0)
    for point in ("images.writing", "cache.written", "cache.renamed"):  # the driver decodes
        assert here.run(point).code == -9
    points = ["store.writing:1", "cache.written:1", "cache.renamed:1", "epoch.begun:2", "worker.epoch:3", "worker.done:1"]
    points += ["worker.locked:2", "checkpoint.best:2", "checkpoint.saved:4", "worker.sent:3", "worker.job:1"]
    faults = [f"{point}:self" for point in points]
    here.finish(",".join(faults))
    assert set(faults) <= here.struck()
    here.kills = len(faults)
    assert_equals_real(here, real_whole)


@pytest.mark.parametrize("kills", [pytest.param(3, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.exhaustive)])
def test_kills_of_the_real_program_at_random_times(kills, program, harness, real_whole):
    here, chance = program(text=harness.REAL, epoch_ms=0), random.Random(5)
    for i in range(kills):
        harness.kill_at(here, chance.uniform(1.0, 14.0), ("driver", "worker", "both", "group")[i % 4])
    here.finish()
    assert_equals_real(here, real_whole)


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
