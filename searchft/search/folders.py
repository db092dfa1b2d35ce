"""Which of its trials' files a study keeps: `trials/0007/last.ckpt` and `trials/0007/best.safetensors`."""

from __future__ import annotations

from pathlib import Path

from searchft.errors import StorageError
from searchft.faults import fault
from searchft.files import BEST_WEIGHTS, LAST_CHECKPOINT, remove_leftovers, trial_folder
from searchft.search.records import COMPLETE, Trials


def safe_trial_folder(study_folder: Path, number: int) -> Path:
    """As `trial_folder`. Raises StorageError where it is reached through a link: what lies behind is not the study's."""
    folder = trial_folder(study_folder, number)
    for path in (folder.parent, folder):
        if path.is_symlink():
            rule = f"{path} is a link: nothing is written or removed through it. Put a folder in its place."
            raise StorageError(rule, str(path))
    return folder


def weights_kept(trials: Trials, best_count: int) -> set[int]:
    """Numbers of the trials whose best weights stay on disk: the best ones, and the enqueued rows, which export scores too."""
    rows = [r for number in trials.rows.values() if (r := trials.numbered(number)) is not None]
    kept = {r.number for r in rows if r.state == COMPLETE and r.answered_from is None}
    return kept.union(trials.best_numbers(best_count))


def tidy_trial_folder(study_folder: Path, number: int, keep_weights: bool) -> None:
    """Removes from a finished trial's folder what neither a resume nor an export needs. Raises StorageError behind a link."""
    folder = safe_trial_folder(study_folder, number)
    if not folder.is_dir():
        return
    (folder / LAST_CHECKPOINT).unlink(missing_ok=True)
    remove_leftovers(folder)
    fault("driver.cleaning", f"{number}")
    if not keep_weights:
        (folder / BEST_WEIGHTS).unlink(missing_ok=True)
