"""`searchft models`: which backbones there are, and what one is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from searchft.cli.output import emit, emit_json, emit_table, say
from searchft.cli.studies import examples, json_option
from searchft.errors import InputError, first_line

if TYPE_CHECKING:
    from searchft.recipe import BackboneFacts, Recipe

EXAMPLES = examples('models "*mobilenet*"', "models torchvision/resnet18", "models timm/vit_tiny_patch16_224 --check")


@click.command("models", epilog=EXAMPLES)
@click.argument("pattern", required=False)
@click.option("--check", is_flag=True, help="Say whether searchft can split off the frozen part of the networks found.")
@json_option
def command(pattern: str | None, check: bool, as_json: bool) -> None:
    """List the backbones that match PATTERN, or print stages, head and size of the one called so.

    A stage's name is a value of `unfrozen`: it opens that stage and everything after it. No weights are loaded.
    """
    from searchft.models import list_backbones
    from searchft.wording import near

    names = list_backbones(pattern)
    if exact := _find_exact(pattern or ""):
        _print_one(exact, check, as_json)
        return
    if not names:
        known = {name.partition("/")[2]: name for name in reversed(list_backbones())}
        meant = near((pattern or "").rpartition("/")[2], known)
        hint = f", did you mean {known[meant]!r}?" if meant else ""
        raise InputError(f"no backbone matches {pattern!r}{hint}", "PATTERN")
    rows: Iterator[dict[str, Any]] = (_check_split(name) if check else {"name": name} for name in names)
    if as_json:
        emit_json({"models": list(rows)})
        return
    for row in rows:
        checked = f": {'splits' if row['splits'] else 'whole'}{': ' + row['reason'] if row['reason'] else ''}" if check else ""
        emit(f"{row['name']}{checked}")


def _find_exact(pattern: str) -> str | None:
    """The full name that the pattern is, tags of timm included; `resnet18` alone is looked for in torchvision, then timm."""
    from searchft.models.backbones import parse_backbone

    if not pattern or any(sign in pattern for sign in "*?["):
        return None
    for name in [pattern] if "/" in pattern else [f"torchvision/{pattern}", f"timm/{pattern}"]:
        try:
            return str(parse_backbone(name))
        except InputError:
            continue
    return None


def _describe(name: str) -> tuple[Recipe, BackboneFacts]:
    from searchft.models import describe_backbone
    from searchft.recipe import Recipe

    recipe = Recipe(backbone=name, weights="none", unfrozen=1)
    return recipe, describe_backbone(recipe, seed=0)


def _print_one(name: str, check: bool, as_json: bool) -> None:
    facts = _describe(name)[1]
    stages: list[dict[str, Any]] = []
    from_here = 0  # what `unfrozen: STAGE` trains of the backbone
    for stage in reversed(facts.stages):
        own = sum(p.size for p in facts.parameters if p.stage == stage.name)
        from_here += own
        stages.insert(
            0, {"name": stage.name, "parameters": own, "parameters_from_here": from_here, "modules": list(stage.modules)}
        )
    answer: dict[str, Any] = {
        "name": name,
        "parameters": sum(p.size for p in facts.parameters),
        "num_features": facts.num_features,
        "head": facts.head,
        "input_size": facts.input_size,
        "stages": stages,
    }
    if check:
        answer["check"] = {key: value for key, value in _check_split(name).items() if key != "name"}
    if as_json:
        emit_json(answer)
        return
    emit(f"{name}: {answer['parameters']:,} parameters without the head, trained at {facts.input_size} pixels")
    emit(f"head: {facts.head} is replaced, {facts.num_features} features come in")
    rows = ([s["name"], f"{s['parameters']:,}", f"{s['parameters_from_here']:,}", ", ".join(s["modules"])] for s in stages)
    sizes = ("parameters", "from here on")
    emit_table(["stage", *sizes, "modules"], rows, right=sizes, fold="modules")
    if check:
        reason = answer["check"]["reason"]
        how = "is computed once and kept" if answer["check"]["splits"] else f"cannot be split off: {reason}"
        emit(f"frozen part: {how}")


def _check_split(name: str) -> dict[str, Any]:
    """Whether the frozen part splits off with the last stage open: {"name", "splits", "reason"}."""
    import torch

    from searchft.features.split import split_model
    from searchft.models import build_model, freeze, set_modes
    from searchft.recipe import open_parameters

    try:
        recipe, facts = _describe(name)
        model = build_model(recipe, facts, num_classes=2, head_seed=0)
        opening = open_parameters(recipe, facts)
        freeze(model, facts, opening)
        example = torch.zeros(2, 3, facts.input_size, facts.input_size)
        split = split_model(model, lambda training: set_modes(model, facts, opening, training), example)
    except Exception as error:  # one network that cannot be built must not end a list of hundreds
        say(f"{name}: {first_line(error)}")
        return {"name": name, "splits": False, "reason": first_line(error)}
    return {"name": name, "splits": split.prefix is not None, "reason": split.reason}
