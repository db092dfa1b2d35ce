"""What goes to stdout: the answer, and nothing else. Progress, questions and errors go to stderr.

Under `--json` an answer is exactly one object. A reader that leaves early (`searchft list | head -1`) is not an error;
it is told apart from a broken pipe inside the program by an exception of its own.
"""

from __future__ import annotations

import errno
import io
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SCHEMA_VERSION = 1
"""Of every JSON answer. Raised when a key changes its meaning or goes; new keys do not raise it."""


class ReaderLeft(Exception):
    """Whoever read our stdout closed it. The program ends quietly."""


def emit(text: str) -> None:
    """Writes one text and a line end to stdout. Raises ReaderLeft if nobody reads it any more."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise ReaderLeft from error
    except OSError as error:
        if error.errno == errno.EIO:  # the terminal is gone
            raise ReaderLeft from error
        raise
    except UnicodeEncodeError:  # a terminal that knows only ASCII: rather "?" than no answer
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        sys.stdout.flush()


def emit_json(answer: Mapping[str, Any]) -> None:
    """Writes one JSON object to stdout, `schema_version` first; NaN and infinities become null."""
    emit(json.dumps(_finite({"schema_version": SCHEMA_VERSION, **answer}), ensure_ascii=False, allow_nan=False))


def emit_json_error(kind: str, message: str, where: str) -> None:
    """Writes the JSON object that stands for an error to stdout."""
    emit(json.dumps({"error": {"kind": kind, "message": message, "where": where}}, ensure_ascii=False))


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


def emit_table(columns: Sequence[tuple[str, Mapping[str, Any]]], rows: Iterable[Sequence[Any]]) -> None:
    """Draws a table on stdout: titles with rich's column settings, then the rows' cells."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title, settings in columns:
        table.add_column(title, **settings)
    for row in rows:
        table.add_row(*row)
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


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
