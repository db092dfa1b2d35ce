"""YAML text -> a tree of nodes that know their line. The only place that meets YAML as strangers may write it.

Why not `yaml.safe_load`: it forgets lines, keeps the last of two equal keys without a word, expands aliases (a
kilobyte becomes a gigabyte), recurses as deep as the file wishes, reads `1e-3` as text, `010` as eight, `1:30` as
ninety and `no` as false. Here SafeLoader scans and parses, with the scalars of YAML 1.2 (`no`, `off` and dates are
text), and the tree is built from its events, so that every limit holds while reading and not afterwards.

Nothing is ever constructed from a tag: tags, anchors and aliases are refused, python ones included.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from searchft.errors import InputError
from searchft.space.findings import Findings

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_NODES = 20_000
MAX_DIGITS = 18
"""Longest whole number: everything of this length fits 64 bits, in Python, torch and databases alike."""


class _Broken:
    """Stands for a value already reported, so that no later check reports it again."""

    def __repr__(self) -> str:
        return "…"


BROKEN = _Broken()


@dataclass(frozen=True)
class Node:
    """One value of the file. A mapping's children stand on the line of their key."""

    value: Any
    """str, int, float, bool, None, BROKEN, list[Node] or dict[str, Node]."""
    where: str
    """`spaces/x.yaml:14` or `--set recipe.epochs=5`."""

    def plain(self) -> Any:
        """The value without lines: nested lists and dicts of scalars."""
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        return self.value

    @property
    def broken(self) -> bool:
        """Whether some part of this value has been reported already."""
        if isinstance(self.value, list):
            return any(item.broken for item in self.value)
        if isinstance(self.value, dict):
            return any(item.broken for item in self.value.values())
        return self.value is BROKEN

    def walk(self, key: str) -> Iterator[tuple[str, Node]]:
        """Every node below (and this one) with its dotted key: `recipe.dropout`, its second item `recipe.dropout[1]`."""
        yield key, self
        if isinstance(self.value, list):
            for i, item in enumerate(self.value):
                yield from item.walk(f"{key}[{i}]")
        elif isinstance(self.value, dict):
            for name, item in self.value.items():
                yield from item.walk(f"{key}.{name}" if key else name)


class SpaceLoader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema, floats as people write them (`1e-3`) among them."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML's own protocol; a fresh table drops YAML 1.1's


