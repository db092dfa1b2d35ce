"""`searchft plan`: what a run would do. Looks at data and backbones as a run would, creates no study, starts no worker."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchft.cli.output import emit, emit_json, emit_renderable, say

if TYPE_CHECKING:
    from searchft.recipe import SpaceFacts
    from searchft.report.plan import Group
    from searchft.space import Space

EPILOG = """\b
Example:
  searchft plan spaces/face_resnet18.yaml
  searchft plan spaces/face_resnet18.yaml --set data.image_size=96 --json"""

BUDGET_S = 30.0
"""Seconds after which no further group's epoch is timed."""


@click.command("plan", epilog=EPILOG)
@click.argument("space_file", metavar="SPACE", type=click.Path(path_type=Path))
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a value of the space.")
@click.option("--no-timing", is_flag=True, help="Do not time a step of each group.")
@click.option("--allow-code", is_flag=True, help="Run the Python files that the space names as backbones.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(space_file: Path, overrides: tuple[str, ...], no_timing: bool, allow_code: bool, as_json: bool) -> None:
    """Say what a run of SPACE would do, and start nothing."""
    from searchft.space import load_space, notes

    space = load_space(space_file, overrides)

    # torch from here on
    from searchft.execution.local import plan_slots
    from searchft.facts import describe
    from searchft.files import cache_folder
    from searchft.report.plan import groups_of, measure

    if allow_code:
        from searchft.models.backbones import permit

        permit(space_file.parent)
    say("looking at images and backbones")
    facts, _ = describe(space, cache_folder(), plan_slots("auto", 0)[0].device)
    groups, distinct = groups_of(space, facts)
    if not no_timing:
        say("timing a step of each group")
    measure(groups, space, facts, cache_folder() / "features", 0.0 if no_timing else BUDGET_S)
    remarks = [str(note) for note in notes(space, facts)]
    if as_json:
        from searchft.report.ground import weights_warnings

        emit_json(_answer(space, facts, groups, distinct, weights_warnings(space, facts) + remarks))
        return
    _print_head(space, facts, distinct)
    _print_groups(groups)
    _print_numerics(groups)
    _print_length(space, groups, distinct, timed=not no_timing)
    for remark in remarks:
        say(f"note: {remark}")


def _print_head(space: Space, facts: SpaceFacts, distinct: int | None) -> None:
    from searchft.report.ground import data_in_words, weights_warnings
    from searchft.report.words import weights_in_words

    emit(f"study     {space.name}: {space.search.trials} trials, sampler {space.search.sampler}, pruner {space.search.pruner}")
    emit(f"data      {data_in_words(facts)}, {space.data.image_size} px")
    emit(f"processor {facts.processor}")
    lines: list[str] = []
    for backbone in facts.backbones.values():
        head = f"head replaces {backbone.head} ({backbone.num_features} inputs)"
        lines.append(f"backbone  {backbone.backbone}, {weights_in_words(backbone)}")
        lines.append(f"          {backbone.backbone}: stages {', '.join(backbone.stage_names)}; {head}")
        lines += [f"          note: {note}" for note in backbone.notes]
    for line in dict.fromkeys([*lines, *(f"          {text}" for text in weights_warnings(space, facts))]):
        emit(line)
    shown = f"{distinct:,} that differ" if distinct is not None else "too many to count how many differ (rows alone below)"
    emit(f"space     {space.size():,} combinations, {shown}; {len(space.enqueue)} enqueued")


def _print_groups(groups: list[Group]) -> None:
    """A row per group; a backbone that is everyone's stands above already."""
    from rich import box
    from rich.table import Table

    from searchft.report.formats import count_text, duration_text, size_text
    from searchft.report.plan import BATCHES

    one = len({group.trial.recipe.backbone for group in groups}) == 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("group", overflow="fold", min_width=13)
    for title in ("configs", "trained", "frozen", f"mem@{BATCHES[-1]}", "stored", "epoch"):
        table.add_column(title, justify="right")
    for group in groups:
        fewest, most = count_text(group.fewest), count_text(group.most)
        table.add_row(
            group.name.removeprefix(f"{group.trial.recipe.backbone}, ") if one else group.name,
            str(group.configurations),
            fewest if fewest == most else f"{fewest}–{most}",
            count_text(group.frozen),
            size_text(group.activations[BATCHES[-1]]),
            size_text(group.stored_bytes) if group.store_name else "–",
            duration_text(group.epoch_s) if group.epoch_s is not None else "–",
        )
    emit_renderable(table)
    emit(f"trained, frozen: parameters; mem@{BATCHES[-1]}: what autograd keeps for a step of {BATCHES[-1]} images in float32")
    emit("stored: the frozen part's values of all train and val images; epoch: timed now, on this machine")


def _print_numerics(groups: list[Group]) -> None:
    """How each group is computed, and which values of its frozen part are kept."""
    from searchft.train.memory import explain

    for group in groups:
        assert group.keeping is not None
        emit(f"computed  {explain(group.name, group.trial.rule, group.keeping)}")


def _print_length(space: Space, groups: list[Group], distinct: int | None, *, timed: bool) -> None:
    from searchft.report.formats import duration_text, size_text
    from searchft.report.plan import stored_bytes, study_seconds

    emit(f"store     {size_text(stored_bytes(groups))} in all, shared by the groups that freeze the same part")
    seconds = study_seconds(space, groups, distinct)
    if seconds is None:
        why = f"the {BUDGET_S:.0f} s for timing were up before every group was timed" if timed else "nothing was timed"
        emit(f"length    not known: {why}")
    else:
        emit(
            f"length    about {duration_text(seconds)} without pruning, on one worker like this, from one step of "
            "each group as this machine is now"
        )


def _answer(space: Space, facts: SpaceFacts, groups: list[Group], distinct: int | None, remarks: list[str]) -> dict[str, Any]:
    from searchft.report.plan import stored_bytes, study_seconds

    sizes = {split: facts.data.size(split) for split in ("train", "val", "test")}
    return {
        "study": space.name,
        "data": {"source": facts.data.source, "classes": len(facts.data.classes), "images": sizes},
        "backbones": [
            {
                **{"backbone": b.backbone, "weights": b.weights, "from": b.weights_source},
                **{"fell_back": b.fell_back, "stages": list(b.stage_names)},
            }
            for b in facts.backbones.values()
        ],
        "configurations": distinct,
        "trials": space.search.trials,
        "openings": [
            {
                "opening": g.name,
                **{name: getattr(g, name) for name in ("configurations", "fewest", "most", "frozen", "stored_bytes")},
                "activation_bytes": {str(batch): size for batch, size in g.activations.items()},
                "not_stored": "" if g.store_name or g.keeping is None else g.keeping.reason,
                "kept": g.keeping and {"keep": g.keeping.keep, "reason": g.keeping.reason},
                "numerics": dataclasses.asdict(g.trial.numerics),
                "epoch_seconds": g.epoch_s,
            }
            for g in groups
        ],
        "stored_bytes": stored_bytes(groups),
        "seconds": study_seconds(space, groups, distinct),
        "notes": remarks,
    }
