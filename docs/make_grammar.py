"""Writes docs/grammar.md and spaces/schema.json from the table of fields.

Usage: python docs/make_grammar.py     (tests hold that both are current)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from searchft.recipe.fields import SECTIONS, Field
from searchft.recipe.kinds import LAYERS, Kind
from searchft.space.schema import schema_text

PAGE = Path(__file__).with_name("grammar.md")
SCHEMA = Path(__file__).parents[1] / "spaces" / "schema.json"

HEAD = """# The grammar of a space

<!-- Written by docs/make_grammar.py from the table of fields (searchft/recipe/fields.py): do not edit. -->

A space is one YAML file with the keys `study`, `data`, `recipe` and `search`. It is read by a strict reader: duplicate and unknown
keys, aliases and tags are refused, `true` is not 1, `"0.5"` is not 0.5, and `1e-3` is a number. Every problem is reported at once,
with its line. `--set recipe.epochs=5` on the command line overrides any value.

Under `recipe` a scalar is fixed and a list is a set of choices. Where one value is a list itself (`head_widths`, `stages`), choices are
a list of lists, or `{choices: [...]}`: `head_widths: [256, 128]` is one head with two hidden layers, `head_widths: [[], [256]]` are two
choices. `lr_multipliers` and `lr_groups` map names; each multiplier may be a set of choices.

An editor that speaks to yaml-language-server (VS Code with its YAML extension) completes and checks a space whose first line is
`# yaml-language-server: $schema=PATH`; `searchft schema --out PATH` writes the schema.
"""

TAIL = """
## Enqueued rows

`search.enqueue` is a list of named configurations that are tried first: `{name: Baseline, unfrozen: head}`. Each value is one of the
choices given under `recipe`, or the fixed value; what a row does not say is the first choice. A row whose `seed` is a list is a row for
each of them.

## Edits

`MODULE.ATTRIBUTE: value` sets an attribute. `MODULE.keep: n` keeps a container's first n modules, `MODULE.append: [LAYER, ...]` adds to
it, `MODULE.replace: LAYER` takes a module's place; a layer is `ReLU` or `{Conv2d: {in_channels: 3, out_channels: 8, kernel_size: 3}}`,
of these: LAYERS.

## What `unfrozen` may be

`head` (nothing but the new head trains), a count of stages from the end (`0` is `head`), the name of a stage or module (that one and
everything after it), or `all`. `searchft models NAME` prints a network's stages.

## Rates

The rate of a parameter is `lr` × its group's multiplier × `layer_decay`^distance from the head. Groups: `head`, and `backbone` (all open
stages), or `top` (the last open stage) and `deep` (the open ones below it), or your own `lr_groups: {early: [layer1, layer2]}`. A group
with nothing open is not asked for.
"""


def shown(value: Any) -> str:
    """A default as one writes it in YAML."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`{" + ", ".join(f"{k}: {v:g}" for k, v in value) + "}`" if value else "`[]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def table(section: str) -> Iterator[str]:
    """The lines of a section."""
    yield from ("| key | meaning | value | default |", "| --- | --- | --- | --- |")
    for field in SECTIONS[section].values():
        if field.key:
            meaning = field.row.meaning + (f" It has an effect {field.row.when.says}." if field.row.when else "")
            cells = (f"`{field.key}`", meaning, rule(field), shown(field.default))
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def rule(field: Field) -> str:
    """The rule that messages state."""
    if field.kind.shape == "groups":
        return f"group names to numbers {rule_text(field.kind)}, each a value or a list of choices"
    return rule_text(field.kind)


def rule_text(kind: Kind) -> str:
    """A kind's rule without its "must"."""
    return kind.rule.removeprefix("must be ").removeprefix("must ").replace("lie in ", "in ")


def page() -> str:
    """The whole page."""
    lines = [HEAD, "## study", "", f"The study's name: {rule(SECTIONS['']['study'])}."]
    for section in ("data", "recipe", "search"):
        lines += ["", f"## {section}", "", *table(section)]
    return "\n".join([*lines, TAIL.replace("LAYERS", ", ".join(LAYERS))])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(schema_text() + "\n", encoding="utf-8")
