"""What optuna-dashboard shows beside numbers: a note with each trial's recipe in words, one about the study, and figures.

Both are attributes of the study in optuna-dashboard's own format: any process can add them to finished trials while the
driver goes on. Notes that are there already, a person's perhaps, are left alone.
"""

from __future__ import annotations

import io
import json
import uuid
import warnings
from collections.abc import Iterable
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna_dashboard._note import note_ver_key, save_note_with_version
from optuna_dashboard.artifact._backend import DASHBOARD_ARTIFACTS_ATTR_PREFIX, list_trial_artifacts

from searchft.recipe import SpaceFacts
from searchft.report.formats import accuracy_text, duration_text, markdown_text
from searchft.report.words import ground_lines, recipe_in_words, varying_fields, weights_warnings
from searchft.search.records import TrialRecord
from searchft.space import Space

ARTIFACTS = "artifacts"  # folder within the study's

_NAMESPACE = uuid.UUID("5c1f3d0e-7c5e-4f0e-9a53-b8a3b7f6b0a1")


def study_note(space: Space, facts: SpaceFacts) -> str:
    lines = [f"# {markdown_text(space.name)}", "", *(f"**{markdown_text(text)}**\n" for text in weights_warnings(space, facts))]
    lines += [f"- {name.capitalize()}: {markdown_text(value)}" for name, value in ground_lines(space, facts)]
    return "\n".join([*lines, "", "The space:", "", *(f"    {line}" for line in space.text.splitlines())]) + "\n"


def trial_note(record: TrialRecord, space: Space, facts: SpaceFacts) -> str:
    words = recipe_in_words(record.recipe, facts, varying_fields(space))
    lines = [f"**{markdown_text(record.name)}**: {markdown_text(words)}" if record.name else markdown_text(words), ""]
    if record.answered_from is not None:
        return lines[0] + f"\n\nThe same work as trial {record.answered_from}, whose result stands here.\n"
    lines.append(f"- {record.state}, validation accuracy {accuracy_text(record.value)}, {len(record.curve)} epochs")
    if isinstance(record.extra.get("train_accuracy"), float):
        lines.append(f"- training accuracy {accuracy_text(record.extra['train_accuracy'])}")
    if record.extra.get("trained_parameters"):
        lines.append(f"- {record.extra['trained_parameters']:,} trained parameters, {duration_text(record.seconds)}")
    if record.reason:
        lines.append(f"- why: {markdown_text(record.reason)[:500]}")
    return "\n".join(lines) + "\n"


def write_notes(study: optuna.Study, space: Space, facts: SpaceFacts, records: Iterable[TrialRecord]) -> int:
    """Adds the study's note and those of finished trials, where there are none; returns how many were written."""
    storage, study_id = study._storage, study._study_id
    known = storage.get_study_system_attrs(study_id)
    missing: list[tuple[int | None, str]] = []
    if note_ver_key(None) not in known:
        missing.append((None, study_note(space, facts)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an experimental call of Optuna's
            study.set_metric_names(["validation accuracy"])  # instead of "Objective 0"
    trials = study.get_trials(deepcopy=False)
    for record in records:
        trial_id = trials[record.number]._trial_id
        if record.finished and note_ver_key(trial_id) not in known:
            missing.append((trial_id, trial_note(record, space, facts)))
    for trial_id_or_none, text in missing:
        save_note_with_version(storage, study_id, trial_id_or_none, 1, text)
    return len(missing)


def artifact_store(folder: Path) -> FileSystemArtifactStore:
    """The store of a study's artifacts; `folder` is the study's."""
    path = folder / ARTIFACTS
    path.mkdir(parents=True, exist_ok=True)
    return FileSystemArtifactStore(path)


def add_artifact(study: optuna.Study, number: int, name: str, content: bytes, folder: Path) -> None:
    """Attaches a PNG to a trial, also to one that has finished. Its id follows from its name: made twice, it is one."""
    trial_id = study.get_trials(deepcopy=False)[number]._trial_id
    artifact_id = str(uuid.uuid5(_NAMESPACE, f"{study.study_name}/{number}/{name}/"))
    artifact_store(folder).write(artifact_id, io.BytesIO(content))  # the file before what points to it
    meta = {"artifact_id": artifact_id, "filename": name, "mimetype": "image/png", "encoding": None}
    key = f"{DASHBOARD_ARTIFACTS_ATTR_PREFIX}{trial_id}:{artifact_id}"
    study._storage.set_study_system_attr(study._study_id, key, json.dumps(meta))


def attached(study: optuna.Study) -> dict[int, set[str]]:
    """Names of the artifacts by trial number."""
    attrs = study._storage.get_study_system_attrs(study._study_id)
    found = {}
    for trial in study.get_trials(deepcopy=False):
        own = study._storage.get_trial_system_attrs(trial._trial_id)
        found[trial.number] = {meta["filename"] for meta in list_trial_artifacts(attrs, own, trial)}
    return found
