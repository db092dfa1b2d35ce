"""Curves and hparams where TensorBoard's users expect them: read back by TensorBoard itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from searchft.report.tensorboard import TensorBoardView
from searchft.search.events import EpochFinished, StudyFinished, TrialFinished
from searchft.search.records import TrialRecord

pytest.importorskip("tensorboard")


@pytest.mark.slow
def test_each_trial_has_its_curves_and_hparams(tmp_path: Path, make_record: Callable[..., TrialRecord]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    view = TensorBoardView(tmp_path)
    for number in (0, 1):
        for epoch in (1, 2, 3):
            view.show(EpochFinished(number, 0, epoch, 3, 1.0 / epoch, 0.5, 0.1 * epoch + number / 100, 2.0))
        record = make_record(number, value=0.3 + number / 100, curve=[0.1, 0.2, 0.3], seconds=6.0)
        view.show(TrialFinished(dataclasses.replace(record, params={"unfrozen": "layer4", "lr": 1e-3, "head_widths": None})))
    answered = make_record(2, value=0.3, answered_from=0)
    view.show(TrialFinished(answered))
    view.show(StudyFinished((), "trials"))
    assert sorted(p.name for p in (tmp_path / "tensorboard").iterdir()) == ["trial-0000", "trial-0001"]
    read = EventAccumulator(str(tmp_path / "tensorboard" / "trial-0001"))
    read.Reload()
    curve = [(e.step, round(e.value, 4)) for e in read.Scalars("accuracy/validation")]
    assert curve == [(1, 0.11), (2, 0.21), (3, 0.31)]
    assert {"accuracy/training", "loss/training", "seconds/epoch", "hparam/validation_accuracy"} <= set(read.Tags()["scalars"])
    assert "_hparams_/session_start_info" in read.PluginTagToContent("hparams")
