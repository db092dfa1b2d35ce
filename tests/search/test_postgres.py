"""The same study on a real PostgreSQL server, which is stopped and started in the middle."""

from __future__ import annotations

import threading
import time

import pytest

from searchft.errors import InputError, StorageError
from searchft.search import ledger as ledger_module
from searchft.search.ledger import Ledger, environment

pytestmark = pytest.mark.postgres

DRIVE = """
url, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
sys.stdin.readline()
try:
    ledger = Ledger.open(url, name, folder, create=True)
except StorageError as error:
    print("refused", error, flush=True)
    sys.exit(4)
ledger.pin(space, facts, environment())
print("driving", os.getpid(), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def url(postgres_server):
    return postgres_server.fresh_database()


@pytest.fixture
def ledger(url, tmp_path, small, facts):
    with Ledger.open(url, "small", tmp_path / "here", create=True) as opened:
        opened.pin(small, facts, environment())
        yield opened


def test_a_study_is_pinned_run_and_read_again(ledger, url, tmp_path, small, facts, suggestion_of):
    chosen = suggestion_of(small, "ModelA", unfrozen="layer4", head_widths=(256, 128), dropout=0.5)
    ledger.start(chosen, 0)
    ledger.report(0, 1, 0.5, {"train_loss": 0.25, "seconds": 1.0})
    ledger.report(0, 2, float("nan"))
    ledger.finish(0, "complete", 0.5)
    ledger.answer(chosen, 1, ledger.records()[0])
    with Ledger.open(url, "small", tmp_path / "here", create=False, exclusive=False) as reader:
        assert reader.space() == small and reader.facts() == facts
        first, second = reader.records()
        assert first.params == {"unfrozen": "layer4", "head_widths": "256+128", "dropout": 0.5}
        assert first.curve[0] == 0.5 and len(first.curve) == 2 and second.answered_from == 0
        assert "s3cr3t" not in reader.url


def test_a_missing_study_is_the_users_mistake_and_nothing_is_created(url, tmp_path):
    import psycopg2

    with pytest.raises(InputError, match="no study 'small'"):
        Ledger.open(url, "small", tmp_path / "x", create=False)
    assert not (tmp_path / "x").exists()
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert cursor.fetchone()[0] == 0


def test_a_second_driver_from_another_folder_is_told_whose_it_is(ledger, url, tmp_path):
    import os

    with pytest.raises(StorageError, match=f"process {os.getpid()} on ") as caught:
        Ledger.open(url, "small", tmp_path / "elsewhere", create=False)
    assert "s3cr3t" not in str(caught.value)
    ledger.close()
    Ledger.open(url, "small", tmp_path / "elsewhere", create=False).close()


def test_hazard_6_studies_created_at_once_in_one_empty_database(child, url, tmp_path):
    """Stock Optuna: 31 of 40 fail. Here each of two studies gets one driver and the third process is turned away."""
    names = ["a", "b", "b"]
    children = [child(DRIVE, url, name, str(tmp_path / str(i))) for i, name in enumerate(names)]
    for process in children:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.stdout.readline().split()[0] for process in children]
    assert said[0] == "driving" and sorted(said[1:]) == ["driving", "refused"]
    for process in children:
        assert process.communicate("\n", timeout=30)[1] == ""


def test_the_lock_of_a_killed_driver_is_free_at_once(child, url, tmp_path):
    process = child(DRIVE, url, "small", str(tmp_path / "there"))
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith("driving")
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while True:
        try:
            Ledger.open(url, "small", tmp_path / "here", create=False).close()
            break
        except StorageError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_server_restart_in_mid_study_loses_and_doubles_nothing(
    ledger, postgres_server, small, facts, suggestion_of, url, tmp_path
):
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
    with pytest.raises(StorageError, match="is being run by"):  # the lock was taken again
        Ledger.open(url, "small", tmp_path / "elsewhere", create=False)


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


def test_a_long_pinned_value_is_whole(ledger, small, facts, monkeypatch):
    monkeypatch.setattr(ledger_module, "PIECE_LENGTH", 1000)
    ledger.pin(small, facts, {"note": "é" * 50_000})
    ledger._space = None
    assert ledger.environment() == {"note": "é" * 50_000} and ledger.space() == small
