"""The persistent study on real SQLite: nothing half written, nothing lost, one driver."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time

import optuna
import pytest

from searchft.errors import InputError, StorageError
from searchft.search import storage as storage_module
from searchft.search.databases import default_url, list_studies
from searchft.search.ledger import Ledger, environment


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "studies" / "small"


@pytest.fixture
def ledger(folder, small, facts):
    with Ledger.open("", "small", folder, create=True) as opened:
        opened.pin(small, facts, environment())
        yield opened


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def either(request, folder, small, facts):
    """The same ledger on both databases."""
    url = request.getfixturevalue("url") if request.param == "postgres" else ""
    with Ledger.open(url, "small", folder, create=True) as opened:
        opened.pin(small, facts, environment())
        yield opened


def run_trial(ledger, suggestion, number, *values, state="complete", reason="", **finish):
    """A trial from its start to its end."""
    ledger.start(suggestion, number)
    for epoch, value in enumerate(values, 1):
        ledger.report(number, epoch, value)
    ledger.finish(number, state, values[-1] if values else None, reason, **finish)
    return ledger.record(number)


def test_what_was_pinned_comes_back_whole(either, folder, small, facts):
    either.pin(small, facts, environment() | {"note": "é" * 50_000})
    with Ledger.open(either.database_url, "small", folder, create=False, exclusive=False) as again:
        assert again.pinned and again.space() == small and again.facts() == facts and "s3cr3t" not in again.url
        found = again.environment()
        assert found["versions"]["optuna"] == optuna.__version__ and found["host"] and found["note"] == "é" * 50_000


def test_what_was_pinned_in_several_pieces_is_read_and_damage_is_noticed(ledger, folder):
    """Studies made before 0.1.0 have their texts in pieces of 15,000 characters."""
    text = json.dumps({"note": "x" * 500})
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    for i in range(0, 6):
        ledger._set_attribute(f"environment.{sha256[:12]}.{i}", text[100 * i : 100 * (i + 1)])
    ledger._set_attribute("environment", {"sha256": sha256, "pieces": 6})
    assert ledger.environment() == {"note": "x" * 500}
    change(folder, "UPDATE study_user_attributes SET value_json = replace(value_json, 'xx', 'yy') WHERE key LIKE 'env%.3'")
    with pytest.raises(StorageError, match=r"environment.*damaged"):
        ledger.environment()


def change(folder, statement):
    """What damage, or another program, does to one row of the file."""
    with contextlib.closing(sqlite3.connect(folder / "study.db")) as connection, connection:
        assert connection.execute(statement).rowcount == 1


def test_a_study_whose_creation_was_cut_short_says_so(folder):
    Ledger.open("", "small", folder, create=True).close()
    with Ledger.open("", "small", folder, create=False) as again:
        assert not again.pinned
        with pytest.raises(StorageError, match="cut short"):
            again.space()


def test_a_study_that_is_not_there_is_the_users_mistake_and_nothing_is_created(folder):
    with pytest.raises(InputError, match="no study 'small'"):
        Ledger.open("", "small", folder, create=False)
    assert not folder.exists()


def test_a_trial_goes_from_start_to_finish(either, small, suggestion_of):
    chosen = suggestion_of(small, "ModelA", unfrozen="layer4", head_widths=(256, 128), dropout=0.5)
    either.start(chosen, 0, owner="cpu:0")
    (running,) = either.records()
    assert (running.state, running.recipe, running.key, running.name) == ("running", chosen.recipe, chosen.key, "ModelA")
    assert running.params == {"unfrozen": "layer4", "head_widths": "256+128", "dropout": 0.5}
    assert running.extra["owner"] == "cpu:0"
    for epoch, value in enumerate((0.25, 0.5, 0.5), 1):
        assert either.report(0, epoch, value)
        assert either.records()[0].curve == (0.25, 0.5, 0.5)[:epoch]
    curves = {"train_loss": [1.0, 0.5, 1 / 3], "seconds": [2.0, 2.0, 2.0]}
    either.finish(0, "complete", 0.5, extra={"trained_parameters": 1234, "best_epoch": 2, "curves": curves})
    (done,) = either.records()
    assert (done.state, done.value, done.curve, done.seconds) == ("complete", 0.5, (0.25, 0.5, 0.5), 6.0)
    assert done.extra["trained_parameters"] == 1234 and done.extra["curves"] == curves


def test_what_older_studies_keep_in_attributes_of_their_own_is_read(ledger, small, suggestion_of):
    ledger.start(suggestion_of(small, unfrozen="layer4"), 0)
    ledger.annotate(0, trained_parameters=7, curves={"seconds": [1.5, None]})
    ledger.finish(0, "complete", 0.5)
    done = ledger.record(0)
    assert (done.extra["trained_parameters"], done.seconds) == (7, 1.5)


def test_reporting_and_finishing_may_be_repeated(either, small, suggestion_of):
    either.start(suggestion_of(small, unfrozen="layer4"), 0)
    assert either.report(0, 1, 0.5)
    assert not either.report(0, 1, 0.5)
    assert either.report(0, 2, math.nan)
    assert not either.report(0, 2, math.nan)
    assert either.report(0, 1, 0.25)  # computed again, with another result: that one's weights exist
    with pytest.raises(ValueError, match="epoch 4"):
        either.report(0, 4, 0.5)
    for value in (None, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            either.finish(0, "complete", value)
    for _ in range(2):
        either.finish(0, "pruned", 0.25, "below the median")
    with pytest.raises(StorageError, match=r"had finished as pruned|another driver"):
        either.finish(0, "complete", 0.9)
    with pytest.raises(StorageError, match=r"not running|another driver"):
        either.report(0, 3, 0.5)
    (record,) = either.records()
    assert record.curve[0] == 0.25 and math.isnan(record.curve[1]) and record.reason == "below the median"


def test_an_infeasible_trial_is_marked_for_optuna_and_answers(ledger, folder, small, suggestion_of):
    chosen = suggestion_of(small, unfrozen="layer4")
    run_trial(ledger, chosen, 0, state="failed", reason="out of memory", infeasible=True)
    record = ledger.trials().answer_to(chosen.key)
    assert record.infeasible and record.reason == "out of memory"
    ledger.answer(chosen, 1, record)
    answered = ledger.records()[1]
    assert (answered.state, answered.infeasible, answered.answered_from) == ("pruned", True, 0)
    plain = optuna.load_study(study_name="small", storage=default_url(folder))
    assert [t.constraints for t in plain.trials] == [{"feasible": 1.0}] * 2


def test_a_repeat_is_answered_in_one_step_without_a_curve(either, small, suggestion_of):
    chosen = suggestion_of(small, unfrozen="layer4")
    first = run_trial(either, chosen, 0, 0.75, extra={"trained_parameters": 7})
    either.answer(chosen, 1, first)
    answered = either.records()[1]
    assert (answered.state, answered.value, answered.curve, answered.answered_from) == ("complete", 0.75, (), 0)
    assert answered.extra == {} and answered.seconds == 0
    either.answer(dataclasses.replace(chosen, name="a row of a table"), 2, first)
    assert either.records()[2].extra == {"trained_parameters": 7}
    with pytest.raises(ValueError, match="no answer"):
        either.answer(suggestion_of(small, unfrozen="head"), 3, first)


def test_a_number_that_is_not_the_next_is_refused_and_nothing_is_written(ledger, small, suggestion_of):
    with pytest.raises(StorageError, match="Another program"):
        ledger.start(suggestion_of(small), 3)
    assert ledger.records() == [] and ledger.next_number() == 0


def test_trials_of_other_hands_are_passed_over_but_keep_their_numbers(ledger, folder, small, suggestion_of):
    optuna.load_study(study_name="small", storage=default_url(folder)).enqueue_trial({"x": 1})
    ledger.start(suggestion_of(small), 1)
    assert [r.number for r in ledger.records()] == [1]


def test_plain_optuna_reads_real_values(ledger, folder, small, suggestion_of):
    run_trial(ledger, suggestion_of(small, unfrozen="layer4", head_widths=(256, 128), dropout=0.5), 0, 0.5, 0.75)
    ledger.start(suggestion_of(small, unfrozen="head", head_widths=()), 1)
    study = optuna.load_study(study_name="small", storage=default_url(folder))
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.best_trial.params == {"unfrozen": "layer4", "head_widths": "256+128", "dropout": 0.5}
    assert study.best_trial.intermediate_values == {1: 0.5, 2: 0.75}
    assert study.best_trial.distributions["dropout"].choices == (0.0, 0.5)
    assert study.trials[1].state == optuna.trial.TrialState.RUNNING
    assert study.trials[1].params == {"unfrozen": "head", "head_widths": "linear"}


def test_labels_keep_their_types(tmp_path, facts, space_of, suggestion_of):
    space = space_of("recipe.unfrozen=[2, layer4, all]", "recipe.auxiliary=[false, true]", "recipe.lr=[1, 0.5]")
    with Ledger.open("", space.name, tmp_path / "s", create=True) as ledger:
        ledger.pin(space, facts, {})
        chosen = {"unfrozen": 2, "auxiliary": True, "batch_size": 128, "lr": 0.5}
        ledger.start(suggestion_of(space, **chosen), 0)
        params = ledger.records()[0].params
    assert {n: (type(v), v) for n, v in params.items()} == {n: (type(v), v) for n, v in chosen.items()}


def test_a_fork_takes_finished_trials_along(ledger, tmp_path, small, facts, suggestion_of):
    extra = {"trained_parameters": 9, "curves": {"train_loss": [0.3], "seconds": [1.5]}}
    original = run_trial(ledger, suggestion_of(small, unfrozen="layer4"), 0, 0.5, extra=extra)
    with Ledger.open("", "small@2", tmp_path / "studies" / "small@2", create=True) as fork:
        fork.pin(small, facts, {})
        fork.adopt(original, 0, {**original.params, "gone": 1}, "small")
        (copy,) = fork.records()
    assert copy.extra["adopted_from"] == {"study": "small", "number": 0}
    assert dataclasses.replace(copy, extra=original.extra) == original


@pytest.mark.slow
def test_records_are_cheap_at_1000_trials(ledger, folder, small, suggestion_of):
    run_trial(ledger, suggestion_of(small, unfrozen="layer4"), 0, 0.5)
    trial = ledger.optuna_study.trials[0]
    trial.user_attrs.pop("seal")  # it holds the number, and these are copies
    ledger.optuna_study.add_trials([trial] * 999)
    ledger.close()
    with Ledger.open("", "small", folder, create=False, exclusive=False) as reader:
        assert len(reader.records()) == 1000
        begun = time.perf_counter()
        for _ in range(10):
            reader.records()
        assert (time.perf_counter() - begun) / 10 < 0.03


# ---- processes ----

DRIVE = """
folder = Path(sys.argv[1])
sys.stdin.readline()
try:
    ledger = Ledger.open("", "small", folder, create=True)
