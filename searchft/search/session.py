"""From a space to a running search: its workers, its study opened or created, and the driver between them.

The input is checked whole before a folder, a database or a worker's task exists. A study counts as there once it is sealed, the last
step of its creation; what a kill left before that is made again under the same name.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from searchft.errors import ChangedGroundError, InputError, Problem, StorageError
from searchft.execution.local import LocalExecutor
from searchft.execution.protocol import Executor, WorkerSetup
from searchft.faults import fault
from searchft.files import cache_folder, network_file_system, remove_leftovers, store_budget_bytes, write_atomic
from searchft.recipe import KEY_VERSION, SpaceFacts, is_read_only
from searchft.search.claims import HOLDER_NAME, DriverLock
from searchft.search.databases import mask_url, sqlite_path
from searchft.search.driver import run_study
from searchft.search.events import Event
from searchft.search.ground import Ground, choose_ground, ground_changes, processor_changes
from searchft.search.ledger import DAMAGED, Ledger, environment
from searchft.search.records import TrialRecord
from searchft.space import Space, differences, notes


@dataclass(frozen=True)
class Placement:
    """Where the workers are to run."""

    devices: str = "auto"  # `auto`, `cpu`, or e.g. `cuda:0,cuda:1`.
    workers: int | None = None  # trials at once; None or 0: as many as there are devices
    workers_per_device: int = 1  # how many share a device, where `workers` is not given
    ray: str | None = None
    """`auto` (the Ray cluster of this machine, else one that is started here) or HOST:PORT; None: processes of this machine."""
    gpus_per_worker: float | None = None  # on Ray: GPUs, or a share of one, for each worker


def build_executor(placement: Placement, ground: Ground, say: Callable[[str], None]) -> Executor:
    """The workers, whose processes begin to import torch at once; `say` gets what people must know of a cluster.

    Raises InputError for devices or a cluster that are not there, and for a placement that says twice who places the workers.
    """
    if placement.ray is None:
        if placement.gpus_per_worker is not None:
            raise InputError("has a meaning only with --ray", "--gpus-per-worker")
        slots = ground.plan_slots(placement.devices, placement.workers or 0, placement.workers_per_device)
        return LocalExecutor(slots)
    if placement.devices != "auto" or placement.workers_per_device != 1:
        flag = "--devices" if placement.devices != "auto" else "--workers-per-device"
        raise InputError("must not stand beside --ray: Ray places the workers", flag)
    from searchft.execution.ray_executor import start_on_ray

    return start_on_ray(placement.ray, placement.workers or None, placement.gpus_per_worker, say)


@dataclass
class ReadyStudy:
    """A study that is open, pinned to its ground, and may be run."""

    space: Space
    facts: SpaceFacts
    images: Path  # folder of the decoded images
    ledger: Ledger
    folder: Path
    resumed: bool
    notes: tuple[str, ...]  # remarks for people: what the space holds that may not be meant, and how each opening is computed


@dataclass(frozen=True)
class Session:
    """A study that is open, with workers that know what they will train on."""

    study: ReadyStudy
    executor: Executor
    ground: Ground

    def events(self, stopping: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Runs the study to its budget, or until `stopping`; see `run_study`."""
        study = self.study
        memory_of = self.ground.memory_of(study.space.data.image_size)
        parts = study.space, study.facts, study.ledger, self.executor, study.folder
        return run_study(*parts, resumed=study.resumed, stopping=stopping, memory_of=memory_of)


