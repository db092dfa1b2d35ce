"""What goes to stdout: the answer, and nothing else (under `--json` exactly one object). Progress, questions and errors go to stderr."""

from __future__ import annotations

import errno
import io
import json
import math
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

SCHEMA_VERSION = 1
"""Of every JSON answer. Raised when a key changes its meaning or goes; new keys do not raise it."""

# user:password@ of a URL. The password may hold anything but blanks and quotes, also a raw "@" or "/".
_IN_URL = re.compile(r"(?P<start>[A-Za-z][A-Za-z0-9+.\-]*://[^\s:/@'\"]*:)[^\s'\"]+(?=@)")
# password=… of a URL's query, of libpq's connection strings and of a repr().
_AS_KEY = re.compile(r"(?i)(?P<start>\b(?:password|passwd|pgpassword)['\"]?\s*[=:]\s*)(?:'[^']*'|\"[^\"]*\"|[^\s&,;)'\"]+)")


class ReaderLeft(Exception):
    """Whoever read our stdout closed it (`searchft list | head -1`). The program ends quietly."""


def emit(text: str) -> None:
    """Writes one text and a line end to stdout. Raises ReaderLeft if nobody reads it any more."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except UnicodeEncodeError:  # a terminal that knows only ASCII: rather "?" than no answer
        encoding = sys.stdout.encoding or "ascii"
        emit(text.encode(encoding, "replace").decode(encoding))
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.EIO):  # EIO: the terminal is gone
            raise ReaderLeft from error
        raise


def emit_json(answer: Mapping[str, Any]) -> None:
    """Writes one JSON object to stdout, `schema_version` first; NaN and infinities become null."""
    emit(json.dumps(_finite({"schema_version": SCHEMA_VERSION, **answer}), ensure_ascii=False, allow_nan=False))


def emit_json_error(kind: str, message: str, where: str) -> None:
    """Writes the JSON object that stands for an error to stdout."""
    emit(json.dumps({"error": {"kind": kind, "message": message, "where": where}}, ensure_ascii=False))


def emit_table(titles: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Collection[str], fold: str) -> None:
    """Draws a table on stdout: the columns named in `right` are right-aligned, and the column `fold` alone breaks its lines."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        table.add_column(
            title,
            justify="right" if title in right else "left",
            no_wrap=title != fold,
            overflow="fold" if title == fold else "ellipsis",
            min_width=12 if title == fold else None,
        )
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))  # brackets are no markup
    emit_renderable(table)


def emit_renderable(renderable: Any) -> None:
    """Draws a rich renderable (a table) on stdout at the terminal's width, or at 120 columns where there is none."""
    import shutil

    from rich.console import Console

    width = shutil.get_terminal_size((120, 24)).columns
    # Drawn in memory: rich's own writing knows nothing of readers that leave and terminals that go.
    console = Console(
        file=io.StringIO(), width=width, highlight=False, force_terminal=sys.stdout.isatty(), legacy_windows=False
    )
    with console.capture() as capture:
        console.print(renderable)
    emit(capture.get().rstrip("\n"))


def say(text: str) -> None:
    """Writes a line for people to stderr; never fails."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        return


def score_in_words(score: Mapping[str, Any], part: str = "") -> str:
    """`accuracy 0.9750 on 200 test images (95 % interval 0.9426 to 0.9893)`, of what `export.score.scores` gives."""
    low, high = score["interval_95"]
    images = f"{part} images" if part else "images"
    return f"accuracy {score['accuracy']:.4f} on {score['n']} {images} (95 % interval {low:.4f} to {high:.4f})"


def mask_passwords(text: str) -> str:
    """`text` with every password of a URL or connection string replaced by `***`: database drivers repeat it in their errors.

    >>> mask_passwords("postgresql://ann:s3cret@db/studies is down")
    'postgresql://ann:***@db/studies is down'
    """
    return _AS_KEY.sub(r"\g<start>***", _IN_URL.sub(r"\g<start>***", text))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
