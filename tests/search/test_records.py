"""Which record answers a key, and which trial is best."""

from __future__ import annotations

from searchft.recipe import Recipe
from searchft.search.records import TrialRecord, answer_to, best


def record(number: int, state: str, key: str = "k", value: float | None = None, **values: object) -> TrialRecord:
    return TrialRecord(number, "", state, {}, Recipe("timm/x"), key, value, **values)


def test_the_earliest_answering_trial_is_remembered_and_a_crash_is_not():
    records = [
        record(3, "complete", "a", 0.5),
        record(0, "failed", "a"),
        record(1, "complete", "a", 0.4),
        record(2, "pruned", "b", 0.1),
        record(4, "failed", "c", infeasible=True),
        record(5, "running", "d"),
    ]
    answers = {key: answer_to(key, records) for key in "abcde"}
    assert {key: r.number for key, r in answers.items() if r is not None} == {"a": 1, "b": 2, "c": 4}


def test_an_answered_trial_never_answers():
    assert answer_to("a", [record(0, "complete", "a", 0.5, answered_from=7)]) is None


def test_best_prefers_fewer_trained_parameters_then_the_lower_number():
    same = [
        record(0, "complete", "a", 0.9, extra={"trained_parameters": 500}),
        record(1, "complete", "b", 0.9, extra={"trained_parameters": 20}),
        record(2, "complete", "c", 0.9, extra={"trained_parameters": 20}),
        record(3, "complete", "d", 0.9),
        record(4, "pruned", "e", 0.99),
        record(5, "complete", "f", 0.8, extra={"trained_parameters": 1}),
    ]
    found = best(same)
    assert found is not None and found.number == 1
    assert best([record(0, "failed"), record(1, "running")]) is None
