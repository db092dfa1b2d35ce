"""`searchft plan`: what a run would do. Looks at data and backbones as a run would, creates no study, starts no worker."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchft.cli.output import emit, emit_json, emit_renderable, say

if TYPE_CHECKING:
    from searchft.recipe import DataFacts, SpaceFacts
    from searchft.report.layers import Layer
    from searchft.report.plan import Group
    from searchft.space import Space

EPILOG = """\b
Example:
  searchft plan spaces/face_resnet18.yaml
  searchft plan spaces/face_resnet18.yaml --layers all
  searchft plan spaces/face_resnet18.yaml --set data.image_size=96 --json"""

BUDGET_S = 30.0
"""Seconds after which no further group's epoch is timed."""


@click.command("plan", epilog=EPILOG)
@click.argument("space_file", metavar="SPACE", type=click.Path(path_type=Path))
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a value of the space.")
@click.option(
    "--layers",
    type=click.Choice(["stages", "all", "none"]),
    default="stages",
    show_default=True,
    help="The layer table: each stage's last layer, every layer, or none.",
)
@click.option("--no-timing", is_flag=True, help="Do not time a step of each group.")
@click.option("--allow-code", is_flag=True, help="Run the Python files that the space names as backbones.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    space_file: Path, overrides: tuple[str, ...], layers: str, no_timing: bool, allow_code: bool, as_json: bool
) -> None:
    """Say what a run of SPACE would do, and start nothing."""
    from searchft.space import load_space, notes

    space = load_space(space_file, overrides)

    # torch from here on
    from searchft.execution.local import plan_slots
    from searchft.facts import describe
    from searchft.files import cache_folder
    from searchft.report.plan import groups_of, measure

    if allow_code:
        from searchft.models.code import permit

        permit(space_file.parent)
    say("looking at images and backbones")
    facts, _ = describe(space, cache_folder(), plan_slots("auto", 0)[0].device)
    groups, distinct = groups_of(space, facts)
    if not no_timing:
        say("timing a step of each group")
    measure(groups, space, facts, cache_folder() / "features", 0.0 if no_timing else BUDGET_S)
    tables = _layer_tables(space, facts) if layers != "none" or as_json else []
    remarks = [str(note) for note in notes(space, facts)]
    if as_json:
        from searchft.report.live import weights_warnings

        remarks = [text for _, text in weights_warnings(space, facts)] + remarks
        emit_json(_answer(space, facts, groups, distinct, tables, remarks))
        return
    _print_head(space, facts, distinct)
    _print_groups(groups)
    _print_numerics(groups)
    _print_length(space, groups, distinct, timed=not no_timing)
    for name, rows in tables:
        emit(f"layers of {name} at {space.data.image_size} px")
        _print_layers(rows if layers == "all" else _stage_ends(rows))
    for remark in remarks:
        say(f"note: {remark}")


def _layer_tables(space: Space, facts: SpaceFacts) -> list[tuple[str, Sequence[Layer]]]:
    """Name and rows of each network whose layers differ (weights do not change them)."""
    from searchft.models import build_model
    from searchft.report.layers import layer_table

    tables: list[tuple[str, Sequence[Layer]]] = []
    for name, recipe in space.architectures().items():
        if name not in facts.backbones:
            continue
        backbone = facts.backbones[name]
        rows = layer_table(build_model(recipe, backbone, len(facts.data.classes), 0), backbone, space.data.image_size)
        if all(rows != known for _, known in tables):
            edits = f" ({len(recipe.own_edits())} edits)" if recipe.own_edits() else ""
            adapters = f" with {recipe.adapters}" if recipe.adapters != "none" else ""
            tables.append((f"{recipe.backbone}{edits}{adapters}", rows))
    return tables


def _stage_ends(rows: Sequence[Layer]) -> list[Layer]:
    """The last layer of each stage on the longest path, and what lies outside the stages."""
    ends: list[Layer] = []
    for row in rows:
        previous = next((i for i, end in enumerate(ends) if end.stage == row.stage), None) if row.stage else None
        if previous is None:
            ends.append(row)
        elif row.receptive_field >= ends[previous].receptive_field or math.isnan(row.receptive_field):
            ends[previous] = row
    return ends


def _print_head(space: Space, facts: SpaceFacts, distinct: int | None) -> None:
    from searchft.report.live import weights_warnings
    from searchft.report.words import weights_in_words

    emit(f"study     {space.name}: {space.search.trials} trials, sampler {space.search.sampler}, pruner {space.search.pruner}")
    sizes = ", ".join(f"{count} {split}" for split, count in _sizes(facts.data))
    emit(f"data      {facts.data.source}: {len(facts.data.classes)} classes, {sizes}, {space.data.image_size} px")
    emit(f"processor {facts.processor}")
    told: set[str] = set()
    for backbone in facts.backbones.values():
        lines = [f"backbone  {backbone.backbone}, {weights_in_words(backbone)}"]
        lines.append(
            f"          stages {', '.join(backbone.stage_names)}; head replaces {backbone.head} ({backbone.num_features} inputs)"
        )
        lines += [f"          note: {note}" for note in backbone.notes]
        if "\n".join(lines) not in told:
            told.add("\n".join(lines))
            for line in lines:
                emit(line)
    for _, text in weights_warnings(space, facts):
        emit(f"          {text}")
    shown = f"{distinct:,} that differ" if distinct is not None else "too many to tell how many differ (rows alone below)"
    emit(f"space     {space.size():,} combinations, {shown}; {len(space.enqueue)} enqueued")


