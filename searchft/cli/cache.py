"""`searchft cache`: what is kept for all studies, and how to get rid of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from searchft.cli.output import emit, emit_json
from searchft.cli.studies import confirm, examples, json_option, yes_option
from searchft.errors import StorageError

if TYPE_CHECKING:
    from searchft.cache import Cache

CACHES = ("images", "features")  # folders of entries: see `searchft.cache`
OTHERS = {
    "images/hashes": re.compile(r"[0-9a-f]{24}\.json"),
    "weights": re.compile(r"[0-9a-f]{16}"),
    "ray": re.compile(r"worker-\w+"),
    "logs": re.compile(r"error-\d{8}-\d{6}-\d+\.log"),
    "calibrations": re.compile(r"[0-9a-f]{32}\.json"),  # of earlier versions
}
"""What else is ours: names in folders. Anything else (data sets in `torchvision` too) was put there or asked for by a person."""


@click.command("cache", epilog=examples("cache", "cache --clear"))
@click.option(
    "--clear", is_flag=True, help="Remove what no running search uses, after asking. It is rebuilt when it is needed."
)
@yes_option
@json_option
def command(clear: bool, yes: bool, as_json: bool) -> None:
    """Show what the cache holds: decoded images, values of frozen layers, weights, logs. SEARCHFT_CACHE says where."""
    from searchft.cache import Cache
    from searchft.files import cache_folder, disk_bytes
    from searchft.report.formats import size_text

    root = cache_folder()
    caches = [Cache(root / name) for name in CACHES]
    parts = {cache.root.name: sum(entry.size_bytes for entry in cache.entries()) for cache in caches}
    for path in _others(root):
        part = path.relative_to(root).parts[0]
        parts[part] = parts.get(part, 0) + disk_bytes(path)
    total, freed = sum(parts.values()), 0
    text = "\n".join(f"{size_text(size):>10}  {name}" for name, size in (*parts.items(), (f"in {root}", total)))
    if clear:
        if not confirm(f"{text}\nRemove these?", "cache --clear", yes=yes, as_json=as_json):
            return
        freed = _clear(root, caches)
        used = f"; {size_text(total - freed)} stay, because a search uses them" if freed < total else ""
        text = f"removed {', '.join(parts)} from {root}: {size_text(freed)}{used}"
    ours = {name.partition("/")[0] for name in (*CACHES, *OTHERS)}
    foreign = sorted(path.name for path in root.iterdir() if path.name not in ours) if root.is_dir() else []
    if as_json:
        answer = {"folder": str(root), "size_bytes": total, "parts": parts, "foreign": foreign}
        emit_json({**answer, "cleared": clear, "freed_bytes": freed})
        return
    emit(text)
    if foreign:
        emit(f"not ours, and never removed: {', '.join(foreign)}")


def _clear(root: Path, caches: list[Cache]) -> int:
    """Removes what is ours and not in use; gives the bytes freed. Raises StorageError where the disk refuses."""
    from searchft.files import disk_bytes

    try:
        freed = sum(cache.clear() for cache in caches)
        others = list(_others(root))
        in_use = [path for path in others if path.parent.name == "ray" and _lives(path)]
        for path in others:
            if path in in_use or (in_use and path.parent.name == "weights"):  # workers read weights again for each network
                continue
            freed += disk_bytes(path)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return freed
    except OSError as error:
        raise StorageError(f"cannot clear {root}: {error.strerror}", str(root)) from error


def _lives(worker: Path) -> bool:
    """Whether the Ray worker of this folder lives: it holds a lock there."""
    from searchft.files import lock_file

    try:
        with lock_file(worker / "alive.lock").acquire(blocking=False):
            return False
    except TimeoutError:
        return True


def _others(root: Path) -> Iterator[Path]:
    """What lies beside the caches' entries and carries a name of ours. A link is never followed."""
    for folder, name in OTHERS.items():
        if (root / folder).is_dir():
            yield from (p for p in sorted((root / folder).iterdir()) if name.fullmatch(p.name) and not p.is_symlink())
