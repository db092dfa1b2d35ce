"""What to try next: a pure function of space, facts, records and trial number.

The same record gives the same answer in any process, whatever ran before, so a killed study goes on as if nothing had happened.
Hence no sampler lives longer than one question: each is made anew, seeded by (study seed, trial number), over an in-memory Optuna
study rebuilt from the record. There every dimension is an integer index into its choices, in the file's order: TPE then knows that
256 lies between 128 and 512, which as mere categories it does not. The persistent study never sees the indices.

Nothing is kept between questions but a half-walked enumeration of the space, whose answers depend on the space alone.

Cost of a TPE question at 1,000 records: see tests/benchmarks/driver_overhead.py, which measures it.
"""

from __future__ import annotations

import datetime
import hashlib
import heapq
import math
import warnings
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from searchft.recipe import Recipe, SpaceFacts
from searchft.search.records import COMPLETE, FAILED, PRUNED, RUNNING, TrialRecord

if TYPE_CHECKING:
    from searchft.space import Space

REPEATS_IN_A_ROW = 20
"""After so many answered trials in a row the sampler is going in circles: the next unknown configuration is taken instead."""

ATTEMPTS = 20
"""How often a sampler is asked again, with another seed, when it names what is running or has crashed (at random: what is known)."""


@dataclass(frozen=True)
class Suggestion:
    """One configuration to run, or to answer from the record if its key is known."""

    chosen: Mapping[str, Any]
    """Dimension to choice, in Recipe's form; active dimensions only."""
    recipe: Recipe
    key: str
    name: str = ""
    """Of the enqueued row; empty for what the sampler chose."""


def suggest(space: Space, facts: SpaceFacts, records: Sequence[TrialRecord], number: int) -> Suggestion | None:
    """What trial `number` should be, given all earlier trials.

    Enqueued rows come first, in the file's order: a row is due if no record bears its name. Then the sampler speaks. What it says
    may repeat a finished configuration (the driver answers that from the memo) but never one that is running; only an enqueued row
    may do that. Returns None when every configuration has been tried or is running: there is nothing new to try.
    """
    records = sorted(records, key=lambda r: r.number)
    names = {r.name for r in records}
    for row in space.enqueue:
        if row.name not in names:
            return _named(space, facts, row.chosen, row.name)

    # A crash is no answer, but it was a try: the walk over untried configurations must not come back to it for ever.
    tried = {r.key for r in records}
    untried = _first_untried(space, facts, tried)
    if untried is None:
        return None
    if space.search.sampler == "grid":
        return untried

    answered = {r.key for r in records if r.answers}
    if space.search.sampler == "random":
        return _draw_apart_from(tried, space, facts, number) or untried
    if len(records) >= REPEATS_IN_A_ROW and all(r.answered_from is not None for r in records[-REPEATS_IN_A_ROW:]):
        return _draw_apart_from(tried, space, facts, number) or untried
    for attempt in range(ATTEMPTS):
        suggestion = _ask_tpe(space, facts, records, mix(space.search.seed, number, attempt))
        if suggestion.key in answered or suggestion.key not in tried:
            return suggestion
    return _draw_apart_from(tried, space, facts, number) or untried


def mix(*parts: int | str) -> int:
    """A seed in [0, 2^32) that depends on all parts, the same on every machine: nearby parts give unrelated seeds."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def _named(space: Space, facts: SpaceFacts, chosen: Mapping[str, Any], name: str) -> Suggestion:
    """An enqueued row: it gives every dimension a value; those that have no effect in it are left out if that changes nothing."""
    recipe = space.resolve(chosen)
    key = recipe.key(facts)
    active: dict[str, Any] = {}
    for dimension in space.dimensions:
        if dimension.name in chosen and space.is_active(dimension.name, active, facts):
            active[dimension.name] = chosen[dimension.name]
    if space.resolve(active).key(facts) != key:
        active = dict(chosen)
    return Suggestion(active, recipe, key, name)


# ---- random ----


def _draw_apart_from(tried: Collection[str], space: Space, facts: SpaceFacts, number: int) -> Suggestion | None:
    """An untried configuration drawn at random, or None if none was met in a few draws."""
    for attempt in range(ATTEMPTS):
        suggestion = _draw(space, facts, mix(space.search.seed, number, attempt, "random"))
        if suggestion.key not in tried:
            return suggestion
    return None


def _draw(space: Space, facts: SpaceFacts, seed: int) -> Suggestion:
    """Each active dimension's choice, uniformly."""
    chosen: dict[str, Any] = {}
    for dimension in space.dimensions:
        if len(dimension.choices) > 1 and space.is_active(dimension.name, chosen, facts):
            chosen[dimension.name] = dimension.choices[mix(seed, dimension.name) % len(dimension.choices)]
    recipe = space.resolve(chosen)
    return Suggestion(chosen, recipe, recipe.key(facts))


# ---- enumeration ----


class _Walk:
    """A space's configurations in their fixed order, walked only as far as anybody asked and remembered."""

    def __init__(self, space: Space, facts: SpaceFacts) -> None:
        self.space, self.facts = space, facts
        self.seen: list[Suggestion] = []
        self._rest: Iterator[tuple[Mapping[str, Any], Recipe]] = iter(space.recipes(facts))

    def __iter__(self) -> Iterator[Suggestion]:
        yield from self.seen
        for chosen, recipe in self._rest:
            suggestion = Suggestion(chosen, recipe, recipe.key(self.facts))
            self.seen.append(suggestion)
            yield suggestion


