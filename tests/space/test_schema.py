"""The JSON schema that editors read: it takes every good space and refuses what a schema can."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from searchft.space.schema import space_schema
from searchft.space.yaml_reader import SpaceLoader
from tests.space import test_grammar, test_malformed, test_mutations

SPACES = Path(__file__).parents[2] / "spaces"
PATHS = sorted(SPACES.rglob("*.yaml"))
VALIDATOR = jsonschema.Draft7Validator(space_schema())


def refusals(text: str) -> list[str]:
    """What the schema says of a space, with its place."""
    errors = VALIDATOR.iter_errors(yaml.load(text, SpaceLoader))  # a SafeLoader with YAML 1.2's scalars
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


def test_it_is_a_schema_and_the_committed_file_is_it() -> None:
    jsonschema.Draft7Validator.check_schema(space_schema())
    assert json.loads((SPACES / "schema.json").read_text()) == space_schema(), "run docs/make_grammar.py"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(SPACES)))
def test_a_shipped_space_fits_it_and_names_it_for_editors(path: Path) -> None:
    text = path.read_text()
    assert refusals(text) == []
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named and (path.parent / named[1]).resolve() == SPACES / "schema.json"


@pytest.mark.parametrize("line", sorted({line for line, *_ in test_grammar.LINES}))
def test_a_scalar_or_choices_fit_it(line: str) -> None:
    assert refusals(test_malformed.recipe(line)) == []


@pytest.mark.parametrize("text", test_mutations.FILES)
def test_files_that_load_fit_it(text: str) -> None:
    assert refusals(text) == []


# What needs two keys, an order, or a line, is not for a schema.
BEYOND = (
    *("stand beside", "must list each choice", "mixes the two", "stand once", "frozen beside", "anchor", "alias", "tag '"),
    *("finite", "begin with 0", "among the choices", "one of the choices", "the value under", "must be distinct"),
    *("fractions", "image_size (", "name one of the groups", "into one group", "strategy sets it", "at most 1000"),
    *(
        "private attributes",
        "got 5.0",
        "got 'Head'",
        "of its own",
        "conv1.stride a number",
        "x.",
        "Linear",
        "before edits",
        "a mapping of edits",
    ),
)
SECTIONS = [
    *((test_malformed.recipe(line), rule) for line, rule in test_malformed.RECIPE.items()),
    *((test_malformed.data(line), rule) for line, rule in test_malformed.DATA.items()),
    *((test_malformed.search(line), rule) for line, rule in test_malformed.SEARCH.items()),
]


@pytest.mark.parametrize(
    ("text", "rule"), [case for case in SECTIONS if not any(words in case[1] for words in BEYOND)], ids=lambda part: part[-40:]
)
def test_it_refuses_what_the_reader_refuses(text: str, rule: str) -> None:
    assert refusals(text), rule


def test_a_refusal_names_the_place() -> None:
    (said,) = refusals(test_malformed.search("enqueue: [{name: a, dropout: 2}]"))
    assert said.startswith("search.enqueue.0.dropout: 2 is ")
