"""The JSON schema of a whole space file, written by the table of fields, so that an editor completes and checks a space.

It refuses what a schema can: unknown keys, wrong types, values outside their limits, words that are none. Rules between keys,
and between a row and the choices, are for `load_space` to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from searchft.recipe.fields import SECTIONS, Field
from searchft.recipe.kinds import ROW_NAME

_MUST = {"": ["study", "data", "recipe"], "data": ["source"], "recipe": ["backbone"], "search": []}
_GROUP = r"^\w+$"


def space_schema() -> dict[str, Any]:
    """The schema, draft 7, as plain JSON data."""
    recipe = SECTIONS["recipe"]
    values = {key: {**field.kind.schema} for key, field in recipe.items()}
    row_values: dict[str, Any] = {key: _ref(key) for key in recipe}
    row_values["lr_multipliers"] = {
        "type": "object",
        "propertyNames": {"pattern": _GROUP},
        "additionalProperties": _ref("lr_multipliers"),
    }
    row_values["seed"] = {"anyOf": [_ref("seed"), _list_of(_ref("seed"))]}
    enqueued = {
        "type": "object",
        "properties": {"name": ROW_NAME.schema, **row_values},
        "patternProperties": {r"^lr_multipliers\.\w+$": _ref("lr_multipliers")},
        "additionalProperties": False,
        "required": ["name"],
    }
    search = {key: _described(field, field.kind.schema) for key, field in SECTIONS["search"].items()}
    search["enqueue"] = _described(SECTIONS["search"]["enqueue"], {"type": "array", "items": enqueued})
    data = {field.key: _described(field, field.kind.schema) for field in SECTIONS["data"].values() if field.key}
    top = {key: _described(field, field.kind.schema) for key, field in SECTIONS[""].items()}
    sections = {
        "data": _mapping(data, "data", "Which images to learn from."),
        "recipe": _mapping(
            {key: _described(field, _choices(field)) for key, field in recipe.items()},
            "recipe",
            "What to fine-tune, and how: a scalar is fixed, a list is a set of choices.",
        ),
        "search": _mapping(search, "search", "How the space is searched."),
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A space of searchft",
        **_mapping({**top, **sections}, "", "Written by `searchft schema` from the table of fields: do not edit."),
        "definitions": values,
    }


def _ref(key: str) -> dict[str, str]:
    return {"$ref": f"#/definitions/{key}"}


def _list_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": 1}


def _mapping(properties: Mapping[str, Any], section: str, description: str) -> dict[str, Any]:
    closed = {"type": "object", "properties": properties, "additionalProperties": False, "required": _MUST[section]}
    return {"description": description, **closed}


def _described(field: Field, schema: Mapping[str, Any]) -> dict[str, Any]:
    """`schema` with the field's meaning, and its default where it is one that YAML writes as it is."""
    default = {"default": field.default} if isinstance(field.default, str | int | float) and field.default != "" else {}
    return {"description": field.row.meaning, **default, **schema}


def _choices(field: Field) -> dict[str, Any]:
    """One value or a set of choices; where groups have values of their own, each of them so."""
    value = _ref(field.key)
    several = _list_of(value)
    braces = {"type": "object", "properties": {"choices": several}, "required": ["choices"], "additionalProperties": False}
    either = {"anyOf": [value, several, braces]}
    if field.kind.shape != "groups":
        return either
    names = {"pattern": _GROUP, "not": {"enum": ["choices"]}}
    return {"type": "object", "propertyNames": names, "additionalProperties": either}