except StorageError as error:
    print("refused", error, flush=True)
    sys.exit(4)
if not ledger.pinned:
    ledger.pin(space, facts, environment())
print("driving", os.getpid(), flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
def test_hazard_6_processes_that_create_one_study_at_once(child, folder):
    """Stock Optuna: 26 of 40 fail with errors of the database. Here one drives and each of the others is told which."""
    children = [child(DRIVE, str(folder)) for _ in range(4)]
    for process in children:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.stdout.readline().split(maxsplit=1) for process in children]
    drivers = [words[1].strip() for words in said if words[0] == "driving"]
    assert len(drivers) == 1
    assert sum(words[0] == "refused" and f"process {drivers[0]} on " in words[1] for words in said) == 3
    for process in children:
        assert process.communicate("\n", timeout=30)[1] == ""
    with Ledger.open("", "small", folder, create=False) as ledger:  # and the lock is free again
        assert ledger.pinned


def test_the_lock_of_a_killed_driver_is_free_at_once_and_its_trial_is_still_there(child, folder, small, facts, suggestion_of):
    begin = "s = suggest(space, facts, [], 0)\nledger.start(s, 0, owner='me')\nledger.report(0, 1, 0.5)\n"
    code = DRIVE.replace('print("driving"', begin + 'print("driving"')
    process = child(code, str(folder))
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith("driving")
    with pytest.raises(StorageError, match=f"process {process.pid} on"):
        Ledger.open("", "small", folder, create=False)
    with Ledger.open("", "small", folder, create=False, exclusive=False) as reader:  # readers are let in
        assert reader.records()[0].state == "running"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with Ledger.open("", "small", folder, create=False) as ledger:
        (record,) = ledger.records()
        assert (record.state, record.name, record.curve) == ("running", "Baseline", (0.5,))
        assert record.recipe.key(facts) == record.key
        ledger.report(0, 2, 0.75)
        ledger.finish(0, "complete", 0.75)
        assert ledger.records()[0].curve == (0.5, 0.75)


