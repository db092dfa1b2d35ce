"""The JSON schema of a whole space file, written by the table of fields, so that an editor completes and checks a space.

It refuses what a schema can: unknown keys, wrong types, values outside their limits, words that are none. Rules between keys,
and between a row and the choices, are for `load_space` to say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from searchft.recipe.fields import SECTIONS, Field
from searchft.recipe.kinds import ROW_NAME

WIDTH = 500
"""Characters that one line of the schema's text may hold."""
_GROUP = r"^\w+$"


def space_schema() -> dict[str, Any]:
    """The schema, draft 7, as plain JSON data; a recipe value's own is shared by `recipe` and the enqueued rows."""
    recipe, seed = SECTIONS["recipe"], _ref("seed")
    row = _mapping({"name": ROW_NAME.schema, **{key: _ref(key) for key in recipe}}, "name")
    row["properties"]["lr_multipliers"] = _groups(_ref("lr_multipliers"))
    row["properties"]["seed"] = {"anyOf": [seed, _list_of(seed)]}
    row["patternProperties"] = {r"^lr_multipliers\.\w+$": _ref("lr_multipliers")}
    data, search = (
        {key: _described(field, field.kind.schema) for key, field in SECTIONS[section].items() if field.key}
        for section in ("data", "search")
    )
    search["enqueue"] |= {"type": "array", "items": row}
    study = SECTIONS[""]["study"]
    sections = {
        "study": _described(study, study.kind.schema),
        "data": {"description": "Which images to learn from.", **_mapping(data, "source")},
        "recipe": {
            "description": "What to fine-tune, and how: a scalar is fixed, a list is a set of choices.",
            **_mapping({key: _described(field, _choices(field)) for key, field in recipe.items()}, "backbone"),
        },
        "search": {"description": "How the space is searched.", **_mapping(search)},
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A space of searchft",
        "description": "Written by `searchft schema` from the table of fields: do not edit.",
        **_mapping(sections, "study", "data", "recipe"),
        "definitions": {key: field.kind.schema for key, field in recipe.items()},
    }


def schema_text(value: Any = None, indent: str = "") -> str:
    """The schema as text, a field a line: what fits WIDTH stands on one line."""
    value = space_schema() if value is None else value
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict) or len(line) <= WIDTH:
        return line
    members = (f"{indent} {json.dumps(key)}: {schema_text(member, indent + ' ')}" for key, member in value.items())
    return "{\n" + ",\n".join(members) + f"\n{indent}}}"


def _ref(key: str) -> dict[str, str]:
    return {"$ref": f"#/definitions/{key}"}


def _list_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": 1}


def _groups(schema: Mapping[str, Any], **names: Any) -> dict[str, Any]:
    return {"type": "object", "propertyNames": {"pattern": _GROUP, **names}, "additionalProperties": schema}


def _mapping(properties: Mapping[str, Any], *must: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False, "required": list(must)}


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
    return _groups(either, **{"not": {"enum": ["choices"]}}) if field.kind.shape == "groups" else either
