"""The same study on a real PostgreSQL server, which is stopped and started in the middle."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from searchft.errors import InputError, StorageError
from searchft.search import claims as claims_module
from searchft.search import storage as storage_module
from searchft.search import study as study_module
from searchft.search.claims import ClaimLostError, DecisionLostError, identity
from searchft.search.ledger import Ledger, environment

pytestmark = pytest.mark.postgres

DRIVE = """
url, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
sys.stdin.readline()
ledger = Ledger.open(url, name, folder, create=True)
ledger.pin(space, facts, environment())
with ledger.deciding():
    ledger.start(suggest(space, facts, ledger.records(), 0), 0, owner=identity())
print("driving", os.getpid(), flush=True)
sys.stdin.readline()
"""
"""Creates a study, begins trial 0, and waits."""

DECIDE = """
ledger = Ledger.open(sys.argv[1], sys.argv[2], Path(sys.argv[3]), create=False)
with ledger.deciding():
    print("deciding", flush=True)
    sys.stdin.readline()
"""

CREATE = """
import dataclasses
from searchft.search.ground import Ground
from searchft.search.start import open_study
ground = Ground()
ground.describe, ground.explain = lambda s, cache, device: (facts, cache), lambda s, f: []
sys.stdin.readline()
for round in range(13):
    study = open_study(dataclasses.replace(space, name=f"s{round}"), Path(sys.argv[2]), storage=sys.argv[1], ground=ground)
    print(study.space.name, study.facts.data.fingerprint[:8], flush=True)
    study.ledger.close()
"""
"""Opens study after study through the front door, all processes the same ones at the same time."""

CLAIM = """
import dataclasses, itertools
from searchft.search.suggest import Suggestion
study = dataclasses.replace(space, name="claims")
chosen = {"unfrozen": "layer4"}
recipe = study.resolve(chosen)
with Ledger.open(sys.argv[1], "claims", Path(sys.argv[2]), create=True) as ledger:
    with ledger.deciding():
        if not ledger.pinned:
            ledger.pin(study, facts, environment())
    while True:
        with ledger.deciding():
            ledger.records()
            number = ledger.next_number()
            if number >= 2000:
                break
            begun = ledger.start(Suggestion(chosen, recipe, recipe.key(facts)), number)
        print(begun.number, flush=True)
        ledger.report(begun.number, 1, 0.5)
        ledger.finish(begun.number, "complete", 0.5)