@pytest.mark.parametrize("after_s", [0.05, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.0, 0.02, 0.1, 0.2))])
def test_killed_at_any_moment_no_trial_is_half_written(child, folder, after_s, facts):
    code = DRIVE.replace("sys.stdin.readline()\n", "") + (
        "from searchft.search.suggest import Suggestion\n"
        "for n in range(10_000):\n"
        "    chosen = {'unfrozen': 'layer4', 'head_widths': (256, 128), 'dropout': 0.5}\n"
        "    recipe = space.resolve(chosen)\n"
        "    ledger.start(Suggestion(chosen, recipe, recipe.key(facts)), n)\n"
        "    for epoch in (1, 2, 3): ledger.report(n, epoch, epoch / 4)\n"
        "    ledger.finish(n, 'complete', 0.75, extra={'trained_parameters': 5})\n"
    )
    process = child(code, str(folder))
    assert process.stdout.readline().startswith("driving")
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with Ledger.open("", "small", folder, create=False) as ledger:
        records = ledger.records()
        assert [r.number for r in records] == list(range(ledger.next_number()))
        for record in records[:-1]:
            assert (record.state, record.curve, record.extra["trained_parameters"]) == ("complete", (0.25, 0.5, 0.75), 5)
        for record in records:
            assert record.recipe.key(facts) == record.key and record.params["dropout"] == 0.5
            assert record.curve == (0.25, 0.5, 0.75)[: len(record.curve)]


