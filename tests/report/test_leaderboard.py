"""The study as a table, as JSON and as Markdown."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable

import psutil
import pytest
from rich.console import Console
from rich.table import Table

from searchft.cli.output import emit_json
from searchft.recipe import Recipe, SpaceFacts
from searchft.report.content import ReportInput, answer_of, result_table
from searchft.report.leaderboard import in_order, leaderboard, summary_json
from searchft.search.claims import identity
from searchft.search.records import TrialRecord
from searchft.space import Space

Make = Callable[..., TrialRecord]


@pytest.fixture
def records(make_record: Make) -> list[TrialRecord]:
    return [
        make_record(0, value=0.9, curve=[0.9], name="Base|line", extra={"trained_parameters": 10, "train_accuracy": 0.99}),
        make_record(1, value=0.95, curve=[0.5, 0.95], unfrozen="all", extra={"trained_parameters": 900}),
        make_record(2, value=0.95, curve=[0.95], unfrozen="layer4", extra={"trained_parameters": 100}),
        make_record(3, "pruned", value=0.4, curve=[0.4], unfrozen="layer3"),
        make_record(4, "failed", reason="out of [memory]", unfrozen="layer3", lr=3e-4),
        make_record(5, value=0.95, answered_from=1, unfrozen="all"),
        make_record(6, "running", value=None, curve=[float("nan")], unfrozen="head", lr=3e-4),
    ]


def test_json_has_exactly_the_promised_keys(
    space: Space, records: list[TrialRecord], make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    emit_json(summary_json(space, [*records, make_record(7, "pruned", value=float("nan"))], "sqlite:///x"))
    summary = json.loads(capsys.readouterr().out)
    assert list(summary) == ["schema_version", "study", "storage", "counts", "best", "trials"]
    assert summary["counts"] == {"complete": 3, "pruned": 2, "failed": 1, "running": 1, "waiting": 33, "answered": 1}
    assert set(summary["best"]) == {"number", "value", "recipe", "key"}
    keys = ["number", "name", "state", "value", "epochs", "seconds", "recipe", "key", "answered_from"]
    assert all(list(trial) == keys for trial in summary["trials"])
    assert Recipe.from_json(summary["best"]["recipe"]) == records[2].recipe
    assert summary["trials"][7]["value"] is None, "NaN is null"


def test_ties_go_to_fewer_trained_parameters_everywhere(space: Space, records: list[TrialRecord]) -> None:
    assert summary_json(space, records, "")["best"]["number"] == 2
    assert [record.number for record in in_order(records)][:2] == [2, 1]


def drawn(table: Table, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_table_fits_the_terminal(space: Space, facts: SpaceFacts, records: list[TrialRecord], width: int) -> None:
    text = drawn(leaderboard(space, facts, records), width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("0.9500", "pruned", "failed"):
        assert word in text


def test_the_table_shows_names_and_reasons_as_they_are(space: Space, facts: SpaceFacts, records: list[TrialRecord]) -> None:
    text = drawn(leaderboard(space, facts, records), 160)
    assert "(out of [memory])" in text and "Base|line" in text
    assert "and 1 more" in drawn(leaderboard(space, facts, records, limit=5), 160)


@pytest.mark.parametrize(
    ("owner", "state"),
    [
        ({}, "running"),
        ({"host": "elsewhere", "pid": 1, "boot_id": "x", "since": ""}, "running"),
        ({**identity(psutil.Process(os.getppid()))}, "running"),
        ({**identity(psutil.Process(os.getppid())), "since": "1970-01-01T00:00:00"}, "unfinished"),
        ({**identity(), "boot_id": "an earlier one"}, "unfinished"),
        ({**identity(), "pid": 2**22 + 1}, "unfinished"),
    ],
    ids=["unknown", "another machine", "alive", "its number went to another", "before a restart", "gone"],
)
def test_a_trial_that_nobody_runs_is_unfinished(
    space: Space, facts: SpaceFacts, make_record: Make, owner: dict[str, object], state: str
) -> None:
    record = make_record(0, "running", extra={"owner": owner})
    row = next(line.split() for line in drawn(leaderboard(space, facts, [record]), 160).splitlines() if " 0 " in line)
    assert row[2] == state and row[4] == "–", "no time is known"


def test_the_result_table_has_the_classic_columns_best_first(
    space: Space, facts: SpaceFacts, records: list[TrialRecord]
) -> None:
    tests = {2: {"accuracy": 0.94, "interval_95": [0.9, 0.97], "n": 200}}
    given = ReportInput(space, facts, records, "postgresql://ann:***@db/x", tests=tests)
    table = result_table(given)
    assert {"architecture", "learning rate and hyper-parameters", "train", "validation", "test"} <= set(table.columns)
    assert len(table.rows) == 6 and table.rows[0][0] == 2
    assert table.rows[0][3:6] == ("–", "0.9500", "0.9400")
    assert any(row[3:5] == ("0.9900", "0.9000") for row in table.rows)
    answer = answer_of(given)
    assert ("test accuracy", "0.9400", "95 % interval 0.900 to 0.970, 200 images") in answer.figures
