"""`searchft plan`: what a run would do. Looks at data and backbones as a run would, creates no study, starts no worker."""

from __future__ import annotations

from pathlib import Path

import click

from searchft.cli.output import emit, emit_json, emit_table, say
from searchft.cli.studies import PATH, code_option, examples, json_option, read_space, set_option

BUDGET_S = 30.0  # seconds after which no further group's epoch is timed


@click.command(
    "plan", epilog=examples("plan spaces/face_resnet18.yaml", "plan spaces/face_resnet18.yaml --set data.image_size=96 --json")
)
@click.argument("space_file", metavar="SPACE", type=PATH)
@set_option
@click.option("--no-timing", is_flag=True, help="Do not time a step of each group.")
@code_option
@json_option
def command(space_file: Path, overrides: tuple[str, ...], no_timing: bool, allow_code: bool, as_json: bool) -> None:
    """Say what a run of SPACE would do, and start nothing."""
    from searchft.space import notes

    space = read_space(space_file, overrides, allow_code)

    # torch from here on
    from searchft.execution.local import plan_slots
    from searchft.facts import describe
    from searchft.files import cache_folder
    from searchft.report import plan
    from searchft.report.words import weights_warnings

    say("looking at images and backbones")
    facts, _ = describe(space, cache_folder(), plan_slots("auto", 0)[0].device)
    groups, distinct = plan.groups_of(space, facts)
    if not no_timing:
        say("timing a step of each group")
    plan.measure(groups, space, facts, cache_folder() / "features", 0.0 if no_timing else BUDGET_S)
    remarks = [str(note) for note in notes(space, facts)]
    if as_json:
        emit_json(plan.plan_json(space, facts, groups, distinct, weights_warnings(space, facts) + remarks))
        return
    unknown = "nothing was timed" if no_timing else f"the {BUDGET_S:.0f} s for timing were up before every group was timed"
    emit("\n".join(plan.head_lines(space, facts, distinct)))
    emit_table(plan.COLUMNS, plan.group_rows(groups), right=plan.COLUMNS[1:], fold="group")
    emit("\n".join(plan.foot_lines(space, groups, distinct, unknown)))
    for remark in remarks:
        say(f"note: {remark}")
