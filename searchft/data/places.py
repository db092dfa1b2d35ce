"""Where a path written in a space stands: beside the space first, then in the current folder."""

from __future__ import annotations

from pathlib import Path

from searchft.errors import InputError, Problem


def find_place(written: str, root: str, key: str, kind: str) -> Path:
    """The existing file or folder that `written` means.

    Relative paths stand in `root` (the space's folder), and if nothing is there, in the current folder. `kind` is
    `folder` or `file`. Raises InputError naming every place that was looked at.
    """
    path = Path(written).expanduser()
    if not written.strip():
        raise InputError(Problem(root, key, f"must name a {kind} after the colon but got nothing"))
    tried = [path] if path.is_absolute() else list(dict.fromkeys([(Path(root) / path).absolute(), path.absolute()]))
    for place in tried:
        if place.is_dir() if kind == "folder" else place.is_file():
            return place
    other = next((place for place in tried if place.exists()), None)
    if other is not None:
        raise InputError(Problem(str(other), key, f"must be a {kind} but is a {'file' if kind == 'folder' else 'folder'}"))
    raise InputError(Problem(written, key, f"must be an existing {kind}; looked at {' and at '.join(map(str, tried))}"))
