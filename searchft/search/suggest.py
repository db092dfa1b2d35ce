"""What to try next: a pure function of space, facts, records and trial number, so that a killed study goes on as if nothing happened.

No sampler lives longer than one question: each is seeded by (study seed, trial number), over an in-memory Optuna study rebuilt from
the record. There a dimension is an integer index into its choices, in the file's order: TPE then knows that 256 lies between 128 and 512.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import warnings
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState

from searchft.recipe import Recipe, SpaceFacts
from searchft.search.records import COMPLETE, PRUNED, RUNNING, TrialRecord, Trials

if TYPE_CHECKING:
    from searchft.space import Dimension, Space

REPEATS_IN_A_ROW = 1
"""After so many answered trials in a row TPE is going in circles: if it names a known configuration again, an untried neighbour of
that is taken. 1 finds the optimum of 4,800 points as often as 20 (27 of 32 seeds, 100 trials), for half the questions."""

ATTEMPTS = 3  # how often TPE is asked, with another seed each time, while it names what is running or has crashed

DRAWS = 20  # how many configurations are drawn at random until one is new


@dataclass(frozen=True)
class Suggestion:
    """One configuration to run, or to answer from the record if its key is known."""

    chosen: Mapping[str, Any]  # dimension to choice, in Recipe's form; active dimensions only
    recipe: Recipe
    key: str
    name: str = ""  # of the enqueued row; empty for what the sampler chose


def suggest(space: Space, facts: SpaceFacts, records: Sequence[TrialRecord], number: int) -> Suggestion | None:
    """What trial `number` should be, given all earlier trials; None when every configuration has been tried or is running.

    Enqueued rows come first, in the file's order: a row is due if no record bears its name. Then comes the sampler, which may repeat
    a finished configuration (the driver answers it from the record) but never one that is running; only an enqueued row may.
    """
    records = records if isinstance(records, Trials) else Trials(records)
    for row in space.enqueue:
        if row.name not in records.rows:
            return _named(space, facts, row.chosen, row.name)

    # A crash is no answer, but it was a try: the walk over untried configurations must not come back to it for ever.
    tried = records.tried
    untried = _first_untried(space, facts, tried)
    if untried is None:
        return None
    if space.search.sampler == "grid":
        return untried
    if space.search.sampler == "random":
        return _draw_untried(tried, space, facts, number) or untried
    circling = len(records) >= REPEATS_IN_A_ROW and all(r.answered_from is not None for r in records[-REPEATS_IN_A_ROW:])
    for attempt in range(1 if circling else ATTEMPTS):
        suggestion = _ask_tpe(space, facts, records, mix(space.search.seed, number, attempt))
        if suggestion.key not in tried or (not circling and records.answer_to(suggestion.key) is not None):
            return suggestion
    near = _neighbour(suggestion, tried, space, facts, mix(space.search.seed, number, "near"))
    return near or _draw_untried(tried, space, facts, number) or untried


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


def _draw_untried(tried: Collection[str], space: Space, facts: SpaceFacts, number: int) -> Suggestion | None:
    """An untried configuration, each active dimension's choice drawn uniformly; None if none was met in a few draws."""
    for attempt in range(DRAWS):
        seed = mix(space.search.seed, number, attempt, "random")
        drawn = _choose(space, facts, lambda dimension, seed=seed: mix(seed, dimension.name) % len(dimension.choices))  # type: ignore[misc]
        if drawn is not None and drawn.key not in tried:
            return drawn
    return None


def _choose(space: Space, facts: SpaceFacts, place_of: Callable[[Dimension], int]) -> Suggestion | None:
    """The configuration whose active dimensions have the choices at these places; None: a place is none of theirs."""
    chosen: dict[str, Any] = {}
    for dimension in space.dimensions:
        if len(dimension.choices) > 1 and space.is_active(dimension.name, chosen, facts):
            place = place_of(dimension)
            if not 0 <= place < len(dimension.choices):
                return None
            chosen[dimension.name] = dimension.choices[place]
    recipe = space.resolve(chosen)
    return Suggestion(chosen, recipe, recipe.key(facts))


def _neighbour(suggestion: Suggestion, tried: Collection[str], space: Space, facts: SpaceFacts, seed: int) -> Suggestion | None:
    """An untried configuration one step of one dimension away from `suggestion` (the next choice up or down in the file's order),
    the first of them by seed. What becomes active by the step is drawn. None: all were tried."""
    steps = [(d.name, step) for d in space.dimensions if d.name in suggestion.chosen for step in (-1, 1)]
    for name, step in sorted(steps, key=lambda s: mix(seed, *s)):

        def place_of(dimension: Dimension, name: str = name, step: int = step) -> int:
            if dimension.name not in suggestion.chosen:
                return mix(seed, dimension.name) % len(dimension.choices)
            return dimension.choices.index(suggestion.chosen[dimension.name]) + (step if dimension.name == name else 0)

        near = _choose(space, facts, place_of)
        if near is not None and near.key not in tried:
            return near
    return None


