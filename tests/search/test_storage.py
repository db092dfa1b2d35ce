"""URLs without their secrets, and errors that say what to do."""

from __future__ import annotations

import pytest

from searchft.errors import InputError
from searchft.search.storage import default_url, mask_text, mask_url, open_storage, sqlite_path


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


def test_what_is_no_url_or_no_known_database_is_the_users_mistake_and_keeps_the_secret(tmp_path):
    for url in ("studies/x.db", "nosuchdb://me:hunter2@host/db", "postgresql+nosuchdriver://me:hunter2@host/db"):
        with pytest.raises(InputError) as caught:
            open_storage(url, tmp_path)
        assert "hunter2" not in str(caught.value)


def test_sqlite_paths():
    assert str(sqlite_path("sqlite:////abs/study.db?timeout=3")) == "/abs/study.db"
    assert str(sqlite_path("sqlite:///rel/study.db")) == "rel/study.db"
    assert sqlite_path("postgresql://host/db") is None


def test_the_default_url_is_the_folders_file(tmp_path):
    assert sqlite_path(default_url(tmp_path)) == tmp_path / "study.db"