"""
"""Begins and ends trials beside others until there are 2,000; prints the numbers of those that it ran."""


@pytest.fixture
def ledger(url, tmp_path, small, facts):
    with Ledger.open(url, "small", tmp_path / "here", create=True) as opened:
        opened.pin(small, facts, environment())
        yield opened


@pytest.fixture
def other(ledger, url, tmp_path):
    """A second driver of the same study."""
    with Ledger.open(url, "small", tmp_path / "elsewhere", create=False) as opened:
        yield opened


def test_a_missing_study_is_the_users_mistake_and_nothing_is_created(url, tmp_path):
    import psycopg

    with pytest.raises(InputError, match="no study 'small'"):
        Ledger.open(url, "small", tmp_path / "x", create=False)
    assert not (tmp_path / "x").exists()
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert cursor.fetchone()[0] == 0


def test_two_drivers_share_a_study_and_each_runs_its_own_trials(ledger, other, small, suggestion_of):
    first, second = suggestion_of(small, unfrozen="layer4"), suggestion_of(small)
    with ledger.deciding():
        ledger.records()
        ledger.start(first, ledger.next_number(), owner=identity())
    assert other.shared and other.take_over(other.records()) == []  # it has an owner
    with other.deciding():
        records = other.records()
        assert [r.key for r in records] == [first.key]
        other.start(second, other.next_number(), owner=identity())
    with pytest.raises(ClaimLostError):
        other.report(0, 1, 0.5)
    ledger.report(0, 1, 0.5)
    ledger.finish(0, "complete", 0.5)
    assert [(r.state, r.value) for r in other.records()] == [("complete", 0.5), ("running", None)]
    other.close()  # its trial is nobody's then
    (orphan,) = ledger.take_over(ledger.records())
    assert (orphan.number, orphan.key) == (1, second.key)
    ledger.report(1, 1, 0.25)


def test_deciding_keeps_other_drivers_out(ledger, url, tmp_path, child):
    process = child(DECIDE, url, "small", str(tmp_path / "there"))
    assert process.stdout.readline() == "deciding\n"
    begun = time.monotonic()
    threading.Timer(0.5, lambda: (process.stdin.write("go\n"), process.stdin.flush())).start()
    with ledger.deciding():
        assert time.monotonic() - begun >= 0.4
    process.communicate(timeout=30)


@pytest.mark.slow
def test_hazard_6_a_hundred_starts_of_one_study_at_once(child, url, tmp_path):
    """Stock Optuna: 31 of 40 fail. Eight processes at a time create or join a study in an empty database, thirteen times over."""
    waves = [child(CREATE, url, str(tmp_path / str(i)), str(i)) for i in range(8)]
    said = [process.communicate("go\n", timeout=240) for process in waves]
    assert [err for _, err in said] == [""] * 8
    opened = [line.split() for out, _ in said for line in out.splitlines()]
    assert len(opened) == 104
    for study in {name for name, _ in opened}:
        assert len({facts for name, facts in opened if name == study}) == 1  # all found what one of them had pinned


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_thousand_trials_by_eight_processes_and_none_begun_twice(child, url, tmp_path):
    eight = [child(CLAIM, url, str(tmp_path / str(i)), str(i)) for i in range(8)]
    begun: list[int] = []
    for process in eight:
        out, err = process.communicate(timeout=800)
        assert err == "" and process.returncode == 0
        begun += [int(line) for line in out.splitlines()]
    assert sorted(begun) == list(range(2000))
    with Ledger.open(url, "claims", tmp_path / "reader", create=False, exclusive=False) as reader:
        assert [r.state for r in reader.records()] == ["complete"] * 2000


def test_the_trials_of_a_killed_driver_are_free_at_once(child, url, tmp_path, small):
    process = child(DRIVE, url, "small", str(tmp_path / "there"))
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith("driving")
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    with Ledger.open(url, "small", tmp_path / "here", create=False) as ledger:
        while not ledger.take_over(ledger.records()):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_after_a_restart_owners_come_first(ledger, other, postgres_server, small, suggestion_of, monkeypatch):
    ledger.start(suggestion_of(small), 0, owner={"pid": 1, "host": "far-away", "boot_id": "x", "since": "then"})
    postgres_server.stop()
    postgres_server.start()
    assert other.take_over(other.records()) == []  # its owner has a minute to come back
    ledger.report(0, 1, 0.5)
    monkeypatch.setattr(claims_module, "GRACE_S", 0.0)
    assert other.take_over(other.records()) == []  # and has
    postgres_server.stop()
    postgres_server.start()
    assert [r.number for r in other.take_over(other.records())] == [0]  # it came too late this time
    with pytest.raises(ClaimLostError, match="another driver's now"):
        ledger.report(0, 2, 0.75)
    other.report(0, 2, 0.75)
    other.finish(0, "complete", 0.75)


@pytest.mark.slow
def test_a_server_restart_in_mid_study_loses_and_doubles_nothing(ledger, other, postgres_server, small, suggestion_of):
    ledger.start(suggestion_of(small, unfrozen="layer4"), 0)
    ledger.report(0, 1, 0.25)
    postgres_server.stop()
    comes_back = threading.Timer(1.5, postgres_server.start)
    comes_back.start()
    try:
        ledger.report(0, 2, 0.5)  # waits
        ledger.finish(0, "complete", 0.5)
        postgres_server.stop()
        postgres_server.start()
        ledger.start(suggestion_of(small), 1)
    finally:
        comes_back.join()
    assert [(r.number, r.state, r.curve) for r in ledger.records()] == [(0, "complete", (0.25, 0.5)), (1, "running", ())]
    assert other.take_over(other.records()) == []  # trial 1 has its owner, which took its lock again


def a_trial_and_its_answer(ledger, chosen):
    """Everything that a ledger writes, once; what came of it, as the database says."""
    with ledger.deciding():
        ledger.records()
        number = ledger.next_number()
        ledger.start(chosen, number, owner=identity())
    ledger.report(number, 1, 0.25)
    ledger.annotate(number, retries=1)
    ledger.report(number, 2, 0.5)
    ledger.finish(number, "pruned", 0.5, "too slow", {"best_epoch": 2}, infeasible=True)
    with ledger.deciding():
        ledger.records()
        ledger.answer(chosen, number + 1, ledger.record(number))
    rows = ledger._do(lambda: ledger._storage.get_all_trials(ledger.optuna_study._study_id))[number:]
    return [(t.state, t.value, t.params, t.intermediate_values, t.constraints, sorted(t.user_attrs)) for t in rows]


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before a statement", "after a commit"])
def test_connections_lost_at_every_single_statement_lose_and_double_nothing(
    when, postgres_server, small, facts, suggestion_of, tmp_path, monkeypatch
):
    """Before a statement: nothing of it arrived. After a commit: it is written, but nobody could say so."""
    import psycopg
    import sqlalchemy

    monkeypatch.setattr(study_module, "FIRST_WAIT_S", 0.01)
    url = postgres_server.fresh_database()
    administrator = psycopg.connect(postgres_server.url(), autocommit=True)
    database = url.rpartition("/")[2]

    counted, strike = 0, 0

    def lost() -> bool:
        nonlocal counted
        counted += 1
        if counted == strike:
            ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            administrator.execute(ours, (database,))
        return counted == strike

    with Ledger.open(url, "small", tmp_path, create=True) as ledger:
        ledger.pin(small, facts, {})
        engine, chosen = ledger._storage._backend.engine, suggestion_of(small, unfrozen="layer4")
        commit = engine.dialect.do_commit

        def commit_unheard(connection: Any) -> None:
            commit(connection)
            if lost():
                connection.driver_connection.close()
                raise psycopg.OperationalError("server closed the connection unexpectedly")

        if when == "after a commit":
            monkeypatch.setattr(engine.dialect, "do_commit", commit_unheard)
        else:
            sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *_: lost())
        expected = a_trial_and_its_answer(ledger, chosen)  # nothing is lost in it
        chances = counted
        assert len(expected) == 2 and chances > 8
        for strike in range(1, chances + 1):
            counted = 0
            assert a_trial_and_its_answer(ledger, chosen) == expected, f"lost at {strike} of {chances}"
            assert counted >= strike
    administrator.close()


def test_a_server_that_stays_away_is_a_storage_error(ledger, postgres_server, small, suggestion_of):
    ledger._patience_s = 0.5
    postgres_server.stop()
    try:
        with pytest.raises(StorageError, match="run again") as caught:
            ledger.start(suggestion_of(small), 0)
        assert "s3cr3t" not in str(caught.value)
    finally:
        postgres_server.start()
    ledger.start(suggestion_of(small), 0)
    assert len(ledger.records()) == 1


def test_a_wrong_password_and_a_missing_database_say_what_to_do(postgres_server, tmp_path):
    with pytest.raises(StorageError, match="Check user and password") as caught:
        Ledger.open(postgres_server.url(password="wr0ng-w0rd"), "small", tmp_path / "x", create=True)
    assert "wr0ng" not in str(caught.value)
    with pytest.raises(StorageError, match="Create the database first"):
        Ledger.open(postgres_server.url("nowhere"), "small", tmp_path / "x", create=True)


def test_an_unreachable_host_says_so(tmp_path):
    with pytest.raises(StorageError, match="Check that the database server runs"):
        Ledger.open("postgresql://me:hunter2@127.0.0.1:1/db", "small", tmp_path / "x", create=True)


# ---- locks that are lost while their owner lives ----


def end_claims(postgres_server, url, ledger):
    """Ends the session that holds a driver's locks, as an administrator or a standby's promotion would."""
    import psycopg

    with psycopg.connect(postgres_server.url(), autocommit=True) as administrator:
        question = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s AND application_name = %s"
        assert administrator.execute(question, (url.rpartition("/")[2], ledger._claims._name)).fetchone()[0] == 1
    time.sleep(0.1)


FAR = {"pid": 1, "host": "far-away", "boot_id": "x", "since": "then"}


def test_a_zombies_late_epoch_is_not_written(ledger, other, postgres_server, url, small, suggestion_of, monkeypatch):
    """The driver has looked, stops for a while (a swapped machine), and another takes its trial over before it writes."""
    monkeypatch.setattr(study_module, "FIRST_WAIT_S", 0.01)
    ledger.start(suggestion_of(small), 0, owner=FAR)
    looked = ledger._claims.ensure

    def taken_over_after_the_look():
        monkeypatch.setattr(ledger._claims, "ensure", looked)
        end_claims(postgres_server, url, ledger)
        monkeypatch.setattr(claims_module, "GRACE_S", 0.0)
        assert [r.number for r in other.take_over(other.records())] == [0]
        other.report(0, 1, 0.5)

    monkeypatch.setattr(ledger._claims, "ensure", taken_over_after_the_look)
    with pytest.raises(ClaimLostError):
        ledger.report(0, 1, 0.9)
    other.finish(0, "complete", 0.5)
    with pytest.raises(ClaimLostError):
        ledger.finish(0, "complete", 0.9)
    assert [(r.state, r.value, r.curve, r.reason) for r in other.records()] == [("complete", 0.5, (0.5,), "")]


def test_an_owner_whose_session_was_ended_has_a_minute_to_come_back(
    ledger, other, postgres_server, url, small, suggestion_of, monkeypatch
):
    ledger.start(suggestion_of(small), 0, owner=FAR)
    end_claims(postgres_server, url, ledger)
    assert other.take_over(other.records()) == []
    ledger.keep_claims()  # in the middle of a long epoch
    monkeypatch.setattr(claims_module, "GRACE_S", 0.0)
    assert other.take_over(other.records()) == []
    ledger.report(0, 1, 0.5)


@pytest.mark.parametrize("answered", [False, True])
def test_a_driver_that_lost_the_right_to_decide_decides_again(
    answered, other, ledger, postgres_server, url, small, suggestion_of
):
    chosen = suggestion_of(small, unfrozen="layer4")
    ledger.start(chosen, 0, owner=identity())
    ledger.finish(0, "complete", 0.5)
    with pytest.raises(DecisionLostError), ledger.deciding():
        ledger.records()
        number = ledger.next_number()
        end_claims(postgres_server, url, ledger)
        with other.deciding():
            other.records()
            other.start(suggestion_of(small), other.next_number(), owner=identity())
        if answered:
            ledger.answer(chosen, number, ledger.record(0))
        else:
            ledger.start(chosen, number, owner=identity())
    with ledger.deciding():
        assert [r.number for r in ledger.records()] == [0, 1]
        ledger.answer(chosen, ledger.next_number(), ledger.record(0))
    assert [r.state for r in ledger.records()] == ["complete", "running", "complete"]


def test_a_machine_that_vanished_inside_a_transaction_blocks_nobody_for_long(
    url, tmp_path, small, facts, suggestion_of, monkeypatch
):
    import sqlalchemy

    monkeypatch.setattr(storage_module, "TRANSACTION_TIMEOUT_S", 1)
    monkeypatch.setattr(study_module, "FIRST_WAIT_S", 0.01)
    with Ledger.open(url, "small", tmp_path, create=True) as ledger:
        ledger.pin(small, facts, {})
        vanished = storage_module._server_engine(url).connect()
        vanished.execute(sqlalchemy.text("SELECT * FROM studies FOR UPDATE"))
        begun = time.monotonic()
        ledger.start(suggestion_of(small), 0)
        assert 0.5 < time.monotonic() - begun < 10
        assert [r.number for r in ledger.records()] == [0]


def test_what_python_returns_opens_the_study_for_optuna(ledger, url, tmp_path, small, facts, suggestion_of):
    """The URL that is shown has no password, and cannot be connected with."""
    from searchft.api import FinishedStudy

    ledger.start(suggestion_of(small), 0)
    ledger.finish(0, "complete", 0.5)
    study = FinishedStudy(small, facts, tmp_path, ledger.url, tuple(ledger.records()), "trials", ledger.database_url)
    assert study.optuna_study().best_value == 0.5 and "s3cr3t" not in repr(study)
