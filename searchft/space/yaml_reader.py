"""YAML text -> a tree of nodes that know their line, and the problems found. The only place that meets YAML as strangers may write it.

`yaml.safe_load` forgets lines, keeps the last of two equal keys, expands aliases, recurses as deep as the file wishes, and reads `1e-3`
as text and `no` as false. Here PyYAML composes its nodes with the scalars of YAML 1.2 under our limits, and nothing is constructed.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from searchft.errors import InputError, Problem
from searchft.wording import got as given

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
        return any(node.value is BROKEN for _, node in self.walk(""))

    def walk(self, key: str) -> Iterator[tuple[str, Node]]:
        """Every node below (and this one) with its dotted key: `recipe.dropout`, its second item `recipe.dropout[1]`."""
        yield key, self
        if isinstance(self.value, list):
            for i, item in enumerate(self.value):
                yield from item.walk(f"{key}[{i}]")
        elif isinstance(self.value, dict):
            for name, item in self.value.items():
                yield from item.walk(f"{key}.{name}" if key else name)


@dataclass
class Findings:
    """What is wrong with one space file and its overrides, so that a user sees every fault at once and in reading order."""

    source: str
    """The file's name, as given."""
    problems: list[Problem] = field(default_factory=list)

    def add(self, where: str, key: str, rule: str) -> None:
        """Notes one problem."""
        self.problems.append(Problem(where, key, rule))

    def refuse(self, node: Node, key: str, rule: str, mend: str = "", got: str = "but got") -> None:
        """Notes that a value breaks a rule, unless it has been reported already."""
        if not node.broken:
            self.add(node.where, key, f"{rule} {got} {given(node.plain())}{mend}")

    def raise_if_any(self) -> None:
        """Raises InputError with all problems: the file's by line number, then those of `--set`, in the order found."""
        if self.problems:
            raise InputError(sorted(self.problems, key=self._place))

    def _place(self, problem: Problem) -> tuple[int, int]:
        # By number, not by text: line 10 stands after line 9.
        if problem.where == self.source:
            return (0, 0)
        line = problem.where.removeprefix(self.source + ":")
        return (0, int(line)) if line.isascii() and line.isdigit() else (1, 0)


class _Limit(yaml.MarkedYAMLError):
    """A limit of ours was passed: nothing after it is read."""


class SpaceLoader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema, floats as people write them (`1e-3`) among them, and our limits."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML's own protocol; a fresh table drops YAML 1.1's
    depth = 0
    count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """PyYAML's node with `refused`: the rules that it breaks, and whether it has no value because of them."""
        event: Any = self.peek_event()
        self.count += 1
        self.depth += 1
        if self.count > MAX_NODES:
            raise _Limit(None, None, f"must hold at most {MAX_NODES:,} values but goes on here", event.start_mark)
        if self.depth > MAX_DEPTH:
            raise _Limit(None, None, f"must be nested at most {MAX_DEPTH} deep but goes deeper here", event.start_mark)
        start: Any = event.start_mark
        refused = []
        if isinstance(event, yaml.AliasEvent):
            refused.append(f"must be written out but got the alias *{event.anchor}: aliases are not read")
            self.get_event()
            node: Any = yaml.ScalarNode(_REFUSED, "", start, start)
        else:
            if event.anchor is not None:
                refused.append(f"must be plain but has the anchor &{event.anchor}: anchors and aliases are not read")
            if event.tag is not None:
                tag = event.tag.replace("tag:yaml.org,2002:", "!!")[:60]
                refused.append(f"must be a plain value but has the tag {tag!r}: tags are not read, remove it")
            event.anchor = None
            node = super().compose_node(parent, index)
            if event.tag is not None:
                node.tag = _REFUSED
        node.refused = refused
        self.depth -= 1
        return node


