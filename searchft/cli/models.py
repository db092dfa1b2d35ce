"""`searchft models`: which backbones there are, and what one is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from searchft.cli.output import emit, emit_json, emit_renderable, say
from searchft.cli.studies import json_option
from searchft.errors import InputError

if TYPE_CHECKING:
    from searchft.recipe import BackboneFacts, Recipe

EPILOG = """\b
Example:
  searchft models "*mobilenet*"
  searchft models torchvision/resnet18
  searchft models timm/vit_tiny_patch16_224 --check"""


@click.command("models", epilog=EPILOG)
@click.argument("pattern", required=False)
@click.option("--check", is_flag=True, help="Say whether searchft can split off the frozen part of the networks found.")
@json_option
def command(pattern: str | None, check: bool, as_json: bool) -> None:
    """List the backbones that match PATTERN, or print stages, head and size of the one called so.

    A stage's name is a value of `unfrozen`: it opens that stage and everything after it. No weights are loaded.
    """
    from searchft.models import list_backbones

    names = list_backbones(pattern)
    exact = _exact(pattern)
    if exact:
        _print_one(exact, check, as_json)
        return
    if not names:
        raise InputError(f"no backbone matches {pattern!r}{_near(pattern or '')}", "PATTERN")
    if check:
        rows = [_checked(name) for name in names]
        if as_json:
            emit_json({"models": rows})
        else:
            for row in rows:
                emit(f"{row['name']}: {'splits' if row['splits'] else 'whole'}{': ' + row['reason'] if row['reason'] else ''}")
    elif as_json:
        emit_json({"models": [{"name": name} for name in names]})
    else:
        for name in names:
            emit(name)


def _exact(pattern: str | None) -> str | None:
    """The full name that the pattern is, tags of timm included; `resnet18` alone is looked for in torchvision, then timm."""
    if not pattern or any(sign in pattern for sign in "*?["):
        return None
    from searchft.models.backbones import parse_backbone

    candidates = [pattern] if "/" in pattern else [f"torchvision/{pattern}", f"timm/{pattern}"]
    for name in candidates:
        try:
            return str(parse_backbone(name))
        except InputError:
            continue
    return None


def _near(pattern: str) -> str:
    from searchft.models import list_backbones
    from searchft.wording import near

    known = {name.partition("/")[2]: name for name in reversed(list_backbones(None))}
    meant = near(pattern.rpartition("/")[2], known)
    return f", did you mean {known[meant]!r}?" if meant else ""


def _recipe(name: str) -> Recipe:
    from searchft.recipe import Recipe

    return Recipe(backbone=name, weights="none", unfrozen=1)


def _print_one(name: str, check: bool, as_json: bool) -> None:
    from searchft.models import describe_backbone

    facts = describe_backbone(_recipe(name), seed=0)
    stages = _stages(facts)
    answer: dict[str, Any] = {
        "name": name,
        "parameters": sum(p.size for p in facts.parameters),
        "num_features": facts.num_features,
        "head": facts.head,
        "input_size": facts.input_size,
        "stages": stages,
    }
    if check:
        answer["check"] = {key: value for key, value in _checked(name).items() if key != "name"}
    if as_json:
        emit_json(answer)
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    emit(f"{name}: {answer['parameters']:,} parameters without the head, trained at {facts.input_size} pixels")
    emit(f"head: {facts.head} is replaced, {facts.num_features} features come in")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("from here on", justify="right", no_wrap=True)
    table.add_column("modules", overflow="fold")
    for stage in stages:
        table.add_row(
            stage["name"], f"{stage['parameters']:,}", f"{stage['parameters_from_here']:,}", Text(", ".join(stage["modules"]))
        )
    emit_renderable(table)
    if check:
        splits, reason = answer["check"]["splits"], answer["check"]["reason"]
        emit(f"frozen part: {'is computed once and kept' if splits else f'cannot be split off: {reason}'}")


def _stages(facts: BackboneFacts) -> list[dict[str, Any]]:
    """Stem first; `parameters_from_here` is what `unfrozen: STAGE` trains of the backbone."""
    rows: list[dict[str, Any]] = []
    total = 0
    for stage in reversed(facts.stages):
        own = sum(p.size for p in facts.parameters if p.stage == stage.name)
        total += own
        rows.append({"name": stage.name, "parameters": own, "parameters_from_here": total, "modules": list(stage.modules)})
    return rows[::-1]


def _checked(name: str) -> dict[str, Any]:
    """Whether the frozen part splits off with the last stage open: {"name", "splits", "reason"}."""
    import torch

    from searchft.features.split import split_model
    from searchft.models import build_model, describe_backbone, freeze, set_modes
    from searchft.recipe import open_parameters

    recipe = _recipe(name)
    try:
        facts = describe_backbone(recipe, seed=0)
        model = build_model(recipe, facts, num_classes=2, head_seed=0)
        opening = open_parameters(recipe, facts)
        freeze(model, facts, opening)
        example = torch.zeros(2, 3, facts.input_size, facts.input_size)
        split = split_model(model, lambda training: set_modes(model, facts, opening, training), example)
    except Exception as error:  # one network that cannot be built must not end a list of hundreds
        first = (str(error).splitlines() or [type(error).__name__])[0]
        say(f"{name}: {first}")
        return {"name": name, "splits": False, "reason": first}
    return {"name": name, "splits": split.prefix is not None, "reason": split.reason}
