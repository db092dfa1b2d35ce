"""Which record answers a key, and which trial is best."""

from __future__ import annotations

import dataclasses
import random

from searchft.recipe import Recipe
from searchft.search.records import TrialRecord, Trials, best, ranked


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
    trials = Trials(records)
    answers = {key: trials.answer_to(key) for key in "abcde"}
    assert {key: r.number for key, r in answers.items() if r is not None} == {"a": 1, "b": 2, "c": 4}


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


def test_what_is_kept_beside_the_records_is_what_looking_through_them_would_say():
    draw = random.Random(0)
    trials, plain = Trials(), {}
    for step in range(400):
        open_ones = [r for r in plain.values() if not r.finished]
        if open_ones and draw.random() < 0.6:
            old = draw.choice(open_ones)
            state = draw.choice(["running", "complete", "pruned", "failed"])
            value = None if state in ("running", "failed") else draw.choice([0.1, 0.2, 0.3, 0.4])
            new = dataclasses.replace(old, state=state, value=value, curve=(*old.curve, 0.1), infeasible=draw.random() < 0.2)
        else:
            number = 3 * step if draw.random() < 0.8 else max(plain, default=0) + 1  # strangers' trials leave gaps
            key = draw.choice("abcdefghijklmnopq")
            new = record(number, "running", key, extra={"trained_parameters": draw.choice([1, 2])})
            new = dataclasses.replace(new, name=f"row {number}" if draw.random() < 0.1 else "")
            known = trials.answer_to(key)
            if known is not None:
                new = dataclasses.replace(new, state="complete", value=known.value, answered_from=known.number)
            if number in plain:
                continue
        trials.put(new)
        plain[new.number] = new
        records = [plain[n] for n in sorted(plain)]
        own = [r for r in records if r.answered_from is None]
        assert list(trials) == records and trials.own == len(own)
        assert trials.rows == {r.name: r.number for r in records if r.name}
        assert trials.tried == {r.key for r in records}
        assert set(trials.running) == {r.number for r in records if not r.finished}
        assert trials.best_numbers(5) == [r.number for r in ranked(records)][:5]
        for key in "abcdefghijklmnopq":
            first = next((r for r in own if r.key == key and r.answers), None)
            assert trials.answer_to(key) == first
        sample = trials.sample(4, 6)
        complete = sorted(
            (r for r in records if r.state == "complete" and r.value is not None), key=lambda r: (-r.value, r.number)
        )
        finished = [r for r in records if r.finished]
        assert sample >= {r.number for r in complete[:4]} and len(sample) == min(len(finished), min(4, len(complete)) + 6)
    assert trials.numbered(max(plain)) is trials[-1] and trials.numbered(10**6) is None


def test_a_finished_record_stays_as_it_is():
    trials = Trials([record(0, "complete", "a", 0.5)])
    trials.put(record(0, "complete", "a", 0.9))
    assert trials[0].value == 0.5 and trials.best_numbers(3) == [0] and len(trials) == 1
