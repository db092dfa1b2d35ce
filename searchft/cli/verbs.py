"""The table of verbs: which file answers to which word, and the line that `searchft --help` shows for it.

The lines stand here, not in the files, so that the overview imports none of them (and so neither torch nor Optuna).
A verb is a file in this folder with a `click.Command` named `command`, listed once below.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """One command."""

    name: str
    module: str
    """The file in this folder, without `.py`."""
    line: str
    """What it does, in one line."""


VERBS: tuple[Verb, ...] = (
    Verb("init", "init", "Look at a folder of images and write a space for it."),
    Verb("run", "run", "Search a space for the best fine-tuning, or go on with a search."),
    Verb("plan", "plan", "Say what a run would do, and start nothing."),
    Verb("list", "list_studies", "List the studies of this folder."),
    Verb("show", "show", "Show a study: the best trial, and every other."),
    Verb("report", "report", "Write a study's report."),
    Verb("dashboard", "dashboard", "Look at a study in optuna-dashboard, also while it runs."),
    Verb("export", "export", "Write the best trial as a checkpoint that plain PyTorch loads."),
    Verb("rm", "remove", "Remove a study and its checkpoints."),
    Verb("predict", "predict", "Classify images with an exported checkpoint."),
    Verb("evaluate", "evaluate", "Score an exported checkpoint on labelled images."),
    Verb("compare", "compare", "Show how far two checkpoints' layers lie apart, or one's from its start."),
    Verb("models", "models", "List the backbones, or print the stages of one."),
    Verb("schema", "schema", "Print the JSON schema of a space, for editors."),
    Verb("cache", "cache", "Show what the shared stores hold, or clear them."),
)


def verb_named(name: str) -> Verb | None:
    """The verb of that name, or None."""
    return next((verb for verb in VERBS if verb.name == name), None)