_walks: list[_Walk] = []
"""The latest few walks. Looked up by identity of space and facts: what they yield depends on nothing else."""


def _first_untried(space: Space, facts: SpaceFacts, tried: Collection[str]) -> Suggestion | None:
    """The first configuration whose key is not among the tried; None if all are. Walks no further than len(tried) + 1 keys."""
    for walk in _walks:
        if walk.space is space and walk.facts is facts:
            break
    else:
        walk = _Walk(space, facts)
        _walks[:] = [walk, *_walks[:3]]
    return next((suggestion for suggestion in walk if suggestion.key not in tried), None)


# ---- TPE ----


def _ask_tpe(space: Space, facts: SpaceFacts, records: Sequence[TrialRecord], seed: int) -> Suggestion:
    """What the tree-structured Parzen estimator chooses, over the records as a study of integer indices."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=space.search.startup_trials, group=True, multivariate=True, constant_liar=True
        )
    past = _past_trials(space, _telling(records))
    study = optuna.create_study(direction="maximize", sampler=sampler, storage=_Past(past))
    trial = study.ask()
    chosen: dict[str, Any] = {}
    for dimension in space.dimensions:
        if len(dimension.choices) > 1 and space.is_active(dimension.name, chosen, facts):
            chosen[dimension.name] = dimension.choices[trial.suggest_int(dimension.name, 0, len(dimension.choices) - 1)]
    recipe = space.resolve(chosen)
    return Suggestion(chosen, recipe, recipe.key(facts))


class _Past(optuna.storages.InMemoryStorage):
    """A storage in which the past stands beside the one trial that is asked for: nothing is copied into it.

    The trial asked for has number 0, the past 1, 2, …: samplers need them apart, and the past in order.
    """

    def __init__(self, past: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._past = past

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        now: list[FrozenTrial] = super().get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [t for t in self._past if states is None or t.state in states] + now


TELLING = 300
"""How many records TPE is shown at most. It tells apart the best 25 and the rest; some hundred of the rest say what ten thousand do."""

_BEST_SHOWN = 60


def _telling(records: Sequence[TrialRecord]) -> Sequence[TrialRecord]:
    """The records that TPE is shown: all, or what runs, the best, and of the others as many as fit, drawn by a hash of their numbers."""
    if len(records) <= TELLING:
        return records
    running = [r for r in records if not r.finished]
    finished = [r for r in records if r.finished]
    complete = [r for r in finished if r.state == COMPLETE]
    kept = {r.number for r in running}
    kept |= {r.number for r in heapq.nsmallest(_BEST_SHOWN, complete, key=lambda r: (-(r.value or 0.0), r.number))}
    others = [r.number for r in finished if r.number not in kept]
    count = max(TELLING // 2, TELLING - len(kept))  # hundreds of workers must not crowd them out
    kept.update(heapq.nsmallest(count, others, key=_scattered))
    return [r for r in records if r.number in kept]


def _scattered(number: int) -> tuple[int, int]:
    """Numbers in an order that has nothing to do with them: Knuth's multiplicative hash. `mix` would cost a SHA-256 for each."""
    return number * 2654435761 % 2**32, number


_SOME_TIME = datetime.datetime(2000, 1, 1)
"""Optuna wants to know when trials ran; TPE does not."""


def _past_trials(space: Space, records: Sequence[TrialRecord]) -> list[FrozenTrial]:
    """The records as Optuna trials over indices, numbered from 1. Failures that say nothing about the configuration are left out."""
    by_number = {r.number: r for r in records if r.answered_from is None}
    dimensions = {d.name: d for d in space.dimensions if len(d.choices) > 1}
    distributions: dict[str, BaseDistribution] = {n: IntDistribution(0, len(d.choices) - 1) for n, d in dimensions.items()}
    indices = {name: {_typed(label): i for i, label in enumerate(d.labels)} for name, d in dimensions.items()}
    past: list[FrozenTrial] = []
    for record in records:
        params = {n: indices[n].get(_typed(label)) for n, label in record.params.items() if n in dimensions}
        if None in params.values():
            continue  # a choice that this space no longer has
        if record.state == RUNNING:
            state = TrialState.RUNNING
        elif record.infeasible or record.state == PRUNED:
            state = TrialState.PRUNED
        elif record.state == COMPLETE and record.value is not None and math.isfinite(record.value):
            state = TrialState.COMPLETE
        else:
            assert record.state in (FAILED, COMPLETE)
            continue
        # TPE ranks pruned trials by how far they came, then by their value there. A trial answered from another came as far.
        curve = record.curve
        if record.answered_from is not None and record.answered_from in by_number:
            curve = by_number[record.answered_from].curve
        trial = FrozenTrial(
            number=len(past) + 1,
            trial_id=len(past) + 1,
            state=state,
            value=record.value if state == TrialState.COMPLETE else None,
            values=None,
            datetime_start=_SOME_TIME,
            datetime_complete=None if state == TrialState.RUNNING else _SOME_TIME,
            params=params,
            distributions={name: distributions[name] for name in params},
            user_attrs={},
            system_attrs={},
            intermediate_values=dict(enumerate(curve, start=1)) if state == TrialState.PRUNED else {},
        )
        if record.infeasible:
            trial.set_constraint("feasible", 1.0)  # above 0 is infeasible
        past.append(trial)
    return past


def _typed(label: Any) -> tuple[str, Any]:
    """Labels compared as they are written: True is not 1, and 1.0 is not 1."""
    return type(label).__name__, label