@dataclass(frozen=True)
class _Walk:
    """A space's configurations in their fixed order, walked only as far as anybody asked and remembered."""

    space: Space
    facts: SpaceFacts
    seen: list[Suggestion]
    rest: Iterator[Suggestion]

    def __iter__(self) -> Iterator[Suggestion]:
        yield from self.seen
        for suggestion in self.rest:
            self.seen.append(suggestion)
            yield suggestion


_walks: list[_Walk] = []  # The latest few. Looked up by identity of space and facts: what they yield depends on nothing else.


def _first_untried(space: Space, facts: SpaceFacts, tried: Collection[str]) -> Suggestion | None:
    """The first configuration whose key is not among the tried; None if all are. Walks no further than len(tried) + 1 keys."""
    walk = next((walk for walk in _walks if walk.space is space and walk.facts is facts), None)
    if walk is None:
        rest = (Suggestion(chosen, recipe, recipe.key(facts)) for chosen, recipe in space.recipes(facts))
        walk = _Walk(space, facts, [], rest)
        _walks[:] = [walk, *_walks[:3]]
    return next((suggestion for suggestion in walk if suggestion.key not in tried), None)


def _ask_tpe(space: Space, facts: SpaceFacts, records: Trials, seed: int) -> Suggestion:
    """What TPE chooses, over the records as a study of integer indices."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=space.search.startup_trials, group=True, multivariate=True, constant_liar=True
        )
    past = _past_trials(space, _choose_shown(records), records)
    trial = optuna.create_study(direction="maximize", sampler=sampler, storage=_Past(past)).ask()
    asked = _choose(space, facts, lambda d: trial.suggest_int(d.name, 0, len(d.choices) - 1))
    assert asked is not None
    return asked


class _Past(optuna.storages.InMemoryStorage):
    """A storage in which the past stands beside the one trial that is asked for, which has number 0: nothing is copied into it."""

    def __init__(self, past: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._past = past

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        now: list[FrozenTrial] = super().get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [t for t in self._past if states is None or t.state in states] + now


SHOWN = 150
"""How many records TPE is shown at most: never behind 300 over 800 trials (4 seeds, tests/benchmarks/what_tpe_sees.py), at half the
cost; 100 repeats itself."""

_BEST_SHOWN = _RUNNING_SHOWN = 50


def _choose_shown(records: Trials) -> Sequence[TrialRecord]:
    """The records that TPE is shown: all, or the best, what began last of that which runs, and a sample of the others."""
    if len(records) <= SHOWN:
        return records
    running = list(records.running)[-_RUNNING_SHOWN:]
    shown = records.sample(_BEST_SHOWN, SHOWN - _BEST_SHOWN - len(running))
    return [record for number in sorted(shown.union(running)) if (record := records.numbered(number)) is not None]


_SOME_TIME = datetime.datetime(2000, 1, 1)  # Optuna wants to know when trials ran; TPE does not


def _past_trials(space: Space, shown: Sequence[TrialRecord], records: Trials) -> list[FrozenTrial]:
    """The records `shown`, of all `records`, as Optuna trials over indices, but failures that say nothing and those whose choices this
    space no longer has. Numbers are raised by one: 0 is the trial that is asked for."""
    dimensions = {d.name: d for d in space.dimensions if len(d.choices) > 1}
    places = {name: {_typed(label): i for i, label in enumerate(d.labels)} for name, d in dimensions.items()}
    distributions = {name: IntDistribution(0, len(d.choices) - 1) for name, d in dimensions.items()}
    past = []
    for record in shown:
        params = {n: places[n].get(_typed(label)) for n, label in record.params.items() if n in places}
        state = _state_of(record)
        if state is None or None in params.values():
            continue
        # TPE ranks pruned trials by how far they came, then by their value there. A trial answered from another came as far.
        curve = record.curve
        if record.answered_from is not None and (source := records.numbered(record.answered_from)) is not None:
            curve = source.curve
        trial = FrozenTrial(
            number=record.number + 1,
            trial_id=record.number + 1,
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


def _state_of(record: TrialRecord) -> TrialState | None:
    """What TPE takes a record for; None: a failure that says nothing about its configuration."""
    if record.state == RUNNING:
        return TrialState.RUNNING
    if record.infeasible or record.state == PRUNED:
        return TrialState.PRUNED
    finite = record.state == COMPLETE and record.value is not None and math.isfinite(record.value)
    return TrialState.COMPLETE if finite else None


def _typed(label: Any) -> tuple[str, Any]:
    """Labels compared as they are written: True is not 1, and 1.0 is not 1."""
    return type(label).__name__, label
