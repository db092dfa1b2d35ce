"""How a space differs from the one a study was created with, in sentences, and what may be done about it."""

from __future__ import annotations

from typing import Any, Literal

from searchft.recipe import Recipe
from searchft.recipe.fields import NOTHING, SECTIONS
from searchft.space.choices import label, same
from searchft.space.space import Space
from searchft.wording import shown

Kind = Literal["search", "gained", "other"]


class Difference(str):
    """A sentence for people that knows its kind.

    `search`: budget, sampler, pruner, enqueued rows; the study simply goes on. `gained`: choices were added and none
    lost; a fork with the finished trials can go on. `other`: the study cannot go on with this space.
    """

    kind: Kind

    def __new__(cls, text: str, kind: Kind) -> Difference:
        made = super().__new__(cls, text)
        made.kind = kind
        return made

    def __reduce__(self) -> tuple[type[Difference], tuple[str, Kind]]:
        return (Difference, (str(self), self.kind))


def differences(old: Space, new: Space) -> list[Difference]:
    """In sentences, how `new` differs from `old`, what stops a study first. Empty: they run the same."""
    found = [
        *_study(old, new),
        *_settings("data", old.data, new.data),
        *_recipe(old, new),
        *_settings("search", old.search, new.search),
        *_rows(old, new),
    ]
    return sorted(found, key=lambda difference: ("other", "gained", "search").index(difference.kind))


def _study(old: Space, new: Space) -> list[Difference]:
    return [Difference(f"study was {shown(old.name)} and is {shown(new.name)}", "other")] if old.name != new.name else []


def _settings(section: str, old: Any, new: Any) -> list[Difference]:
    """What a field decides says whether a study can go on: another seed or another split is another study."""
    # `root` is where the space file stands: a moved folder with the same images is the same ground, and whether the
    # images are the same is for their fingerprint to say.
    found: list[Difference] = []
    for key, field in SECTIONS[section].items():
        before, after = getattr(old, field.name, None), getattr(new, field.name, None)
        kind: Kind = "search" if field.row.decides == NOTHING else "other"
        if key != "root" and not same(before, after):
            found.append(Difference(f"{section}.{key} was {shown(before)} and is {shown(after)}", kind))
    return found


def _recipe(old: Space, new: Space) -> list[Difference]:
    found: list[Difference] = []
    names = [*_given(old), *(name for name in _given(new) if name not in _given(old))]
    for name in names:
        before, after = _choices(old, name), _choices(new, name)
        lost = [b for b in before if not any(same(a, b) for a in after)]
        gained = [a for a in after if not any(same(a, b) for b in before)]
        key = f"recipe.{name}"
        if lost and gained and len(before) == len(after) == 1:
            found.append(Difference(f"{key} was {_text(name, before[0])} and is {_text(name, after[0])}", "other"))
        elif lost:
            found.append(Difference(f"{key} lost {_texts(name, lost)}", "other"))
        if gained and not (lost and len(before) == len(after) == 1):
            # Lost choices already stop the study; new ones beside them are told, but change nothing about that.
            found.append(Difference(f"{key} gained {_texts(name, gained)}", "gained"))
        if not lost and not gained and [*map(str, before)] != [*map(str, after)]:
            found.append(
                Difference(
                    f"{key} lists its choices in another order: {_texts(name, before)}, now {_texts(name, after)}", "other"
                )
            )
        elif gained and not lost and not _in_order(before, after):
            found.append(Difference(f"{key} lists its old choices in another order", "other"))
    return found


def _in_order(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    kept = [a for a in after if any(same(a, b) for b in before)]
    return all(same(a, b) for a, b in zip(kept, before, strict=True))


def _rows(old: Space, new: Space) -> list[Difference]:
    """Rows by what they run, not by what they say: dimensions that came later stand at their first choice."""
    found: list[Difference] = []
    before = {row.name: old.resolve(row.chosen) for row in old.enqueue}
    after = {row.name: new.resolve(row.chosen) for row in new.enqueue}
    for name, recipe in after.items():
        if name not in before:
            found.append(Difference(f"search.enqueue gained the row {shown(name)}", "search"))
        elif _without_seed(before[name], old) != _without_seed(recipe, new):
            found.append(Difference(f"search.enqueue gives the row {shown(name)} other values", "other"))
    found += [Difference(f"search.enqueue lost the row {shown(name)}", "search") for name in before if name not in after]
    return found


def _without_seed(recipe: Recipe, space: Space) -> dict[str, Any]:
    values = recipe.to_json()
    if "seed" not in _given(space):
        del values["seed"]  # the study's, and told as such
    # A multiplier of 1.0 is what a group has anyway.
    values["lr_multipliers"] = [pair for pair in values["lr_multipliers"] if pair[1] != 1.0]
    return values


def _given(space: Space) -> list[str]:
    return [*space.fixed, *space.by_name]


def _choices(space: Space, name: str) -> tuple[Any, ...]:
    """The choices of any recipe value, given or not."""
    if name in space.by_name:
        return space.by_name[name].choices
    if name in space.fixed:
        return (space.fixed[name],)
    if "." in name:
        return (1.0,)
    return (space.search.seed if name == "seed" else SECTIONS["recipe"][name].default,)


def _text(name: str, value: Any) -> str:
    if value is None:
        return "not given"
    shown_label = label(name, value)
    return shown_label if isinstance(shown_label, str) and shown_label else shown(shown_label)


def _texts(name: str, values: list[Any] | tuple[Any, ...]) -> str:
    return ", ".join(_text(name, value) for value in values)