_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_DIGITS = "[0-9]+(?:_[0-9]+)*"
for _tag, _pattern in (
    (_NULL, r"(?:~|null|Null|NULL|)\Z"),
    (_BOOL, r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    (_INT, rf"[-+]?{_DIGITS}\Z"),
    (
        _FLOAT,
        rf"[-+]?(?:{_DIGITS}\.(?:{_DIGITS})?|\.{_DIGITS}|{_DIGITS}(?=[eE]))(?:[eE][-+]?[0-9]+)?\Z"
        r"|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z",
    ),
):
    SpaceLoader.add_implicit_resolver(_tag, re.compile(_pattern), None)

HINTS = (
    ("'\\t'", "indent with spaces, not tabs"),
    ("mapping values are not allowed", "check the indentation, and put a text that holds ': ' in quotes"),
    ("could not find expected ':'", "each line of a mapping is `key: value`"),
    ("expected <block end>", "lines of one mapping or list begin in the same column"),
    ("expected alphabetic or numeric", "put a text that begins with * or & in quotes"),
    ("cannot start any token", "put a text that begins with this character in quotes"),
    ("expected ',' or", "a bracket is not closed, or a comma is missing"),
    ("unexpected end of stream", "a quote is not closed"),
    ("did not find expected", "a bracket or a quote is not closed"),
    ("expected the node content", "a value is missing or a bracket is not closed"),
)
"""What PyYAML says, and what to do about it."""


def read_yaml(content: bytes | str, source: str, place: Callable[[int], str], findings: Findings) -> Node:
    """The one document in `content`; `place` turns a line (from 1) into the `where` of messages.

    Faults that leave the rest readable (equal keys, aliases, tags, NaN) go to `findings`, and BROKEN stands in their
    stead. Raises InputError where nothing after the fault can be trusted: no UTF-8, too large, too deep, no YAML.
    """
    size = len(content) if isinstance(content, bytes) else len(content.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise _fatal(findings, source, f"must be at most {MAX_BYTES:,} bytes but is larger: a space is a page of text")
    text = content if isinstance(content, str) else _decoded(content, place, findings)
    text = text.removeprefix("\ufeff")
    builder: _TreeBuilder | None = None
    try:
        builder = _TreeBuilder(text, place, findings)
        return builder.document()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        rule = f"must be plain text but holds the control character U+{_codepoint(error.character):04X}"
        raise _fatal(findings, place(line), rule) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = str(error.problem or error.context or "it cannot be read")
        hint = next((f": {hint}" for pattern, hint in HINTS if pattern in said), "")
        line, column = (mark.line + 1, f" (column {mark.column + 1})") if mark else (1, "")
        if mark and error.context_mark and error.context_mark.line != mark.line:
            column += f", in what begins on line {error.context_mark.line + 1}"
        raise _fatal(findings, place(line), f"must be readable YAML but {said}{column}{hint}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets chr() complain about "\UFFFFFFFF", and int() about %YAML with a version of 5000 digits.
        where = place(builder.loader.get_mark().line + 1) if builder else source
        raise _fatal(findings, where, "must be readable YAML but an escape or a number here means nothing") from error


def _decoded(content: bytes, place: Callable[[int], str], findings: Findings) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        rule = f"must be UTF-8 text but holds the byte 0x{content[error.start]:02x} (column {_column(content, error.start)})"
        raise _fatal(findings, place(line), rule) from error


def _fatal(findings: Findings, where: str, rule: str) -> InputError:
    findings.add(where, "", rule)
    try:
        findings.raise_if_any()
    except InputError as error:
        return error
    raise AssertionError("unreachable: a problem was just added")


def _codepoint(character: Any) -> int:
    return character if isinstance(character, int) else ord(character[:1] or "\0")


def _column(content: bytes, position: int) -> int:
    return position - content.rfind(b"\n", 0, position)


class _TreeBuilder:
    """Builds nodes from the parser's events, counting depth and nodes as it goes."""

    def __init__(self, text: str, place: Callable[[int], str], findings: Findings) -> None:
        self.loader = SpaceLoader(text)
        self.place = place
        self.findings = findings
        self.count = 0

    def document(self) -> Node:
        """The file's one document; an empty file is a node of None."""
        self.loader.get_event()  # stream start
        if self.loader.check_event(yaml.StreamEndEvent):
            return Node(None, self.place(1))
        self.loader.get_event()  # document start
        root = self._node("", 1)
        self.loader.get_event()  # document end
        if not self.loader.check_event(yaml.StreamEndEvent):
            self.findings.add(
                self._where(self.loader.peek_event()), "", "must hold one document but a second one begins here (`---`)"
            )
        return root

    def _where(self, event: Any) -> str:
        return self.place(event.start_mark.line + 1)

    def _node(self, key: str, depth: int, where: str = "") -> Node:
        event: Any = self.loader.get_event()
        where = where or self._where(event)
        self.count += 1
        if self.count > MAX_NODES:
            raise _fatal(self.findings, where, f"must hold at most {MAX_NODES:,} values but goes on here")
        if isinstance(event, yaml.AliasEvent):
            self.findings.add(where, key, f"must be written out but got the alias *{event.anchor}: aliases are not read")
            return Node(BROKEN, where)
        if event.anchor is not None:
            self.findings.add(where, key, f"must be plain but has the anchor &{event.anchor}: anchors and aliases are not read")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.findings.add(where, key, f"must be a plain value but has the tag {tag[:60]!r}: tags are not read, remove it")
        if depth > MAX_DEPTH:
            raise _fatal(self.findings, where, f"must be nested at most {MAX_DEPTH} deep but goes deeper here")
        if isinstance(event, yaml.ScalarEvent):
            return Node(BROKEN if event.tag is not None else self._scalar(event, where, key), where)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not self.loader.check_event(yaml.SequenceEndEvent):
                items.append(self._node(key, depth + 1))
            self.loader.get_event()
            return Node(items if event.tag is None else BROKEN, where)
        children = self._mapping(key, depth)
        return Node(children if event.tag is None else BROKEN, where)

    def _mapping(self, key: str, depth: int) -> dict[str, Node]:
        children: dict[str, Node] = {}
        while not self.loader.check_event(yaml.MappingEndEvent):
            event: Any = self.loader.peek_event()
            where = self._where(event)
            if isinstance(event, yaml.ScalarEvent) and event.tag is None and event.anchor is None:
                self.loader.get_event()
                self.count += 1
                # A key is its text, whatever it looks like: `1: …` and `true: …` name a module or a group.
                name = event.value
                dotted = f"{key}.{name}" if key else name
                child = self._node(dotted, depth + 1, where)
                if name == "" and event.style is None:
                    self.findings.add(where, key, "must have a name before the colon but the key is empty")
                elif unprintable(name):
                    self.findings.add(where, key, f"must have printable keys but got {name[:60]!r}")
                elif name in children:
                    first = children[name].where
                    line = f"on line {first.rpartition(':')[2]}" if first != where else "on this line"
                    self.findings.add(where, dotted, f"must stand once but stands already {line}: remove one of the two")
                else:
                    children[name] = child
            else:
                before = len(self.findings.problems)
                self._node(key, depth + 1)
                if len(self.findings.problems) == before:
                    self.findings.add(where, key, "must have texts as keys but a key is a list or a mapping")
                self._node(key, depth + 1)
        self.loader.get_event()
        return children

    def _scalar(self, event: Any, where: str, key: str) -> Any:
        text: str = event.value
        if event.style is not None or event.implicit == (False, True):
            tag = ""
        else:
            tag = self.loader.resolve(yaml.ScalarNode, text, (True, False))
        if tag == _NULL:
            return None
        if tag == _BOOL:
            return text.lower() == "true"
        if tag in (_INT, _FLOAT):
            return self._number(text, tag, where, key)
        if unprintable(text):
            self.findings.add(where, key, f"must be printable text but got {text[:60]!r}")
            return BROKEN
        return text

    def _number(self, text: str, tag: str, where: str, key: str) -> Any:
        digits = text.lstrip("+-").replace("_", "")
        if tag == _INT:
            if len(digits) > 1 and digits.startswith("0"):
                self.findings.add(
                    where, key, f"must not begin with 0 but got {text[:40]} (octal to some, decimal to others): remove the zero"
                )
                return BROKEN
            if len(digits) > MAX_DIGITS:
                self.findings.add(where, key, f"must have at most {MAX_DIGITS} digits but got a number of {len(digits)}")
                return BROKEN
            return int(text.replace("_", ""))
        value = float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
        if not math.isfinite(value):
            self.findings.add(where, key, f"must be a finite number but got {text[:40]}")
            return BROKEN
        return value


def unprintable(text: str) -> bool:
    """Whether a text holds control characters or halves of surrogate pairs: no path, name or message survives those."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)