_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_REFUSED = "refused"
"""Stands for the tag of an alias or of a node with a tag of its own: it has no value."""
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

    def give_up(where: str, rule: str) -> NoReturn:
        findings.add(where, "", rule)
        findings.raise_if_any()
        raise AssertionError("unreachable: a problem was just added")

    size = len(content) if isinstance(content, bytes) else len(content.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        give_up(source, f"must be at most {MAX_BYTES:,} bytes but is larger: a space is a page of text")
    loader: SpaceLoader | None = None
    try:
        text = (content if isinstance(content, str) else content.decode()).removeprefix("\ufeff")
        loader = SpaceLoader(text)
        root = _Reader(place, findings).node(loader.get_node(), "") if loader.check_node() else Node(None, place(1))
        if loader.check_node():
            rule = "must hold one document but a second one begins here (`---`)"
            findings.add(place(loader.peek_event().start_mark.line + 1), "", rule)
        return root
    except UnicodeDecodeError as error:
        before, column = error.object[: error.start], error.start - error.object.rfind(b"\n", 0, error.start)
        rule = f"must be UTF-8 text but holds the byte 0x{error.object[error.start]:02x} (column {column})"
        give_up(place(before.count(b"\n") + 1), rule)
    except _Limit as error:
        give_up(place(error.problem_mark.line + 1 if error.problem_mark else 1), str(error.problem))
    except yaml.reader.ReaderError as error:
        # PyYAML's stubs take the character for a text; of a text it is a number.
        rule = f"must be plain text but holds the control character U+{int(error.character):04X}"
        give_up(place(text.count("\n", 0, error.position) + 1), rule)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = str(error.problem or error.context or "it cannot be read")
        hint = next((f": {hint}" for pattern, hint in HINTS if pattern in problem), "")
        line, at = (mark.line + 1, f" (column {mark.column + 1})") if mark else (1, "")
        if mark and error.context_mark and error.context_mark.line != mark.line:
            at += f", in what begins on line {error.context_mark.line + 1}"
        give_up(place(line), f"must be readable YAML but {problem}{at}{hint}")
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML lets chr() complain about "\UFFFFFFFF", and int() about %YAML with a version of 5000 digits.
        where = place(loader.get_mark().line + 1) if loader else source
        give_up(where, "must be readable YAML but an escape or a number here means nothing")


@dataclass(frozen=True)
class _Reader:
    """Turns PyYAML's nodes into ours, noting what is wrong with each."""

    place: Callable[[int], str]
    findings: Findings

    def node(self, node: Any, key: str, where: str = "") -> Node:
        """`where` is given for a mapping's values, which stand on their key's line."""
        where = where or self.place(node.start_mark.line + 1)
        for rule in node.refused:
            self.findings.add(where, key, rule)
        if isinstance(node, yaml.ScalarNode):
            value, rule = _read_scalar(node.value, node.tag)
            if rule:
                self.findings.add(where, key, rule)
        elif isinstance(node, yaml.SequenceNode):
            value = [self.node(item, key) for item in node.value]
        else:
            value = self._mapping(node, key)
        return Node(BROKEN if node.tag == _REFUSED else value, where)

    def _mapping(self, node: Any, key: str) -> dict[str, Node]:
        children: dict[str, Node] = {}
        for name_node, value_node in node.value:
            where = self.place(name_node.start_mark.line + 1)
            # A key is its text, whatever it looks like: `1: …` and `true: …` name a module or a group.
            name: Any = name_node.value
            if not isinstance(name, str) or name_node.refused:
                self.node(name_node, key)
                if not isinstance(name, str):
                    self.findings.add(where, key, "must have texts as keys but a key is a list or a mapping")
                self.node(value_node, key)
                continue
            dotted = f"{key}.{name}" if key else name
            child = self.node(value_node, dotted, where)
            if name == "" and name_node.style is None:
                self.findings.add(where, key, "must have a name before the colon but the key is empty")
            elif unprintable(name):
                self.findings.add(where, key, f"must have printable keys but got {name[:60]!r}")
            elif name in children:
                first = children[name].where
                line = f"on line {first.rpartition(':')[2]}" if first != where else "on this line"
                self.findings.add(where, dotted, f"must stand once but stands already {line}: remove one of the two")
            else:
                children[name] = child
        return children


def _read_scalar(text: str, tag: str) -> tuple[Any, str]:
    """(a scalar's value, "") or (BROKEN, what is wrong with it)."""
    if tag in (_NULL, _REFUSED):
        return None, ""
    if tag == _BOOL:
        return text.lower() == "true", ""
    if tag == _INT:
        digits = text.lstrip("+-").replace("_", "")
        if len(digits) > 1 and digits.startswith("0"):
            return BROKEN, f"must not begin with 0 but got {text[:40]} (octal to some, decimal to others): remove the zero"
        if len(digits) > MAX_DIGITS:
            return BROKEN, f"must have at most {MAX_DIGITS} digits but got a number of {len(digits)}"
        return int(text.replace("_", "")), ""
    if tag == _FLOAT:
        value = float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
        return (value, "") if math.isfinite(value) else (BROKEN, f"must be a finite number but got {text[:40]}")
    return (BROKEN, f"must be printable text but got {text[:60]!r}") if unprintable(text) else (text, "")


def unprintable(text: str) -> bool:
    """Whether a text holds control characters or halves of surrogate pairs: no path, name or message survives those."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)