@contextlib.contextmanager
def open_session(
    space: Space,
    studies: Path,
    placement: Placement,
    *,
    storage: str = "",
    fresh: bool = False,
    extend: bool = False,
    keep_values: bool = True,
    say: Callable[[str], None] = lambda text: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Iterator[Session]:
    """Opens or creates the study of `space` and starts its workers; on leaving, both are let go.

    `keep_values`: whether workers keep what frozen layers compute. `warn` gets what people must know of a cluster, however quiet
    the rest is. The others, and what is raised: see `build_executor` and `open_study`.
    """
    ground = choose_ground()
    executor = build_executor(placement, ground, warn)  # its processes import torch while we look at the data
    try:
        study = open_study(
            space, studies, storage=storage, fresh=fresh, extend=extend, say=say, ground=ground, device=executor.kind
        )
        with study.ledger:
            store = cache_folder() / "features"
            setup = WorkerSetup(
                facts=study.facts.to_json(),
                images=str(study.images),
                image_size=study.space.data.image_size,
                store=str(store) if keep_values else "",
                store_budget_bytes=store_budget_bytes(store),
            )
            executor.start(setup)
            yield Session(study, executor, ground)
    finally:
        executor.close()


def open_study(
    space: Space,
    studies: Path,
    *,
    storage: str = "",
    fresh: bool = False,
    extend: bool = False,
    say: Callable[[str], None] = lambda text: None,
    ground: Ground | None = None,
    device: str = "cpu",
) -> ReadyStudy:
    """Opens the study of `space` in the folder `studies` (or the database `storage`), creating it where it does not exist.

    Args:
        fresh: put an existing study aside (as `NAME.before-TIME`) and begin anew.
        extend: where choices were gained, fork to `NAME@2` with the finished trials copied, or go on with that fork.
        say: gets a line before what takes a while.
        device: what the workers train on: its processor decides the numerics of a new study.

    Raises InputError (nothing was created), ChangedGroundError where data, weights or space differ from what the study was created
    with, StorageError where the storage cannot be opened or another driver holds it.
    """
    ground = ground or choose_ground()
    if fresh:
        _put_aside(studies / space.name, storage, space.name)
    name = _latest_fork(space.name, studies, storage) if extend else space.name
    ledger = _open_existing(storage, name, studies / name)
    if ledger is None:
        say("looking at images and backbones")
        facts, images = ground.describe(space, cache_folder(), device)
        created = _create(space, facts, images, ground, studies, storage)
        if created is not None:
            return created
        ledger = _open_existing(storage, name, studies / name)  # another driver was quicker: go on with its study
        if ledger is None:
            gone = f"the study {name} disappeared while it was being opened: run again"
            raise StorageError(gone, storage and mask_url(storage))
    try:
        old_environment = ledger.environment()
        if is_read_only(old_environment):
            rule = (
                f"{name} was made by another version of searchft, which computes and counts configurations in another way: it can be "
                "shown, reported and exported, not gone on with. Run with --fresh to begin anew (the old one is kept aside), or give "
                "it a new name under study"
            )
            raise ChangedGroundError(Problem(space.where("study"), "study", rule))
        facts, images = ground.describe(space, cache_folder(), device)
        old_space, old_facts = ledger.space(), ledger.facts()
        remarks = [*map(str, notes(space, facts)), *processor_changes(old_facts, facts), *_storage_notes(ledger)]
        facts = replace(facts, processor=old_facts.processor)
        changes = differences(old_space, replace(space, name=name))
        refused = [str(c) for c in changes if c.kind == "other"]
        refused += ground_changes(old_facts, facts, _old_images(old_environment), images)
        if refused:
            rule = (
                f"study {space.name} was created with other values or data. Give the file another `study:` name, "
                "or run with --fresh to begin anew (the old study is kept aside)"
            )
            raise ChangedGroundError([Problem(space.source, "", text) for text in (*refused, rule)])
        gained = [str(c) for c in changes if c.kind == "gained"]
        if not gained:
            space = replace(space, name=name)
            with ledger.deciding():
                _pin(ledger, space, facts, images)
            _write_space(studies / name, space)
            return ReadyStudy(space, facts, images, ledger, studies / name, True, tuple(remarks))
        if not extend:
            rule = f"study {space.name} has no such choices: run with --extend to fork it, finished trials included"
            raise ChangedGroundError(Problem(space.source, "", text) for text in (*gained, rule))
        finished = [r for r in ledger.records() if r.finished and r.answered_from is None]
    except BaseException:
        ledger.close()
        raise
    ledger.close()
    forked = replace(space, name=_next_name(name))
    created = _create(forked, facts, images, ground, studies, storage, name, finished)
    if created is None:
        raise StorageError(f"{forked.name} was created by another driver just now: run again with --extend", forked.name)
    return created


def _create(
    space: Space,
    facts: SpaceFacts,
    images: Path,
    ground: Ground,
    studies: Path,
    storage: str,
    source: str = "",
    finished: Sequence[TrialRecord] = (),
) -> ReadyStudy | None:
    """A new study; a fork gets the `finished` trials of its `source`. None: another driver has created it meanwhile."""
    remarks = [*map(str, notes(space, facts)), *ground.explain(space, facts)]
    folder = studies / space.name
    ledger = Ledger.open(storage, space.name, folder, create=True)
    try:
        fault("study.created")
        with ledger.deciding():
            if ledger.shared and ledger.pinned:
                ledger.close()
                return None
            _remove_leftovers(ledger, folder)
            _pin(ledger, space, facts, images)
            fault("study.pinned")
            _write_space(folder, space)
            adopted = {r.extra["adopted_from"]["number"] for r in ledger.records() if "adopted_from" in r.extra}
            for record in finished:
                if record.number not in adopted:
                    ledger.adopt(record, ledger.next_number(), record.params, source)
            ledger.seal()
    except BaseException:
        ledger.close()
        raise
    if source:
        remarks.append(f"forked {source} to {space.name} with its {len(finished)} finished trials")
    return ReadyStudy(space, facts, images, ledger, folder, False, (*remarks, *_storage_notes(ledger)))


def _storage_notes(ledger: Ledger) -> list[str]:
    """What people should know of the study's database."""
    found = [f"trial {r.number} is {r.reason}; it is left out" for r in ledger.records() if r.reason.startswith(DAMAGED)]
    file = sqlite_path(ledger.database_url)
    kind = file is not None and network_file_system(file.parent)
    if kind:
        slow = "SQLite writes slowly there, --storage names a server instead"
        found.append(f"{file} lies on a network file system ({kind}): {slow}")
    return found


def _pin(ledger: Ledger, space: Space, facts: SpaceFacts, images: Path) -> None:
    place = str(images.relative_to(cache_folder())) if images.is_relative_to(cache_folder()) else ""
    ledger.pin(space, facts, environment() | {"key_version": KEY_VERSION, "images": place}, seal=False)


def _old_images(old_environment: dict[str, Any]) -> Path | None:
    """Where the images of then lay, if that is a place in the cache."""
    place = Path(str(old_environment.get("images", "")))
    return cache_folder() / place if place.parts and not place.is_absolute() and ".." not in place.parts else None


def _write_space(folder: Path, space: Space) -> None:
    """Keeps the file as it was read, for people."""
    path, text = folder / "space.yaml", space.text.encode()
    if not path.is_file() or path.read_bytes() != text:
        write_atomic(path, text)


def _open_existing(storage: str, name: str, folder: Path) -> Ledger | None:
    """The study if it is there and was created to the end. Raises StorageError where another driver holds it."""
    try:
        ledger = Ledger.open(storage, name, folder, create=False)
    except InputError:
        return None
    try:
        if ledger.pinned:
            _remove_leftovers(ledger, folder)
            return ledger
    except BaseException:
        ledger.close()
        raise
    ledger.close()
    return None


def _remove_leftovers(ledger: Ledger, folder: Path) -> None:
    if not ledger.shared:  # what looks left may be another driver's, which is writing it
        remove_leftovers(folder)


def _put_aside(folder: Path, storage: str, name: str) -> None:
    if storage:
        raise InputError("--fresh needs a SQLite study: with --storage, give the file another `study:` name", "--fresh")
    if not folder.exists():
        return
    aside = first = folder.with_name(f"{name}.before-{time.strftime('%Y%m%d-%H%M%S')}")
    count = 1
    while aside.exists():
        count += 1
        aside = first.with_name(f"{first.name}_{count}")
    lock = DriverLock(folder)  # another driver's study is not put aside under its feet, nor one that begins just now
    lock.acquire()
    try:
        folder.rename(aside)
    except OSError as error:
        raise StorageError(f"cannot put {folder} aside: {error.strerror}", str(folder)) from error
    finally:
        lock.release()
        (aside / HOLDER_NAME).unlink(missing_ok=True)


def _latest_fork(name: str, studies: Path, storage: str) -> str:
    """The last of NAME, NAME@2, NAME@3, … that was created to its end; NAME itself where there is none."""
    while (found := _open_existing(storage, _next_name(name), studies / _next_name(name))) is not None:
        found.close()
        name = _next_name(name)
    return name


def _next_name(name: str) -> str:
    base, _, count = name.partition("@")
    return f"{base}@{int(count) + 1 if count.isdigit() else 2}"
