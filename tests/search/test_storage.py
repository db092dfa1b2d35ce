"""URLs without their secrets, and errors that say what to do."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from searchft.errors import InputError, StorageError
from searchft.files import lock_file, network_file_system
from searchft.search import storage as storage_module
from searchft.search.databases import default_url, mask_text, mask_url, sqlite_path
from searchft.search.storage import open_storage


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://me:hunter2@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql+psycopg2://me:p@ss/w?rd@host/db", "postgresql+psycopg2://me:***@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://:hunter2@host/db", "postgresql://:***@host/db"),
        (
            "postgresql://host/db?user=me&password=hunter2&sslmode=require",
            "postgresql://host/db?user=me&password=***&sslmode=require",
        ),
        ("mysql://me:x@host/db?sslpassword=hunter2", "mysql://me:***@host/db?sslpassword=***"),
        ("sqlite:////home/a:b@c/study.db", "sqlite:////home/a:b@c/study.db"),
        ("nonsense", "nonsense"),
        ("", ""),
    ],
)
def test_mask_url(url, masked):
    assert mask_url(url) == masked
    assert mask_url(masked) == masked


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:hunter%402@host/db", "postgresql://me:hunter@2@host/db", "postgresql://host/db?password=hunter%402"],
)
def test_no_form_of_the_password_is_left_in_a_message(url):
    text = mask_text(f"could not use {url}: password=hunter@2, tried hunter@2 and hunter%402", url)
    assert "hunter" not in text and text.startswith("could not use postgresql://")


def test_a_database_in_memory_is_refused(tmp_path):
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(InputError, match="must name a file"):
            open_storage(url, tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "studies/x.db",
        "nosuchdb://me:hunter2@host/db",
        "mysql://me:hunter2@host/db",
        "postgresql+nosuchdriver://me:hunter2@host/db",
    ],
)
def test_what_is_neither_postgresql_nor_sqlite_is_the_users_mistake_and_keeps_the_secret(tmp_path, url):
    with pytest.raises(InputError, match=r"must be postgresql://|needs a Python package|must be a database URL") as caught:
        open_storage(url, tmp_path)
    assert "hunter2" not in str(caught.value)


def test_sqlite_paths():
    assert str(sqlite_path("sqlite:////abs/study.db?timeout=3")) == "/abs/study.db"
    assert str(sqlite_path("sqlite:///rel/study.db")) == "rel/study.db"
    assert sqlite_path("postgresql://host/db") is None


def test_the_default_url_is_the_folders_file(tmp_path):
    assert sqlite_path(default_url(tmp_path)) == tmp_path / "study.db"


MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
/dev/sdb1 /home/local\\040disk ext4 rw 0 0
me@host: /mnt/far fuse.sshfs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/srv", ""), ("/home/me/studies", "nfs4"), ("/home/local disk/x", ""), ("/homes", ""), ("/mnt/far/x", "fuse.sshfs")],
)
def test_a_network_file_system_is_known_by_its_mount(tmp_path, folder, kind):
    table = tmp_path / "mounts"
    table.write_text(MOUNTS)
    assert network_file_system(Path(folder), table) == kind
    assert network_file_system(Path(folder), tmp_path / "none") == ""


def test_sqlite_writes_no_wal_on_a_network_file_system(tmp_path, monkeypatch):
    monkeypatch.setattr(storage_module, "network_file_system", lambda folder: "nfs4")
    storage = open_storage("", tmp_path)
    assert storage._backend.engine.connect().exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    """filelock would let a file stand for a lock, which outlives whoever was killed."""

    def missing(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    with pytest.raises(StorageError, match="without locks"):
        lock_file(tmp_path / "driver.lock")
