"""The command line: a verb is a file in this folder with a click command named `command`, and its line in VERBS.

A verb's file imports torch and Optuna only inside its command's body. This file turns errors into messages and exit codes.

    0  done                                     3  no trial completed
    1  a bug of ours (the log is named)         4  storage, disk, or trial after trial failed
    2  the input is wrong, nothing was started  130  interrupted: running again goes on
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from searchft._version import __version__
from searchft.cli.output import ReaderLeft, emit_json_error, mask_passwords, say
from searchft.cli.signals import leave_undisturbed
from searchft.errors import SearchftError
from searchft.machine import collect_rarely, leave_quickly
from searchft.wording import near

VERBS = {
    "init": "Look at a folder of images and write a space for it.",
    "run": "Search a space for the best fine-tuning, or go on with a search.",
    "plan": "Say what a run would do, and start nothing.",
    "list": "List the studies of this folder.",
    "show": "Show a study: the best trial, and every other.",
    "report": "Write a study's report.",
    "dashboard": "Look at a study in optuna-dashboard, also while it runs.",
    "export": "Write the best trial as a checkpoint that plain PyTorch loads.",
    "rm": "Remove a study and its checkpoints.",
    "predict": "Classify images with an exported checkpoint.",
    "evaluate": "Score an exported checkpoint on labelled images.",
    "compare": "Show how far two checkpoints' layers lie apart, or one's from its start.",
    "models": "List the backbones, or print the stages of one.",
    "schema": "Print the JSON schema of a space, for editors.",
    "cache": "Show what the shared cache holds, or clear it.",
}
"""Every verb, with its line in `searchft --help`."""
FILES = {"list": "list_studies", "rm": "remove"}
"""Files that are not named after their verb."""


class VerbGroup(click.Group):
    """A click group that imports a verb's file only when the verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"searchft.cli.{FILES.get(cmd_name, cmd_name)}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in VERBS and not name.startswith("-"):
            meant = near(name, VERBS)
            hint = f"did you mean '{meant}'?" if meant else f"the verbs are {', '.join(VERBS)}."
            if not meant and name.endswith((".yaml", ".yml")):
                hint = f"did you mean 'searchft run {name}'?"
            raise click.UsageError(f"unknown verb '{name}', {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


EXAMPLE = """\b
Example:
  searchft run spaces/quickstart.yaml
  searchft show quickstart
  searchft export quickstart --out winner
  searchft predict winner image.jpg"""


@click.group(cls=VerbGroup, epilog=EXAMPLE, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="searchft", message="%(prog)s %(version)s")
def searchft() -> None:
    """Finds the fine-tuning of a pretrained image classifier that works best on your own images.

    `searchft VERB --help` explains a verb and ends with an example.
    """


_REFUSALS = {
    errno.EACCES: "choose another place, or change its permissions",
    errno.EPERM: "choose another place, or change its permissions",
    errno.EROFS: "choose another place",
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "free some space and run again",
    errno.ENAMETOOLONG: "choose a shorter name",
}
"""What the operating system may refuse on a path, and what to do; any other of its errors is a bug of ours."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and leaves the program with its exit code."""
    collect_rarely()
    code = call(sys.argv[1:] if arguments is None else arguments)
    leave_undisturbed(code)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    leave_quickly()
    sys.exit(code)


def call(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit code; prints every error itself, with passwords masked."""
    # Looked at before parsing: a wrong option is an error under --json too
    as_json = "--json" in itertools.takewhile(lambda argument: argument != "--", arguments)
    try:
        with searchft.make_context("searchft", list(arguments)) as context:
            searchft.invoke(context)
        return 0
    except click.exceptions.Exit as leaving:
        return int(leaving.exit_code)
    except ReaderLeft:
        with contextlib.suppress(OSError, ValueError):  # the interpreter's last flush must not complain about the closed pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, click.Abort):
        return _print_error(as_json, "interrupted", "interrupted", "", 130)
    except click.exceptions.NoArgsIsHelpError as error:  # `searchft` alone: the overview, and the code of wrong input
        say(error.format_message())
        return 2
    except click.ClickException as error:
        context_of = getattr(error, "ctx", None)
        where = context_of.command_path if context_of is not None else "searchft"
        hint = f"\nTry '{where} --help'." if context_of is not None and not as_json else ""
        return _print_error(as_json, "input", error.format_message() + hint, where, 2)
    except SearchftError as error:
        return _print_error(as_json, error.kind, str(error), error.where, error.exit_code)
    except OSError as error:
        rule = _REFUSALS.get(error.errno or 0)
        if rule is None or error.filename is None:
            return _print_bug(as_json, error)
        # a file under a temporary name means nothing to anybody: its folder does
        place = os.fsdecode(error.filename)
        where = os.path.dirname(place) or "." if place.endswith(".part") else place
        return _print_error(as_json, "storage", f"{where}: {(error.strerror or 'refused').lower()}: {rule}", where, 4)
    except Exception as error:
        return _print_bug(as_json, error)


def _print_error(as_json: bool, kind: str, message: str, where: str, code: int) -> int:
    message, where = mask_passwords(message), mask_passwords(where)
    if as_json:
        with contextlib.suppress(ReaderLeft):
            emit_json_error(kind, message, where)
    elif kind == "interrupted":
        say(message)
    else:
        for line in message.splitlines() or [kind]:
            say(line if line.startswith("Try '") else f"error: {line}")
    return code


def _print_bug(as_json: bool, error: BaseException) -> int:
    """One line for the person, the traceback for us in a log file."""
    import tempfile
    import time
    import traceback

    from searchft.files import cache_folder

    text, where = mask_passwords("".join(traceback.format_exception(error))), ""
    for folder in (cache_folder() / "logs", Path(tempfile.gettempdir())):
        log = folder / f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            log.write_text(f"searchft {__version__}\n{text}", encoding="utf-8")
            where = str(log)
            break
    message = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")
    if not as_json:
        message += f" (a bug of ours; {f'the traceback is in {where}' if where else 'no log could be written'})"
    return _print_error(as_json, "internal", message, where, 1)
