"""Notes and artifacts for optuna-dashboard: there for every finished trial, made once, and nobody's own note is touched."""

from __future__ import annotations

import optuna
import pytest
from optuna_dashboard import get_note
from optuna_dashboard._note import save_note_with_version

from searchft.cli.annotate import CONFUSION, CURVE, MISTAKES, Annotator
from searchft.cli.studies import FoundStudy
from searchft.report.notes import attached

pytestmark = pytest.mark.slow


def note_of(study: optuna.Study, number: int) -> str:
    return str(get_note(optuna.trial.Trial(study, study.trials[number]._trial_id)))


def test_every_finished_trial_gets_a_note_and_its_figures_once(study_copy, searchft) -> None:
    before = searchft("show", "faces", "--studies", study_copy.studies, "--json").json
    study = optuna.load_study(study_name="faces", storage=f"sqlite:///{study_copy.folder / 'study.db'}")
    save_note_with_version(study._storage, study._study_id, study.trials[0]._trial_id, 1, "my own note")
    annotator = Annotator(FoundStudy("faces", study_copy.folder, ""))
    assert annotator.step() > 0

    assert "orl_faces, 40 classes" in get_note(study) and "unfrozen: [head, layer4]" in get_note(study)
    assert note_of(study, 0) == "my own note"
    assert note_of(study, 1).startswith("last stage open, head 256 with dropout 0.5, batch 16, lr 1e-3")
    assert "below the median" in note_of(study, 2)
    assert "The same work as trial 1" in note_of(study, 3)
    assert "training loss became nan" in note_of(study, 4)
    assert note_of(study, 5) == "", "it is still running"

    found = attached(study)
    assert found[1] == {CURVE, CONFUSION, MISTAKES} and found[0] == {CURVE, CONFUSION, MISTAKES}
    assert found[2] == {CURVE}, "its weights are not kept"
    assert not found[3] and not found[4] and not found[5]
    files = sorted((study_copy.folder / "artifacts").iterdir())
    assert len(files) == 7 and all(f.read_bytes().startswith(b"\x89PNG") for f in files)

    assert annotator.step() == 0, "nothing is made twice"
    assert Annotator(FoundStudy("faces", study_copy.folder, "")).step() == 0
    assert searchft("show", "faces", "--studies", study_copy.studies, "--json").json == before, "the study reads as before"
