"""Names of databases: which URLs are served, what they say without their passwords."""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path

from searchft.errors import InputError

DATABASE_NAME = "study.db"
"""The SQLite file in a study's folder."""

_SECRET_PARAMETER = re.compile(r"(?i)\b([\w-]*(?:pass(?:word|wd|phrase)?|pwd|secret|token))=([^&\s]*)")


def mask_url(url: str) -> str:
    """The URL with the password in `user:password@` and in query parameters like `password=` replaced by `***`."""
    scheme, separator, rest = url.partition("://")
    password = _password_of(url)
    if password:
        user = rest.partition(":")[0]
        rest = f"{user}:***{rest[len(user) + 1 + len(password) :]}"
    return _SECRET_PARAMETER.sub(r"\1=***", scheme + separator + rest)


def mask_text(text: str, url: str) -> str:
    """A message in which the URL's secrets may stand (a driver's error), with them masked."""
    text = text.replace(url, mask_url(url)) if url else text
    secrets = {match.group(2) for match in _SECRET_PARAMETER.finditer(url)} | {_password_of(url)}
    secrets |= {urllib.parse.unquote(secret) for secret in secrets}
    secrets |= {urllib.parse.quote(secret, safe="") for secret in secrets}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= 3:  # one or two letters would blot out the whole message
            text = text.replace(secret, "***")
    return _SECRET_PARAMETER.sub(r"\1=***", text)


def _password_of(url: str) -> str:
    """The password between `user:` and `@`, as written; empty if there is none.

    An unescaped @, / or ? in it must not lay part of it bare: up to the last @ of the URL it counts as password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower().startswith("sqlite"):
        return ""
    credentials = rest.rpartition("@")[0]
    user, colon, password = credentials.partition(":")
    return password if colon and "@" not in user else ""


def default_url(folder: Path) -> str:
    """The URL of the SQLite file in a study's folder."""
    return f"sqlite:///{Path(folder).absolute() / DATABASE_NAME}"


def sqlite_path(url: str) -> Path | None:
    """The file behind a SQLite URL; None for PostgreSQL. Raises InputError for a database in memory and for any other server."""
    scheme, separator, rest = url.partition("://")
    dialect = scheme.lower().partition("+")[0]
    if separator and dialect in ("postgresql", "postgres"):
        return None
    if not separator or dialect != "sqlite":
        raise InputError(f"must be postgresql://USER@HOST/DATABASE or sqlite:///PATH but got {mask_url(url)!r}", "--storage")
    path = re.sub(r"\?\w+=[^/]*$", "", rest.removeprefix("/"))  # a folder may have a ? in its name
    if path in ("", ":memory:") or path.startswith("file:"):
        raise InputError(f"must name a file (sqlite:///PATH): a study that is to survive cannot live in {url!r}", "--storage")
    return Path(path)


def postgres_url(url: str) -> str:
    """PostgreSQL's URL with the driver that our extra `postgres` installs, where it names none.

    SQLAlchemy's own choice depends on its version (psycopg2 up to 2.0, psycopg since), and it does not know `postgres://`.
    """
    scheme, _, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if scheme.lower() in ("postgres", "postgresql") else url
