"""`searchft cache`: what the stores that all studies share take on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from searchft.cli.output import emit, emit_json
from searchft.cli.studies import json_option
from searchft.errors import StorageError

EPILOG = """\b
Example:
  searchft cache
  searchft cache --clear"""


@click.command("cache", epilog=EPILOG)
@click.option(
    "--clear", is_flag=True, help="Delete it all. Everything is rebuilt when it is needed; do not do it during a run."
)
@json_option
def command(clear: bool, as_json: bool) -> None:
    """Show what the shared stores hold: decoded images, activations of frozen layers, logs. SEARCHFT_CACHE says where."""
    from searchft.files import cache_folder
    from searchft.report.formats import size_text

    root = cache_folder()
    parts = {entry.name: _size_bytes(entry) for entry in sorted(root.iterdir())} if root.is_dir() else {}
    if clear:
        try:
            for name in parts:
                entry = root / name
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        except OSError as error:
            raise StorageError(f"cannot clear {root}: {error.strerror}", str(root)) from error
    total = sum(parts.values())
    if as_json:
        emit_json({"folder": str(root), "size_bytes": total, "parts": parts, "cleared": clear})
        return
    for name, size in parts.items():
        emit(f"{size_text(size):>10}  {name}")
    emit(f"{size_text(total):>10}  {'cleared from' if clear else 'in'} {root}")


def _size_bytes(path: Path) -> int:
    """Bytes of a file or of all files below a folder; what vanishes meanwhile counts nothing."""
    if path.is_file() or path.is_symlink():
        return path.lstat().st_size
    total = 0
    for file in path.rglob("*"):
        try:
            total += file.lstat().st_size if not file.is_dir() else 0
        except OSError:
            continue
    return total