# ---- what can go wrong ----


def test_a_damaged_file_is_named_with_what_to_do(ledger, folder):
    ledger.close()
    (folder / "study.db").write_bytes(b"not a database at all" * 500)
    for leftover in ("study.db-wal", "study.db-shm"):
        (folder / leftover).unlink(missing_ok=True)
    with pytest.raises(StorageError, match=r"study\.db: file is not a database\. .*--fresh"):
        Ledger.open("", "small", folder, create=True)


def test_a_database_that_stays_locked_is_reported_once(ledger, small, suggestion_of, folder, monkeypatch):
    """Optuna would try five times, for a minute each."""
    ledger._storage._backend.engine.dispose()
    with (
        contextlib.closing(sqlite3.connect(folder / "study.db", isolation_level=None)) as blocker,
        monkeypatch.context() as patch,
    ):
        blocker.execute("BEGIN EXCLUSIVE")
        patch.setattr(storage_module, "BUSY_TIMEOUT_S", 0.1)
        begun = time.monotonic()
        with pytest.raises(StorageError, match=r"database is locked.*run again"):
            ledger.start(suggestion_of(small), 0)
        assert time.monotonic() - begun < 0.5
    ledger._storage._backend.engine.dispose()
    ledger.start(suggestion_of(small), 0)
    assert len(ledger.records()) == 1