def _print_groups(groups: list[Group]) -> None:
    """A row per group; a backbone that is everyone's stands above already."""
    from rich import box
    from rich.table import Table

    from searchft.report.formats import duration_text, size_text
    from searchft.report.plan import BATCHES

    one = len({group.trial.recipe.backbone for group in groups}) == 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("group", overflow="fold", min_width=13 if one else 22)
    for title in ("configs", "trained parameters", "frozen", *(f"memory@{b}" for b in BATCHES), "stored", "epoch"):
        table.add_column(title, justify="right")
    for group in groups:
        trained = f"{group.fewest:,}" if group.fewest == group.most else f"{group.fewest:,} to {group.most:,}"
        table.add_row(
            group.name.removeprefix(f"{group.trial.recipe.backbone}, ") if one else group.name,
            str(group.configurations),
            trained,
            f"{group.frozen:,}",
            *(size_text(group.activations[batch]) for batch in BATCHES),
            size_text(group.stored_bytes) if group.store_name else "–",
            duration_text(group.epoch_s) if group.epoch_s is not None else "–",
        )
    emit_renderable(table)
    emit("memory@n: what autograd keeps for one training step of n images in float32")
    emit("stored: the frozen part's values of all training and validation images; epoch: timed now, on this machine")


def _print_numerics(groups: list[Group]) -> None:
    """How each group is computed, and which values of its frozen part are kept."""
    from searchft.train.explain import sentence

    for group in groups:
        assert group.keeping is not None
        emit(f"computed  {sentence(group.name, group.trial.rule, group.keeping)}")


def _print_length(space: Space, groups: list[Group], distinct: int | None, *, timed: bool) -> None:
    from searchft.report.formats import duration_text, size_text
    from searchft.report.plan import stored_bytes, study_seconds

    emit(f"store     {size_text(stored_bytes(groups))} in all, shared by the groups that freeze the same part")
    seconds = study_seconds(space, groups, distinct)
    if seconds is None:
        why = f"the {BUDGET_S:.0f} s for timing were up before every group was timed" if timed else "nothing was timed"
        emit(f"length    not told: {why}")
    else:
        emit(
            f"length    about {duration_text(seconds)} without pruning, on one worker like this, from one step of "
            "each group as this machine is now"
        )


def _print_layers(rows: Sequence[Layer]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", overflow="fold")
    for title in ("stage", "kernel", "stride/padding", "output", "weights", "receptive field"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            row.name,
            row.stage,
            _times(row.kernel),
            f"{_times(row.stride)}/{_times(row.padding)}" if row.kernel else "",
            "×".join(map(str, row.output)),
            f"{row.weights:,}",
            _field_text(row.receptive_field),
        )
    emit_renderable(table)


def _times(pair: tuple[int, ...]) -> str:
    return str(pair[0]) if len(set(pair)) == 1 else "×".join(map(str, pair))


def _field_text(field: float) -> str:
    return "–" if math.isnan(field) else "all" if math.isinf(field) else f"{field:g}"


def _answer(
    space: Space,
    facts: SpaceFacts,
    groups: list[Group],
    distinct: int | None,
    tables: list[tuple[str, Sequence[Layer]]],
    remarks: list[str],
) -> dict[str, Any]:
    from searchft.report.plan import stored_bytes, study_seconds

    return {
        "study": space.name,
        "data": {"source": facts.data.source, "classes": len(facts.data.classes), "images": dict(_sizes(facts.data))},
        "backbones": [
            {
                "backbone": b.backbone,
                "weights": b.weights,
                "from": b.weights_source,
                "fell_back": b.fell_back,
                "stages": list(b.stage_names),
            }
            for b in facts.backbones.values()
        ],
        "configurations": distinct,
        "trials": space.search.trials,
        "openings": [
            {
                "opening": g.name,
                "configurations": g.configurations,
                "fewest": g.fewest,
                "most": g.most,
                "frozen": g.frozen,
                "activation_bytes": {str(batch): size for batch, size in g.activations.items()},
                "stored_bytes": g.stored_bytes,
                "not_stored": "" if g.store_name or g.keeping is None else g.keeping.reason,
                "kept": g.keeping and {"keep": g.keeping.keep, "reason": g.keeping.reason},
                "numerics": dataclasses.asdict(g.trial.numerics),
                "epoch_seconds": g.epoch_s,
            }
            for g in groups
        ],
        "stored_bytes": stored_bytes(groups),
        "seconds": study_seconds(space, groups, distinct),
        "layers": [{"network": name, "rows": [_layer_json(row) for row in rows]} for name, rows in tables],
        "notes": remarks,
    }


def _layer_json(row: Layer) -> dict[str, Any]:
    return {
        "layer": row.name,
        "stage": row.stage,
        "kind": row.kind,
        "kernel": list(row.kernel),
        "stride": list(row.stride),
        "padding": list(row.padding),
        "output": list(row.output),
        "weights": row.weights,
        "receptive_field": row.receptive_field if math.isfinite(row.receptive_field) else None,
    }


def _sizes(data: DataFacts) -> list[tuple[str, int]]:
    return [(split, data.size(split)) for split in ("train", "val", "test")]
