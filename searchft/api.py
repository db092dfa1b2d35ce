"""searchft from Python: what `import searchft` offers. The same parts as the command line, without a terminal.

Torch and Optuna are imported on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchft.errors import InputError
from searchft.space import Space, load_space

if TYPE_CHECKING:
    import optuna
    from torch import nn

    from searchft.recipe import SpaceFacts
    from searchft.search.events import Event, StopReason
    from searchft.search.records import TrialRecord
    from searchft.train.results import EpochResult

__all__ = ["FinishedStudy", "fit", "load_model", "load_space", "predict", "run"]


@dataclass(frozen=True)
class FinishedStudy:
    """What `run` returns."""

    space: Space
    facts: SpaceFacts
    folder: Path
    storage: str
    """SQLAlchemy URL of its database, password masked."""
    records: tuple[TrialRecord, ...]
    """Every trial, by number."""
    why: StopReason
    database_url: str = field(default="", repr=False)
    """As `storage`, password and all: never to be shown. Empty: SQLite in the folder."""

    @property
    def best(self) -> TrialRecord | None:
        """The best complete trial; None where none completed."""
        from searchft.search.records import best

        return best(self.records)

    def optuna_study(self) -> optuna.Study:
        """The study as Optuna's own object, to read: plots, importances, trials as a data frame."""
        import optuna

        from searchft.search.storage import open_storage

        return optuna.load_study(study_name=self.space.name, storage=open_storage(self.database_url, self.folder, create=False))

    def export(self, out: Path | str, trial: int | None = None) -> Path:
        """Writes the best trial (or another) as a folder that plain PyTorch loads, and returns it. Raises InputError where its
        weights are not kept. Does not look at the test images; `searchft export` does."""
        from searchft.export.checkpoint import check_target, export_trial
        from searchft.files import BEST_WEIGHTS, trial_folder

        record = self.best if trial is None else next((r for r in self.records if r.number == trial), None)
        if record is None:
            raise InputError("no such trial has completed", str(self.folder))
        out = Path(out)
        check_target(out)
        about = {"study": self.space.name, "trial": record.number}
        metrics, epoch = {"search_val_accuracy": record.value}, record.extra.get("best_epoch")
        delta = trial_folder(self.folder, record.number) / BEST_WEIGHTS
        return export_trial(record.recipe, self.facts, self.space.data, delta, out, metrics, about, epoch=epoch)


def run(
    space: Space | Path | str,
    *,
    studies: Path | str = "studies",
    storage: str = "",
    workers: int = 0,
    devices: str = "auto",
    workers_per_device: int = 1,
    ray: str | None = None,
    gpus_per_worker: float | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> FinishedStudy:
    """Searches a space, or goes on with a search, and returns the study when its budget is spent.

    In a script, call it below `if __name__ == "__main__":`, because workers are processes that import the script; in a
    notebook just call it. Interrupted, it loses nothing: the same call goes on.

    Args:
        space: a Space, or the path of a YAML file.
        studies: folder that holds the studies' folders.
        storage: SQLAlchemy URL; empty: SQLite in the study's folder.
        workers: trials at once; 0: one per device.
        devices: `auto`, `cpu`, or e.g. `cuda:0,cuda:1`.
        workers_per_device: small trials may share a device; one waits if its memory would not suffice.
        ray: workers on a Ray cluster: `auto` (the one of this machine, else one that is started here) or HOST:PORT.
        gpus_per_worker: with `ray`: GPUs, or a share of one such as 0.5, for each worker.
        on_event: gets what happens (searchft.search.events), e.g. `print`, or the `show` of a view.

    Raises InputError where anything in the space or the placement is wrong, StorageError where the storage or the disk fails.
    """
    from searchft.search.events import Note, StudyFinished
    from searchft.search.session import Placement, open_session

    if not isinstance(space, Space):
        space = load_space(space)
    show = on_event or (lambda event: None)
    finished: StudyFinished | None = None
    with open_session(
        space,
        Path(studies),
        Placement(devices, workers, workers_per_device, ray, gpus_per_worker),
        storage=storage,
        say=lambda text: show(Note(text)),
        warn=lambda text: show(Note(text, warning=True)),
    ) as session:
        study = session.study
        for note in study.notes:
            show(Note(note))
        for event in session.events():
            show(event)
            finished = event if isinstance(event, StudyFinished) else finished
        url, masked = study.ledger.database_url, study.ledger.url
    assert finished is not None
    return FinishedStudy(study.space, study.facts, study.folder, masked, finished.records, finished.why, url)


def fit(
    space: Space | Path | str,
    chosen: Mapping[str, Any] | None = None,
    *,
    row: str = "",
    folder: Path | str | None = None,
    device: str = "cpu",
) -> Iterator[EpochResult]:
    """Trains one configuration of a space in this process and yields an EpochResult after each epoch.

    Numbers and key are those of the study's trial of the same recipe, on one worker of this machine; meanwhile torch's number
    of threads is that worker's.

    Args:
        chosen: a choice per dimension, e.g. `{"unfrozen": "layer4", "lr": 1e-3}`; those not given have their first choice.
        row: the name of an enqueued row instead.
        folder: where checkpoint and best weights go; epochs that it holds are yielded first. None: nothing is kept.
        device: a torch device name.

    Raises InputError where the space, a name or a choice is wrong.
    """
    import torch

    from searchft.data.images import reopen_images
    from searchft.features.store import FeatureStore
    from searchft.files import cache_folder, store_budget_bytes
    from searchft.recipe import resolve
    from searchft.search.ground import choose_ground
    from searchft.train.checkpoints import TrialFolder
    from searchft.train.fit import fit as train
    from searchft.train.inputs import TrainingData

    if not isinstance(space, Space):
        space = load_space(space)
    if row:
        rows = {r.name: r.chosen for r in space.enqueue}
        if row not in rows:
            raise InputError(f"must be an enqueued row ({', '.join(rows) or 'there is none'}) but got {row!r}", space.source)
        chosen = rows[row]
    try:
        recipe = space.resolve(chosen or {})
    except (KeyError, ValueError) as error:
        known = ", ".join(space.by_name)
        raise InputError(f"{error.args[0]} (dimensions: {known})", space.source) from error
    ground = choose_ground()
    facts, images = ground.describe(space, cache_folder(), device)
    trial, store = resolve(recipe, facts), cache_folder() / "features"
    data = TrainingData(
        images=reopen_images(images),
        image_size=space.data.image_size,
        store=FeatureStore(store, store_budget_bytes(store)),
        device=torch.device(device),
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(ground.plan_slots(device, 1, 1)[0].threads)
    try:
        yield from train(trial, data, TrialFolder(Path(folder), trial.key) if folder is not None else None)
    finally:
        torch.set_num_threads(threads)


def load_model(folder: Path | str) -> tuple[nn.Module, dict[str, Any]]:
    """An exported folder as a torch module (eval mode, float32, CPU) that takes [N, 3, H, W] and gives logits [N, C], and its
    config.json: classes, preprocessing, recipe, metrics. Raises InputError where the folder is no complete export."""
    from searchft.export.load import load_exported

    return load_exported(Path(folder))


def predict(folder: Path | str, images: Sequence[Path | str] | Path | str, top_k: int = 5) -> list[dict[str, Any]]:
    """Classifies image files with an exported folder. An entry per file: `image`, and `classes` (the best first, each
    {"class", "probability"}) or `error`. Raises InputError where the folder is no complete export."""
    from searchft.export.score import predict_files

    paths = [images] if isinstance(images, Path | str) else images
    return predict_files(Path(folder), [Path(path) for path in paths], top_k)