def test_a_full_disk_is_a_storage_error_and_what_was_there_stays(ledger, small, suggestion_of, folder):
    """A real limit: files of this process may not grow past what they are."""
    run_trial(ledger, suggestion_of(small, unfrozen="layer4"), 0, 0.5)
    ledger.start(suggestion_of(small), 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(p.stat().st_size for p in folder.glob("study.db*"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(StorageError, match="Free some space and run again"):
            for _ in range(200):
                ledger.annotate(1, filler=str(time.perf_counter()) * 4000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    ledger.finish(1, "complete", 0.75)
    ledger.close()
    with Ledger.open("", "small", folder, create=False) as again:
        assert [(r.state, r.value) for r in again.records()] == [("complete", 0.5), ("complete", 0.75)]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE trial_values SET value = 0.9 WHERE trial_id = 2",
        "UPDATE trial_intermediate_values SET intermediate_value = 0.25 WHERE trial_id = 2 AND step = 1",
        "UPDATE trial_user_attributes SET value_json = '{}' WHERE trial_id = 2 AND key = 'recipe'",
        "UPDATE trial_user_attributes SET value_json = '{\"lr' WHERE trial_id = 2 AND key = 'result'",
        "UPDATE trials SET state = 'NONSENSE' WHERE trial_id = 2",
        "DELETE FROM trial_user_attributes WHERE trial_id = 2 AND key = 'key'",
    ],
)
def test_a_damaged_trial_is_shown_decides_nothing_and_stops_nobody(damage, ledger, folder, small, suggestion_of):
    for number, head in enumerate(((256, 128), ())):
        chosen = suggestion_of(small, unfrozen="layer4", head_widths=head)
        run_trial(ledger, chosen, number, 0.5, 0.5 + number / 4, extra={"trained_parameters": 5})
    ledger.close()
    change(folder, damage)
    for exclusive in (False, True):
        with Ledger.open("", "small", folder, create=False, exclusive=exclusive) as again:
            first, second = again.records()
            assert (first.state, first.value, second.number) == ("complete", 0.5, 1)
            assert second.state == "failed" and second.reason.startswith("damaged: ") and second.value is None
            assert again.trials().best_numbers(2) == [0] and not second.answers and again.next_number() == 2
            if exclusive and "trial_user_attributes SET" not in damage:
                again.start(suggestion_of(small), 2)
                again.finish(2, "complete", 0.25)
                assert [r.state for r in again.records()] == ["complete", "failed", "complete"]


def test_killed_while_it_ends_a_trial_runs_as_before_and_may_end_in_another_way(ledger, folder, small, suggestion_of):
    ledger.start(suggestion_of(small, unfrozen="layer4"), 0)
    ledger.report(0, 1, 0.5)

    def killed(*_):
        raise SystemExit

    ledger._storage.set_trial_state_values = killed  # the last step is not made
    with pytest.raises(SystemExit):
        ledger.finish(0, "failed", None, "its worker died", {"trained_parameters": 5}, infeasible=True)
    ledger.close()
    with Ledger.open("", "small", folder, create=False) as again:
        (half,) = again.records()
        assert (half.state, half.reason, dict(half.extra), half.infeasible) == ("running", "", {}, False)
        again.finish(0, "complete", 0.5, extra={"trained_parameters": 6})
    with Ledger.open("", "small", folder, create=False, exclusive=False) as reader:
        (whole,) = reader.records()
        assert (whole.state, whole.value, whole.reason, whole.extra["trained_parameters"]) == ("complete", 0.5, "", 6)


def test_a_study_deleted_under_its_driver_is_a_storage_error(ledger, folder, small, suggestion_of):
    ledger.start(suggestion_of(small), 0)
    optuna.delete_study(study_name="small", storage=default_url(folder))
    with pytest.raises(StorageError, match="was deleted"):
        ledger.report(0, 1, 0.5)


def test_test_scores_stand_beside_the_trials(ledger):
    score = {"accuracy": 0.5, "interval_95": [0.4, 0.6], "n": 100}
    ledger.save_test_score(3, {**score, "confusion": [[1]]})
    assert ledger.load_test_scores() == {3: score}


def test_hazard_2_one_driver_for_a_file_whatever_the_folder(tmp_path, small, facts):
    """The lock stood in the study's folder alone: two `--studies` on one database trained each trial twice."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    (tmp_path / "link.db").symlink_to("shared.db")
    with Ledger.open(url, "small", tmp_path / "a" / "small", create=True) as first:
        first.pin(small, facts, {})
        for other in (url, url.replace("shared", "link")):
            with pytest.raises(StorageError, match=rf"small is being run by process {os.getpid()} on"):
                Ledger.open(other, "small", tmp_path / "b" / "small", create=False)
    Ledger.open(url, "small", tmp_path / "b" / "small", create=False).close()


def test_two_studies_in_one_database_do_not_disturb_each_other(tmp_path, small, facts, suggestion_of):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    with Ledger.open(url, "a", tmp_path / "a", create=True) as a, Ledger.open(url, "b", tmp_path / "b", create=True) as b:
        for opened in (a, b):
            opened.pin(small, facts, {})
            opened.start(suggestion_of(small), 0)
        a.finish(0, "complete", 0.5)
        assert [r.state for r in b.records()] == ["running"]


@pytest.mark.parametrize("odd", ["with space", "per%20cent", "braces{x}", "question?mark", "hash#", "ünïcode"])
def test_folders_with_odd_names(tmp_path, odd, small, facts):
    folder = tmp_path / odd / "small"
    with Ledger.open("", "small", folder, create=True) as ledger:
        ledger.pin(small, facts, {})
    assert (folder / "study.db").is_file()
    with Ledger.open("", "small", folder, create=False) as again:
        assert again.space() == small
    assert [s.name for s in list_studies(tmp_path / odd)] == ["small"]


def test_list_studies_counts_without_optuna(ledger, folder, small, suggestion_of):
    chosen = suggestion_of(small, unfrozen="layer4")
    ledger.answer(chosen, 1, run_trial(ledger, chosen, 0, 0.75))
    run_trial(ledger, suggestion_of(small), 2, state="failed", reason="a crash")
    ledger.start(suggestion_of(small, head_widths=(256, 128)), 3)
    broken = folder.parent / "broken"
    broken.mkdir()
    (broken / "study.db").write_text("nonsense " * 100)
    found = {s.name: s for s in list_studies(folder.parent)}
    counts = {"complete": 1, "pruned": 0, "failed": 1, "running": 1, "waiting": 0, "answered": 1}
    assert found["small"].counts == counts and found["small"].best == 0.75 and found["small"].changed > 0
    assert "not a database" in found["broken"].problem
    code = f"import sys; from searchft.search.databases import list_studies; list_studies({str(folder.parent)!r}); "
    check = "assert not {'optuna', 'torch', 'sqlalchemy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code + check], check=False).returncode == 0
