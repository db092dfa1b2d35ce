"""A study in its database, but for its trials: opened by its driver or a reader, pinned to its ground, waited for.

Its user attributes: `space`, `facts` and `environment` point to their texts, which are written before, with a checksum; `pinned` says
that it was created to its end; `test_accuracy.0007` is a test score, which `export` writes after the fact.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import optuna

from searchft.errors import InputError, StorageError
from searchft.faults import fault
from searchft.machine import processor_name
from searchft.recipe import SpaceFacts
from searchft.search.claims import Claims, FolderClaims, PostgresClaims
from searchft.search.databases import default_url, mask_url, sqlite_path
from searchft.search.storage import ServerAwayError, WriteChecks, check_database, open_storage, storage_errors, study_exists

if TYPE_CHECKING:
    from searchft.space import Space

OUTAGE_PATIENCE_S = 180.0  # how long a database server may be away in mid-study
FIRST_WAIT_S = 0.25
"""How long to wait before a server that was away is asked again; then twice as long each time, up to five seconds."""
STRANGER = "Another program writes to this study: stop it and run again."

_VERSIONS_OF = ("searchft", "torch", "torchvision", "timm", "optuna", "numpy", "pillow")
_TEST_SCORE = "test_accuracy."

T = TypeVar("T")


def environment() -> dict[str, Any]:
    """What a study was made with. Imports none of the packages it names."""
    versions = {"python": platform.python_version()}
    for package in _VERSIONS_OF:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    machine = {"host": socket.gethostname(), "os": platform.platform(), "cpu": processor_name(), "cpus": os.cpu_count()}
    return {"versions": versions, **machine}


class StoredStudy:
    """One study's database. Open it with `open`, close it (or leave its `with` block) to let another driver in."""

    def __init__(self, study: optuna.Study, url: str, claims: Claims) -> None:
        self.optuna_study = study
        """Optuna's own object, for what stands beside the trials (notes, artifacts); its storage has our errors."""
        self.database_url = url  # its database, password and all: never to be shown
        self._storage: Any = study._storage
        self._claims = claims
        self._checks = WriteChecks(self._storage)
        self._patience_s = OUTAGE_PATIENCE_S if sqlite_path(url) is None else 0.0
        self._space: Space | None = None

    @classmethod
    def open(cls, url: str, name: str, folder: Path, *, create: bool, exclusive: bool = True) -> Self:
        """The study `name` in the database `url` (empty: SQLite in `folder`), made with `create` where it is missing.

        `exclusive` is for a driver; a reader (`show`, `report`) must not write. Raises StorageError if another driver runs it
        (which on PostgreSQL it may) or the database fails, InputError if the study does not exist.
        """
        folder = Path(folder)
        url = url or default_url(folder)
        missing = InputError(f"there is no study {name!r} in {mask_url(url)}", mask_url(url))
        if not create and not study_exists(url, name):  # before a lock makes the folder
            raise missing
        file = sqlite_path(url)
        claims = Claims()
        try:
            with storage_errors(url):
                if exclusive and file is not None:
                    claims = FolderClaims(folder, file, name)
                    check_database(url)
                storage = open_storage(url, folder, create=create)
                if exclusive and file is None:
                    claims = PostgresClaims(url, name)
                # Our own sampler is elsewhere; Optuna's default would be consulted whenever a Trial object is made.
                sampler = optuna.samplers.RandomSampler(seed=0)
                with claims.deciding() if create else contextlib.nullcontext():  # two that create it at once would both fail
                    try:
                        study = optuna.load_study(study_name=name, storage=storage, sampler=sampler)
                    except KeyError:
                        if not create:
                            raise missing from None
                        study = optuna.create_study(study_name=name, storage=storage, sampler=sampler, direction="maximize")
                return cls(study, url, claims)
        except BaseException:
            claims.release()
            raise

    def close(self) -> None:
        """Lets go of database and locks; again: nothing."""
        self._storage.remove_session()
        self._storage._backend.engine.dispose()
        self._claims.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        return self.optuna_study.study_name

    @property
    def url(self) -> str:
        """Where it is stored, password masked."""
        return mask_url(self.database_url)

    def delete(self) -> None:
        """Deletes the study with all its trials from its database."""
        self._do(lambda: optuna.delete_study(study_name=self.name, storage=self._storage))

    @property
    def shared(self) -> bool:
        """Whether other drivers may run trials of this study at the same time."""
        return self._claims.shared

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """Within, what `records` says stays true until a trial has been added: no other driver adds one."""
        waiting = contextlib.ExitStack()
        self._do(lambda: waiting.enter_context(self._claims.deciding()))
        with waiting:
            yield

    def keep_claims(self) -> None:
        """Takes locks again that a broken connection has lost; else others take the trials over."""
        with contextlib.suppress(Exception):  # the server is away: the next write waits for it
            self._claims.ensure()

    @property
    def pinned(self) -> bool:
        """Whether it was created to its end."""
        return bool(self._attributes().get("pinned"))

    def seal(self) -> None:
        """Marks the study as created to its end."""
        if not self.pinned:
            self._set_attribute("pinned", True)

    def pin(self, space: Space, facts: SpaceFacts, environment: Mapping[str, Any], *, seal: bool = True) -> None:
        """Stores what the study is about, in place of what was stored before. It counts as created once it is sealed."""
        values = {"facts": facts.to_json(), "environment": dict(environment), "space": space.to_json()}
        attributes = self._attributes()
        for name, value in values.items():
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            if attributes.get(name, {}).get("sha256") == sha256:
                continue
            self._set_attribute(f"{name}.{sha256[:12]}.0", text)
            fault("study.pinning", name)
            self._set_attribute(name, {"sha256": sha256, "pieces": 1})  # older studies have several
        if seal:
            self.seal()
        self._space = space

    def space(self) -> Space:
        """The pinned space. Raises StorageError if it is missing or damaged."""
        if self._space is None:
            from searchft.space import Space

            self._space = Space.from_json(self._pinned_value("space"))
        return self._space

    def facts(self) -> SpaceFacts:
        """The pinned facts. Raises StorageError if they are missing or damaged."""
        return SpaceFacts.from_json(self._pinned_value("facts"))

    def environment(self) -> dict[str, Any]:
        """The pinned environment (see `environment`). Raises StorageError if it is missing or damaged."""
        return dict(self._pinned_value("environment"))

    def _pinned_value(self, name: str) -> Any:
        attributes = self._attributes()
        pointer = attributes.get(name)
        if pointer is None:
            rule = f"{self.url}: the study {self.name!r} holds no {name}: its creation was cut short. Start it afresh."
            raise StorageError(rule, self.url)
        text = "".join(attributes.get(f"{name}.{pointer['sha256'][:12]}.{i}", "") for i in range(pointer["pieces"]))
        if hashlib.sha256(text.encode()).hexdigest() != pointer["sha256"]:
            rule = f"{self.url}: the {name} of study {self.name!r} is damaged. Put back a copy of the database."
            raise StorageError(rule, self.url)
        return json.loads(text)

    def save_test_score(self, number: int, score: Mapping[str, Any]) -> None:
        """Keeps the test score of trial `number`: `accuracy`, `interval_95`, `n`."""
        self._set_attribute(f"{_TEST_SCORE}{number:04d}", {name: score[name] for name in ("accuracy", "interval_95", "n")})

    def load_test_scores(self) -> dict[int, dict[str, Any]]:
        """What `save_test_score` kept, by trial number."""
        found = {name.removeprefix(_TEST_SCORE): value for name, value in self._attributes().items()}
        return {int(number): dict(value) for number, value in found.items() if number.isdigit()}

    def _attributes(self) -> dict[str, Any]:
        return self._do(lambda: self.optuna_study.user_attrs)

    def _set_attribute(self, name: str, value: Any) -> None:
        self._do(lambda: self.optuna_study.set_user_attr(name, value))

    def _do(self, action: Callable[[], T]) -> T:
        """Runs a database action with our errors. A server that is away is waited for; every action here may be repeated."""
        deadline, wait_s = time.monotonic() + self._patience_s, FIRST_WAIT_S
        while True:
            try:
                with storage_errors(self.database_url):
                    # Not only after a failure: the pool reconnects silently after a restart, and what is written then must be
                    # written by the trial's owner.
                    self._claims.ensure()
                    return action()
            except optuna.exceptions.UpdateFinishedTrialError as error:
                raise StorageError(f"{self.url}: a running trial was ended from elsewhere. {STRANGER}", self.url) from error
            except KeyError as error:
                raise StorageError(f"{self.url}: the study, or a trial of it, was deleted while it ran.", self.url) from error
            except ServerAwayError:
                if time.monotonic() + wait_s > deadline:
                    raise
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, 5.0)
