"""`csv:PATH`: a table with the columns `path,label` and, if the split is given, `split`; paths relative to its folder."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path

from searchft.data.decode import FOREIGN, foreign_reason
from searchft.data.records import SPLIT_NAMES, Record, Records, find_place, printable, refusal, some
from searchft.errors import InputError, Problem
from searchft.recipe import DataSettings

MOST_PROBLEMS = 50  # a table of 100,000 wrong rows is one mistake, not 100,000: this many are listed, the others counted


def read_csv(settings: DataSettings, written: str) -> Records:
    """The images that a CSV file lists. Raises InputError with every wrong row (`faces.csv:14`)."""
    table = find_place(written, settings.root, "file")
    header, rows = _rows(table)
    problems: list[tuple[int, str]] = []
    entries: list[tuple[str, str, str | None, Path]] = []
    unreadable: list[tuple[str, str]] = []
    seen: dict[Path, tuple[int, str]] = {}
    with_split: list[int] = []
    without_split: list[int] = []
    for line, cells in rows:
        if len(cells) != len(header):
            problems.append((line, f"must have {len(header)} columns ({', '.join(header)}) but has {len(cells)}"))
            continue
        row = dict(zip(header, map(str.strip, cells), strict=True))
        name, label, given = row["path"], unicodedata.normalize("NFC", row["label"]), row.get("split", "")
        split = SPLIT_NAMES.get(given.lower())
        if given and split is None:
            problems.append((line, f"split must be train, val or test but got {given!r}"))
        (with_split if given else without_split).append(line)
        if not label:
            problems.append((line, "label must not be empty"))
        if not name or "\0" in name:
            problems.append((line, f"path must be a file but got {name!r}"))
            continue
        path = table.parent / Path(name).expanduser()
        if path.suffix.lower() in FOREIGN:
            unreadable.append((printable(path), foreign_reason(path.suffix)))
        elif not path.exists():
            problems.append((line, f"path must be an existing file but {name!r} is not in {table.parent}"))
        elif not path.is_file():
            problems.append((line, f"path must be a file but {name!r} is a folder"))
        elif path in seen and seen[path][1] != label:
            problems.append((line, f"{name!r} is {label!r} here but {seen[path][1]!r} on line {seen[path][0]}"))
        else:
            seen.setdefault(path, (line, label))
            entries.append((name, label, split, path))
    if with_split and without_split:
        rule = f"either every row must name its split or none, but it is missing on lines {some(without_split)}"
        problems.append((without_split[0], rule))
    if problems:
        problems.sort(key=lambda problem: problem[0])
        found = [Problem(f"{table}:{line}", "data.source", rule) for line, rule in problems[:MOST_PROBLEMS]]
        if (rest := len(problems) - MOST_PROBLEMS) > 0:
            found.append(Problem(str(table), "data.source", f"and {rest} more rows are wrong"))
        raise InputError(found)
    if not entries and not unreadable:
        raise refusal(table, "must list images but has only a header")
    classes = tuple(sorted({label for _, label, _, _ in entries}))
    records = [Record(name, classes.index(label), split, path) for name, label, split, path in entries]
    extra = [name for name in header if name not in ("path", "label", "split")]
    notes = [f"columns that are not used: {some(extra)}"] if extra else []
    return Records(str(table), classes, sorted(records, key=lambda r: r.name), sorted(unreadable), notes)


def _rows(table: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the rows that are not empty with the lines on which they end."""
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, cells) for cells in reader if cells]
    except UnicodeDecodeError as error:
        raise refusal(table, f"must be UTF-8 text: {error}") from error
    except csv.Error as error:
        raise refusal(f"{table}:{reader.line_num}", f"must be a CSV table: {error}") from error
    if not rows:
        raise refusal(table, "must have a header `path,label` or `path,label,split` but is empty")
    header = [name.strip() for name in rows[0][1]]
    twice = sorted({name for name in header if header.count(name) > 1})
    rule = f"must name each column once but has {some(twice)} twice" if twice else ""
    if not {"path", "label"} <= set(header):
        hint = " Separate the columns by commas" if len(header) == 1 and any(c in header[0] for c in ";\t|") else ""
        rule = f"must begin with a header that names `path` and `label` (and `split`) but got {','.join(header)!r}.{hint}"
    if rule:
        raise refusal(f"{table}:{rows[0][0]}", rule)
    return header, [(line, cells) for line, cells in rows[1:] if any(cell.strip() for cell in cells)]
