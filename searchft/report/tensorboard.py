"""Curves and hparams for TensorBoard, one run per trial: `tensorboard --logdir studies/NAME/tensorboard`.

The driver's process writes them from its events. A trial that goes on after a kill writes its epochs again under the same
steps, which TensorBoard shows as one curve.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from searchft.errors import InputError
from searchft.search.events import EpochFinished, Event, StudyFinished, TrialFinished

FOLDER = "tensorboard"  # within the study's


class TensorBoardView:
    """Takes a study's events as a view does."""

    def __init__(self, folder: Path) -> None:
        """`folder`: the study's. Raises InputError where TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError("needs TensorBoard: pip install 'searchft[tensorboard]'", "--tensorboard") from error
        self._make = SummaryWriter
        self.folder = folder / FOLDER
        self._writers: dict[int, Any] = {}

    def show(self, event: Event) -> None:
        if isinstance(event, EpochFinished):
            writer = self._writer(event.number)
            writer.add_scalar("accuracy/validation", event.val_accuracy, event.epoch)
            writer.add_scalar("accuracy/training", event.train_accuracy, event.epoch)
            writer.add_scalar("loss/training", event.train_loss, event.epoch)
            writer.add_scalar("seconds/epoch", event.seconds, event.epoch)
        elif isinstance(event, TrialFinished) and event.record.answered_from is None:
            record, writer = event.record, self._writer(event.record.number)
            values = {name: label if isinstance(label, int | float) else str(label) for name, label in record.params.items()}
            if values and record.value is not None:
                metrics = {"hparam/validation_accuracy": record.value, "hparam/seconds": record.seconds}
                writer.add_hparams({**values, "state": record.state}, metrics, run_name=".")
            self._writers.pop(record.number).close()
        elif isinstance(event, StudyFinished):
            self.close()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, number: int) -> Any:
        if number not in self._writers:
            self._writers[number] = self._make(log_dir=str(self.folder / f"trial-{number:04d}"))
        return self._writers[number]
