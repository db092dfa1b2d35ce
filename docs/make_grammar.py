"""Writes docs/grammar.md from the schema itself: rules from space/schema.py, meanings and defaults from the dataclasses.

Usage: .venv/bin/python docs/make_grammar.py     (a test holds that the page is current)
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from pathlib import Path
from typing import Any

from searchft.recipe import DataSettings, Recipe
from searchft.space.schema import DATA_KEYS, LAYERS, RECIPE_KEYS, SEARCH_KEYS, STUDY_VALUES, _checker
from searchft.space.settings import SearchSettings
from searchft.space.strategies import STRATEGIES

PAGE = Path(__file__).with_name("grammar.md")

HEAD = """# The grammar of a space

<!-- Written by docs/make_grammar.py from the schema: do not edit. -->

A space is one YAML file with the keys `study`, `data`, `recipe` and `search`. It is read by a strict reader: duplicate and unknown
keys, aliases and tags are refused, `true` is not 1, `"0.5"` is not 0.5, and `1e-3` is a number. Every problem is reported at once,
with its line. `--set recipe.epochs=5` on the command line overrides any value.

Under `recipe` a scalar is fixed and a list is a set of choices. Where one value is a list itself (`head_widths`, `stages`), choices are
a list of lists, or `{choices: [...]}`: `head_widths: [256, 128]` is one head with two hidden layers, `head_widths: [[], [256]]` are two
choices. `lr_multipliers` and `lr_groups` map names; each multiplier may be a set of choices.
"""

TAIL = """
## Enqueued rows

`search.enqueue` is a list of named configurations that are tried first: `{name: Baseline, unfrozen: head}`. Each value is one of the
choices given under `recipe`, or the fixed value; what a row does not say is the first choice.

## What `unfrozen` may be

`head` (nothing but the new head trains), a count of stages from the end (`0` is `head`), the name of a stage or module (that one and
everything after it), or `all`. `searchft models NAME` prints a network's stages.

## Rates

The rate of a parameter is `lr` × its group's multiplier × `layer_decay`^distance from the head. Groups: `head`, and `backbone` (all open
stages), or `top` (the last open stage) and `deep` (the open ones below it), or your own `lr_groups: {early: [layer1, layer2]}`. A group
with nothing open is not asked for.
"""


def meanings(cls: type) -> dict[str, str]:
    """Field to the text that stands below it in its class."""
    body = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def defaults(cls: Any) -> dict[str, Any]:
    """Field to default, where it has one."""
    return {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}


def shown(value: Any) -> str:
    """A default as one writes it in YAML."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`{" + ", ".join(f"{k}: {v:g}" for k, v in value) + "}`" if value and isinstance(value[0], tuple) else "`[]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def rule_of(section: str, name: str) -> str:
    """The rule that messages state."""
    return _checker(section, name)[1].removeprefix("must be ").removeprefix("must ").replace("lie in ", "in ")


def table(
    section: str, keys: tuple[str, ...], words: dict[str, str], values: dict[str, Any], rules: dict[str, str]
) -> list[str]:
    lines = ["| key | meaning | value | default |", "| --- | --- | --- | --- |"]
    for key in keys:
        rule = rules[key] if key in rules else rule_of(section, key)
        cells = (f"`{key}`", words.get(key, ""), rule, shown(values.get(key)))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def page() -> str:
    """The whole page."""
    recipe_words = meanings(Recipe) | {
        "strategy": "A macro over several of these values: "
        + "; ".join(
            f"`{name}` = {', '.join(f'{k}: {v}' for k, v in row.items()) or 'as given'}" for name, row in STRATEGIES.items()
        )
    }
    search_words = meanings(SearchSettings)
    search_words |= {"timeout": search_words.get("timeout_s", ""), "enqueue": "Named configurations to try first, see below."}
    search_values = defaults(SearchSettings)
    search_values["timeout"] = search_values.pop("timeout_s")
    data_rules = {
        "split": "counts per class (whole numbers) or shares, for train, val and test; `seed` beside them",
        "folders": "train, val, test to names of sub-folders",
    }
    recipe_rules = {"lr_multipliers": "group names to factors in (0, 1000], each a scalar or a list of choices"}
    recipe_rules["edits"] = (
        rule_of("recipe", "edits") + f"; `MODULE.keep: n`, `MODULE.append` and `.replace` build {', '.join(LAYERS)}"
    )
    lines = [
        HEAD,
        "## study",
        "",
        f"The study's name: {_checker('', 'study')[1].removeprefix('must be ')}.",
        "",
        "## data",
        "",
        *table("data", tuple(k for k in DATA_KEYS if k != "root"), meanings(DataSettings), defaults(DataSettings), data_rules),
        "",
        "## recipe",
        "",
        *table("recipe", RECIPE_KEYS, recipe_words, defaults(Recipe), recipe_rules),
        "",
        "## search",
        "",
        *table("search", SEARCH_KEYS, search_words, search_values, {"enqueue": "a list of rows"}),
        TAIL,
    ]
    assert STUDY_VALUES
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
