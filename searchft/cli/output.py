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
from collections.abc import Mapping
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
