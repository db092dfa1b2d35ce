"""How a space differs from the one a study was created with, in sentences, and what may be done about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from searchft.recipe.fields import NOTHING, SECTIONS
from searchft.space.choices import identity, label
from searchft.space.space import Space
from searchft.wording import shown

Kind = Literal["search", "gained", "other"]


@dataclass(frozen=True)
class Difference:
    """A sentence for people, and its kind.

    `search`: budget, sampler, pruner, enqueued rows; the study simply goes on. `gained`: choices were added and none
    lost; a fork with the finished trials can go on. `other`: the study cannot go on with this space.
    """

    text: str
    kind: Kind

    def __str__(self) -> str:
        return self.text


def differences(old: Space, new: Space) -> list[Difference]:
    """How `new` differs from `old`, what stops a study first. Empty: they run the same."""
    found = [*_settings("data", old.data, new.data), *_recipe(old, new), *_settings("search", old.search, new.search)]
    if old.name != new.name:
        found.insert(0, Difference(f"study was {shown(old.name)} and is {shown(new.name)}", "other"))
    return sorted([*found, *_rows(old, new)], key=lambda difference: ("other", "gained", "search").index(difference.kind))


def _settings(section: str, old: Any, new: Any) -> Iterator[Difference]:
    """What a field decides says whether a study can go on: another seed or another split is another study."""
    for key, field in SECTIONS[section].items():
        before, after = getattr(old, field.name, None), getattr(new, field.name, None)
        # `root` is where the space file stands; whether a moved folder holds the same images is for their fingerprint to say.
        if key != "root" and identity(before) != identity(after):
            kind: Kind = "search" if field.row.decides == NOTHING else "other"
            yield Difference(f"{section}.{key} was {shown(before)} and is {shown(after)}", kind)


def _recipe(old: Space, new: Space) -> Iterator[Difference]:
    for name in dict.fromkeys((*old.fixed, *old.by_name, *new.fixed, *new.by_name)):
        before, after = ({identity(one): _text(name, one) for one in _choices(space, name)} for space in (old, new))
        lost = [text for choice, text in before.items() if choice not in after]
        gained = [text for choice, text in after.items() if choice not in before]
        key = f"recipe.{name}"
        if lost and gained and len(before) == len(after) == 1:
            yield Difference(f"{key} was {lost[0]} and is {gained[0]}", "other")
            continue
        if lost:
            yield Difference(f"{key} lost {', '.join(lost)}", "other")
        if gained:
            yield Difference(f"{key} gained {', '.join(gained)}", "gained")
        if not lost and [choice for choice in after if choice in before] != list(before):
            orders = f": {', '.join(before.values())}, now {', '.join(after.values())}" if not gained else ""
            yield Difference(f"{key} lists its {'old ' if gained else ''}choices in another order{orders}", "other")


def _rows(old: Space, new: Space) -> Iterator[Difference]:
    """Rows by what they run, not by what they say: dimensions that came later stand at their first choice."""
    before, after = ({row.name: _runs(row.chosen, space) for row in space.enqueue} for space in (old, new))
    for name, values in after.items():
        if name not in before:
            yield Difference(f"search.enqueue gained the row {shown(name)}", "search")
        elif before[name] != values:
            yield Difference(f"search.enqueue gives the row {shown(name)} other values", "other")
    for name in (name for name in before if name not in after):
        yield Difference(f"search.enqueue lost the row {shown(name)}", "search")


def _runs(chosen: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """What a row runs; not the study's seed, which is a difference of its own, nor a multiplier of 1.0, which a group has anyway."""
    values = space.resolve(chosen).to_json()
    if not space.choices("seed"):
        del values["seed"]
    values["lr_multipliers"] = [pair for pair in values["lr_multipliers"] if pair[1] != 1.0]
    return values


def _choices(space: Space, name: str) -> tuple[Any, ...]:
    """The choices of any recipe value, given or not."""
    default = 1.0 if "." in name else space.search.seed if name == "seed" else SECTIONS["recipe"][name].default
    return space.choices(name) or (default,)


def _text(name: str, value: Any) -> str:
    if value is None:
        return "not given"
    shown_label = label(name, value)
    return shown_label if isinstance(shown_label, str) and shown_label else shown(shown_label)
