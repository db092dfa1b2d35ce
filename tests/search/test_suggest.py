"""What is tried next: a function of the record and nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random

import pytest

from searchft.search.records import TrialRecord, best
from searchft.search.suggest import REPEATS_IN_A_ROW, suggest


def spoken(records: list[TrialRecord]) -> list[tuple[str, float | None, int | None]]:
    return [(r.key, r.value, r.answered_from) for r in records]


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_killed_and_resumed_search_equals_an_uninterrupted_one(space_of, facts, run, sampler):
    space = space_of(f"search.sampler={sampler}", "search.seed=5")
    whole = run(space, 25)
    for cut in (1, 9, 10, 11, 24):
        again = run(space_of(f"search.sampler={sampler}", "search.seed=5"), 25, whole[:cut])  # a new object has no walk
        assert spoken(again) == spoken(whole)


def test_the_answer_does_not_depend_on_what_was_asked_before_or_on_the_order_of_records(space_of, facts, run):
    space = space_of()
    records = run(space, 20)
    first = suggest(space, facts, records, 20)
    random.seed(1)
    suggest(space, facts, records[:13], 99)
    shuffled = random.sample(records, len(records))
    assert suggest(space, facts, shuffled, 20) == first
    keys = {suggest(space, facts, records, n).key for n in range(20, 30)}
    assert len(keys) > 3  # another number is another draw


def test_other_processes_with_other_hash_seeds_answer_the_same(facts, child):
    code = (
        "from searchft.search.records import TrialRecord\n"
        "records = []\n"
        "for n in range(16):\n"
        "    s = suggest(space, facts, records, n)\n"
        "    params = space.labels_of(s.chosen)\n"
        "    records.append(TrialRecord(n, s.name, 'complete', params, s.recipe, s.key, (n * 7 % 5) / 5))\n"
        "    if len(set(r.key for r in records)) == 6: break\n"
        "print(' '.join(r.key for r in records))\n"
    )
    children = [child(code, PYTHONHASHSEED=seed) for seed in ("1", "2", "3")]
    said = {process.communicate(timeout=60)[0].strip() for process in children}
    assert len(said) == 1 and len(said.pop().split()) >= 6


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_a_crashed_configuration_is_not_tried_again_while_others_are_left(small, facts, record_of, sampler):
    small = dataclasses.replace(small, search=dataclasses.replace(small.search, sampler=sampler))
    records: list[TrialRecord] = []
    while (suggestion := suggest(small, facts, records, len(records))) is not None:
        records.append(record_of(small, suggestion, len(records), "failed"))
    assert len({r.key for r in records}) == len(records) == 6


def test_enqueued_rows_come_first_and_keep_their_names(small, facts, run):
    records = run(small, 2, score=lambda recipe: 0.5)
    assert [r.name for r in records] == ["Baseline", "ModelA"]
    assert dict(records[0].params) == {"unfrozen": "head", "head_widths": "linear"}  # dropout has no say without hidden layers
    assert dict(records[1].params) == {"unfrozen": "layer4", "head_widths": "256+128", "dropout": 0.5}


def test_a_row_that_was_skipped_is_due_again(small, facts, run):
    records = run(small, 4, score=lambda recipe: 0.5)
    without = [r for r in records if r.name != "ModelA"]
    suggestion = suggest(small, facts, without, 9)
    assert suggestion is not None and suggestion.name == "ModelA"


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_every_configuration_is_tried_once_and_then_there_is_none(space_of, small, facts, run, sampler):
    space = dataclasses.replace(small, search=dataclasses.replace(small.search, sampler=sampler))
    records = run(space, 99, score=lambda recipe: 0.5)
    ran = [r.key for r in records if r.answered_from is None]
    assert len(ran) == len(set(ran)) == 6
    assert suggest(space, facts, records, len(records)) is None


def test_grid_goes_through_the_space_in_its_own_order(space_of, facts, run):
    space = space_of("search.sampler=grid")
    keys = [recipe.key(facts) for _, (_, recipe) in zip(range(12), space.recipes(facts), strict=False)]
    assert [r.key for r in run(space, 12)] == keys


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_what_is_running_is_not_suggested_again(small, facts, record_of, sampler):
    space = dataclasses.replace(small, enqueue=(), search=dataclasses.replace(small.search, sampler=sampler))
    records: list[TrialRecord] = []
    while (suggestion := suggest(space, facts, records, len(records))) is not None:
        records.append(record_of(space, suggestion, len(records), "running"))
    assert len({r.key for r in records}) == len(records) == 6


def test_after_many_repeats_in_a_row_something_new_is_taken(space_of, facts, run):
    space = space_of()
    records = run(space, 15)
    repeat = records[-1]
    for _ in range(REPEATS_IN_A_ROW):
        records.append(dataclasses.replace(repeat, number=len(records), answered_from=repeat.number, curve=()))
    suggestion = suggest(space, facts, records, len(records))
    assert suggestion.key not in {r.key for r in records}


def test_inactive_dimensions_are_not_asked(space_of, facts, run):
    for record in run(space_of(), 30):
        assert ("dropout" in record.params) == (record.params["head_widths"] != "linear")


def test_tpe_turns_away_from_infeasible_configurations(space_of, facts, record_of):
    """Everything with batch_size 128 runs out of memory: after ten such trials it is suggested less than chance would."""
    space = space_of("search.startup_trials=5")
    records: list[TrialRecord] = []
    for number in range(40):
        suggestion = suggest(space, facts, records, number)
        if suggestion.recipe.batch_size == 128:
            records.append(record_of(space, suggestion, number, "failed", infeasible=True))
        else:
            records.append(record_of(space, suggestion, number, "complete", 0.5 + 0.001 * number))
    assert sum(r.infeasible for r in records[20:]) <= 3  # chance: 7


def test_a_neighbour_is_one_step_away_and_untried(space_of, facts):
    from searchft.search.suggest import _choose, _neighbour, mix

    space = space_of()
    places = {d.name: d.choices for d in space.dimensions}
    for seed in range(20):
        here = _choose(space, facts, lambda d, seed=seed: mix(seed, d.name) % len(d.choices))
        tried = {here.key}
        found = []
        while (near := _neighbour(here, tried, space, facts, seed)) is not None:
            assert near.key not in tried
            tried.add(near.key)
            found.append(near)
            shared = [n for n in near.chosen if n in here.chosen]
            steps = [abs(places[n].index(near.chosen[n]) - places[n].index(here.chosen[n])) for n in shared]
            assert sorted(steps)[-1] == 1 and sum(steps) == 1
            assert all(space.is_active(n, near.chosen, facts) for n in near.chosen)
        assert len(here.chosen) <= len(found) <= 2 * len(here.chosen)
        assert _neighbour(here, {here.key}, space, facts, seed) == found[0]


def test_an_answered_prune_counts_for_what_the_answering_trial_reached(space_of, facts, run):
    """Without its curve it would rank below every pruned trial, and TPE would believe the same configuration good and bad."""
    from searchft.search.records import Trials
    from searchft.search.suggest import _past_trials

    space = space_of()
    original = dataclasses.replace(run(space, 1)[0], state="pruned", curve=(0.1, 0.4), value=0.4)
    answered = dataclasses.replace(original, number=1, curve=(), answered_from=0)
    first, second = _past_trials(space, [original, answered], Trials([original, answered]))
    assert first.intermediate_values == second.intermediate_values == {1: 0.1, 2: 0.4}


def test_choices_that_are_gone_do_not_break_the_search(space_of, facts, run):
    records = run(space_of(), 15)
    fewer = space_of("recipe.batch_size=[32, 64]")
    assert suggest(fewer, facts, records, 15) is not None


@pytest.mark.slow
def test_finds_the_best_of_4800_points_in_100_trials_without_computing_one_twice(space_of, facts, run, capsys):
    found, repeats = [], []
    for seed in range(5):
        records = run(space_of(f"search.seed={seed}"), 100)
        ran = [r.key for r in records if r.answered_from is None]
        assert len(ran) == len(set(ran)) == 100
        repeats.append(sum(r.answered_from is not None for r in records))
        found.append(best(records).value)
    with capsys.disabled():
        print(f"\n4,800 points, 100 trials, 5 seeds: best {found}, answered {repeats}")
    random_best = [best(run(space_of(f"search.seed={s}", "search.sampler=random"), 100)).value for s in range(5)]
    assert sum(found) > sum(random_best)
    assert sum(value >= 0.999 for value in found) >= 4


def test_ten_thousand_seeds_do_not_collide_noticeably():
    from searchft.search.suggest import mix

    assert len({mix(seed, number, 0) for seed in range(100) for number in range(100)}) >= 9_999
    assert mix(1, 2, 0) == int(hashlib.sha256(b"(1, 2, 0)").hexdigest()[:8], 16)  # the same on every machine, for ever
    assert json.dumps(mix(1)) == str(mix(1))
