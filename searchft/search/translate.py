"""Between Optuna's trials and ours: user attributes, seals, plain values.

User attributes of a trial: `recipe`, `key`, `name`, and where they apply `answered_from`, `reason`, `result` (what was measured beside
the score, per-epoch curves among it), `seal`, and notes such as `owner`. Older studies hold what is in `result` one by one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from searchft.recipe import Recipe
from searchft.recipe.fields import RENAMED
from searchft.search.records import COMPLETE, FAILED, PRUNED, RUNNING, TrialRecord

STATES: Mapping[TrialState, str] = MappingProxyType(
    {TrialState.RUNNING: RUNNING, TrialState.COMPLETE: COMPLETE, TrialState.PRUNED: PRUNED, TrialState.FAIL: FAILED}
)
OPTUNA_STATES = MappingProxyType({ours: theirs for theirs, ours in STATES.items()})

FEASIBLE = "feasible"  # name of the constraint: above 0 means that the configuration cannot run here

_OURS = frozenset({"recipe", "key", "name", "answered_from", "reason", "seconds", "seal", "result"})
"""User attributes that are fields of TrialRecord; all others are its `extra`."""


def seal_of(trial: FrozenTrial) -> str:
    """SHA-256 of what a finished trial says, its curve among it: pages and rows may be damaged, or changed by hand, unnoticed."""
    curve = [[epoch, float(value)] for epoch, value in sorted(trial.intermediate_values.items())]
    value = None if trial.value is None else float(trial.value)
    texts = [trial.user_attrs.get(name) for name in ("recipe", "key", "name", "answered_from")]
    content = [trial.number, STATES[trial.state], value, dict(sorted(trial.params.items())), curve, *texts]
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()


def is_sealed(trial: FrozenTrial) -> bool:
    """Whether a finished trial is what was written; those of other programs have no seal."""
    return trial.user_attrs.get("seal") in (None, seal_of(trial))


def attributes_of(recipe: Recipe, key: str, name: str, notes: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's user attributes, as plain JSON values."""
    return plain_notes({"recipe": recipe.to_json(), "key": key, "name": name, **notes})


def record_of(trial: FrozenTrial, recipe: Recipe | None = None) -> TrialRecord:
    """Optuna's trial in our words; `recipe`: what it says it ran, if that is known already. Raises whatever damage leads to."""
    attributes = trial.user_attrs
    extra = {k: v for k, v in attributes.items() if k not in _OURS} | attributes.get("result", {})
    curve: list[float] = []
    while len(curve) + 1 in trial.intermediate_values:
        curve.append(trial.intermediate_values[len(curve) + 1])
    seconds = attributes.get("seconds")
    if seconds is None:
        seconds = sum(s for s in extra.get("curves", {}).get("seconds", ()) if s is not None)
    return TrialRecord(
        number=trial.number,
        name=attributes.get("name", ""),
        state=STATES[trial.state],
        params=MappingProxyType({RENAMED.get(name, name): label for name, label in trial.params.items()}),
        recipe=recipe or Recipe.from_json(attributes["recipe"]),
        key=attributes["key"],
        value=trial.value if trial.state.is_finished() else None,
        curve=tuple(curve),
        answered_from=attributes.get("answered_from"),
        infeasible=any(v > 0 for v in trial.constraints.values()),
        reason=attributes.get("reason", ""),
        seconds=float(seconds),
        extra=MappingProxyType(extra),
    )


def plain_notes(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as plain JSON values, empty ones left out."""
    return {name: plain(note) for name, note in notes.items() if note not in ("", None, {})}


def plain(value: Any) -> Any:
    """As JSON can hold it everywhere: NaN and infinities as null (PostgreSQL's and browsers' JSON have none), tuples as lists."""
    if hasattr(value, "item"):  # numpy's numbers
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"an attribute must be plain data but got {type(value).__name__}")
