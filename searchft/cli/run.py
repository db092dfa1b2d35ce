"""`searchft run`: from a space file to a finished study. The path down: here → search.session → search.driver → worker → fit."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchft.cli.output import ReaderLeft, emit_json, emit_renderable, say
from searchft.cli.signals import Stopping, listening
from searchft.cli.studies import (
    PATH,
    check_writable,
    code_option,
    examples,
    json_option,
    read_space,
    set_option,
    storage_option,
    studies_option,
)
from searchft.errors import Interrupted, NothingCompletedError, SearchftError, WorkersFailedError
from searchft.search.databases import mask_url

if TYPE_CHECKING:
    from searchft.search.session import Session

EXAMPLES = examples(
    "run spaces/face_resnet18.yaml",
    "run spaces/quickstart.yaml --set recipe.epochs=5 --set search.trials=10",
    "run pets.yaml --workers 2 --storage postgresql://me@localhost/searchft",
)
PER_DEVICE_HELP = "Small trials may share a device; one waits if its memory would not suffice."
RAY_HELP = "Workers on a Ray cluster: the one that runs here or at this address; else Ray is started on this machine."
GPUS_HELP = "With --ray: GPUs, or a share of one such as 0.5, for each worker."


@click.command("run", epilog=EXAMPLES)
@click.argument("space_file", metavar="SPACE", type=PATH)
@set_option
@studies_option
@storage_option
@click.option("--devices", metavar="LIST", default="auto", help="auto, cpu, or e.g. cuda:0,cuda:1.")
@click.option("--workers", metavar="N", type=click.IntRange(min=1), help="Trials at once; default one per device.")
@click.option("--workers-per-device", metavar="N", type=click.IntRange(min=1), default=1, help=PER_DEVICE_HELP)
@click.option("--ray", metavar="[HOST:PORT]", is_flag=False, flag_value="auto", help=RAY_HELP)
@click.option("--gpus-per-worker", metavar="SHARE", type=click.FloatRange(min=0), help=GPUS_HELP)
@click.option("--fresh", is_flag=True, help="Begin anew; an existing study of that name is put aside.")
@click.option("--extend", is_flag=True, help="Where the space gained choices: fork the study with its trials.")
@code_option
@click.option("--no-store", is_flag=True, help="Compute the frozen part for every batch instead of once.")
@click.option("--tensorboard", is_flag=True, help="Also write curves and hparams to the study's tensorboard/ folder.")
@click.option("--quiet", is_flag=True, help="Only warnings and the result.")
@json_option
def command(
    space_file: Path,
    overrides: tuple[str, ...],
    studies: Path,
    storage: str,
    fresh: bool,
    extend: bool,
    allow_code: bool,
    no_store: bool,
    tensorboard: bool,
    quiet: bool,
    as_json: bool,
    **placement: Any,
) -> None:
    """Search SPACE for the best fine-tuning, or go on with a search.

    SPACE is a YAML file, or a folder of images (then its space is written first, as `searchft init` does). The study's name
    is in it; running it again resumes where it stopped. Ctrl-C stops after the last finished epoch; a second one stops at
    once. Nothing is started while anything in the file is wrong.
    """
    # Workers never open the storage: its URL, which may hold a password, is not handed down to them.
    os.environ.pop("SEARCHFT_STORAGE", None)
    if _is_typed("storage") and mask_url(storage) != storage:
        say("warning: every user of this machine can read the password in --storage (ps): set SEARCHFT_STORAGE instead")
    with listening() as stopping:
        check_writable(studies)
        if space_file.is_dir():  # of images: look at it and write its space first
            from searchft.cli.init import space_of_folder

            space_file = space_of_folder(space_file)
        space = read_space(space_file, overrides, allow_code)

        from searchft.search.session import Placement, open_session

        with open_session(
            space,
            studies,
            Placement(**placement),
            storage=storage,
            fresh=fresh,
            extend=extend,
            keep_values=not no_store,
            say=(lambda text: None) if quiet else say,
            warn=say,
        ) as session:
            study = session.study
            summary, trouble = _search(session, stopping, quiet, as_json, _again(space_file), tensorboard)
    if as_json:
        # exactly one object, whatever came of it
        error = {"error": {"kind": trouble.kind, "message": str(trouble), "where": trouble.where}} if trouble else {}
        try:
            emit_json({**summary, **error})
        finally:
            if trouble:
                raise click.exceptions.Exit(trouble.exit_code)
    elif trouble:
        raise trouble
    elif not quiet:
        name = study.space.name if str(studies) == "studies" and not storage else shlex.quote(str(study.folder))
        say(f"next: searchft export {name} --out winner   |   searchft dashboard {name}")


def _search(
    session: Session, stopping: Stopping, quiet: bool, as_json: bool, again: str, tensorboard: bool
) -> tuple[dict[str, Any], SearchftError | None]:
    """Runs the study and draws it; returns its summary, and what to leave with where that is not success."""
    from searchft.report.leaderboard import leaderboard, summary_json
    from searchft.report.live import choose_view
    from searchft.search.events import Note, StopReason, StudyFinished
    from searchft.search.records import best

    study = session.study
    views = [choose_view(quiet)]
    if tensorboard:
        from searchft.report.tensorboard import TensorBoardView

        views.append(TensorBoardView(study.folder))
    finished: StudyFinished | None = None
    stopping.searching = True
    try:
        for note in study.notes:
            views[0].show(Note(note))
        for event in session.events(stopping):
            for view in views:
                view.show(event)
            if isinstance(event, StudyFinished):
                finished = event
    finally:
        for view in views:
            view.close()
    assert finished is not None
    records, name = list(finished.records), study.space.name
    with contextlib.suppress(Exception):  # notes, for whoever opens the study with plain optuna-dashboard: no reason to fail
        from searchft.report.notes import write_notes

        write_notes(study.ledger.optuna_study, study.space, study.facts, records)
    if not as_json and records:
        with contextlib.suppress(ReaderLeft):  # how the search ended matters more than who saw it
            emit_renderable(leaderboard(study.space, study.facts, records))
    trouble: SearchftError | None = None
    if finished.why is StopReason.INTERRUPTED:
        trouble = Interrupted(f"stopped; nothing is lost. To go on: {again}")
    elif finished.why is StopReason.FAILURES:
        failed = "trial after trial failed, each in two processes, for the reason above; the rest of the budget is unspent"
        trouble = WorkersFailedError(f"{failed}. Mend the machine, or the space, and go on: {again}")
    elif best(records) is None:
        trouble = NothingCompletedError(f"no trial of {name} completed: `searchft show {name}` says why")
    return summary_json(study.space, records, study.ledger.url), trouble


def _again(space_file: Path) -> str:
    """The command that goes on with this run: as it was given, without what begins anew or holds a password."""

    words = ["searchft", "run", str(space_file)]
    context = click.get_current_context()
    for parameter in context.command.params:
        name, flag = parameter.name or "", max(parameter.opts, key=len)
        if name in ("space_file", "fresh") or not _is_typed(name):
            continue
        value = mask_url(str(context.params[name])) if name == "storage" else context.params[name]
        for one in value if isinstance(value, tuple) else (value,):
            words += [flag] if isinstance(one, bool) else [flag, str(one)]
    return shlex.join(words)


def _is_typed(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
