"""One driver for a study in a file; a database server that goes away in mid-study is waited for."""

from __future__ import annotations

import os
import subprocess
import threading
import time

import pytest


def wait_for(here, point, count=1, timeout=90.0):
    deadline = time.monotonic() + timeout
    while not (here.marks / "passed").exists() or sum(name == point for name, *_ in here.passed()) < count:
        assert time.monotonic() < deadline, f"{point} was not passed {count} times"
        time.sleep(0.01)


@pytest.mark.slow
def test_a_second_driver_is_told_whose_study_it_is(program):
    here = program(epoch_ms=60)
    first = here.start(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(here, "driver.reported", 2)
    second = here.run()
    assert second.code == 4
    assert f"process {first.pid} on {os.uname().nodename} since " in second.err
    assert len([r for r in here.records() if r.state == "running"]) == 1
    first.kill()
    first.wait()


@pytest.fixture
def on_postgres(program, postgres_server):
    """The program with its study on a server of its own, named through the environment."""

    def make(name="here", **settings):
        here = program(name, **settings)
        here.environment = {"SEARCHFT_STORAGE": postgres_server.fresh_database()}
        return here

    return make


@pytest.mark.slow
@pytest.mark.postgres
def test_a_server_restarted_in_mid_study_loses_and_doubles_nothing(on_postgres, postgres_server, whole):
    here = on_postgres(epoch_ms=60)
    process = here.start()
    wait_for(here, "driver.reported", 6)
    postgres_server.stop()
    time.sleep(2)
    postgres_server.start()
    wait_for(here, "driver.reported", 20)
    postgres_server.stop()
    postgres_server.start()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    here.assert_equals(whole)
    assert here.recomputed() == 0
    assert postgres_server.password not in err


@pytest.mark.slow
@pytest.mark.postgres
def test_an_outage_of_a_minute_is_waited_for(on_postgres, postgres_server, whole):
    here = on_postgres(epoch_ms=60)
    process = here.start()
    wait_for(here, "driver.reported", 6)
    postgres_server.stop()
    comes_back = threading.Timer(65, postgres_server.start)
    comes_back.start()
    try:
        _, err = process.communicate(timeout=240)
    finally:
        comes_back.join()
    assert process.returncode == 0, err
    here.assert_equals(whole)
    assert here.recomputed() == 0


@pytest.mark.slow
@pytest.mark.postgres
def test_a_killed_driver_on_this_host_is_replaced_at_once(on_postgres, whole):
    """No lease has to run out: the lock went with its connection."""
    here = on_postgres()
    for fault in ("driver.dispatched:2", "driver.heard:9", "ledger.finishing:2:group"):
        assert here.run(fault).code == -9
        here.kills += 1
    started = time.monotonic()
    here.finish()
    assert time.monotonic() - started < 30
    here.assert_equals(whole)
