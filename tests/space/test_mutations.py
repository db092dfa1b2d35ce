"""Whatever is done to a valid file, reading it gives a Space or an InputError: never another exception."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from searchft.errors import InputError
from searchft.space import Space, differences, load_space, parse_space

SPACES = Path(__file__).parents[2] / "spaces"
FILES = [path.read_text() for path in sorted(SPACES.glob("*.yaml"))]
FILES.append(
    """\
study: all_of_it
data: {source: 'folder:photos', folders: {train: a, val: b}, image_size: 64, labels: names.json, root: here}
recipe:
  strategy: [head, full, scratch, bias, norm, tinytl]
  backbone: [torchvision/resnet18, timm/vit_tiny]
  edits: [{}, {conv1.stride: [1, 2], conv1.padding_mode: zeros}]
  lr_groups: {choices: [{early: [layer1]}, {early: [layer1, layer2], late: [layer4]}]}
  lr_multipliers: {early: [1.0, 0.1], head: {choices: [1, 2]}}
  auxiliary: [true, false]
search: {timeout: 3.5, enqueue: [{name: 'a, b', strategy: bias, lr_multipliers: {early: 0.1}}]}
"""
)
TOKENS = (
    *("[", "]", "{", "}", ":", ": ", ",", "- ", "? ", "&a ", "*a", "!!str ", "!!python/name:os.system ", "<<: ", "#", "'", '"', "|", ">"),
    *("%", "@", "`", "~", "null", "true", "no", "off", "1e-3", "1e999", ".nan", "-.inf", "010", "0x1f", "1:30", "9" * 40, "-1", "0.5"),
    *("\n", "\t", "  ", "\r", "\x00", "\x85", "\u2028", "\ud800", "\ufeff", "é", "😀", "---", "''", "[]", "{}", '"\\ud800"', '"\\0"'),
    *("choices", "head", "all", "none", "dropout", "recipe", "enqueue", "name", "lr_multipliers", "edits", "top", "2026-01-01"),
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A valid file with one to six pieces of it cut, doubled, moved or replaced."""
    text = draw(st.sampled_from(FILES))
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(("characters", "noise", "line twice", "line gone", "swap lines", "value")))
        token = draw(st.text(max_size=8) if kind == "noise" else st.sampled_from(("", *TOKENS)))
        a = draw(st.integers(0, len(text)))
        b = min(len(text), a + draw(st.integers(0, 12)))
        lines = text.splitlines(keepends=True) or [""]
        i, j = (draw(st.integers(0, len(lines) - 1)) for _ in "ij")
        if kind in ("characters", "noise"):
            lines = [text[:a], token, text[b:]]
        elif kind == "line twice":
            lines.insert(i, lines[i])
        elif kind == "line gone":
            del lines[i]
        elif kind == "swap lines":
            lines[i], lines[j] = lines[j], lines[i]
        elif ":" in lines[i]:
            lines[i] = f"{lines[i].partition(':')[0]}: {token}\n"
        text = "".join(lines)
    return text


OVERRIDES = st.lists(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(
            ("recipe.epochs", "recipe.lr", "recipe", "search.enqueue", "data.split.train", "recipe.edits.a.b", "", "a.b")
        ),
        st.sampled_from(("=", "", "==")),
        st.one_of(st.sampled_from(TOKENS), st.text(max_size=6)),
    ),
    max_size=2,
)


def a_space_or_an_input_error(text: str, overrides: list[str]) -> bool:
    try:
        space = parse_space(text, "x.yaml", overrides)
    except InputError as error:
        assert error.problems and all(problem.where and problem.rule for problem in error.problems)
        str(error).encode("utf-8")
        return False
    # What is accepted is whole: it survives JSON, resolves, and its labels are distinct.
    assert Space.from_json(json.loads(json.dumps(space.to_json(), allow_nan=False))) == space
    space.resolve({})
    for dimension in space.dimensions:
        assert len(set(map(repr, dimension.labels))) == len(dimension.choices) > 1
    for row in space.enqueue:
        assert space.labels_of(row.chosen).keys() == row.chosen.keys()
        space.resolve(row.chosen)
    assert not differences(space, space)
    return True


@given(mutated(), OVERRIDES)
@settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_mutated_file_is_a_space_or_an_input_error(text: str, overrides: list[str]) -> None:
    a_space_or_an_input_error(text, overrides)


@pytest.mark.exhaustive
@given(mutated(), OVERRIDES)
@settings(max_examples=10_000, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
def test_ten_thousand_mutated_files_are_spaces_or_input_errors(text: str, overrides: list[str]) -> None:
    """And none costs more than 2 s or 500 MB."""
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    a_space_or_an_input_error(text, overrides)
    assert time.process_time() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_any_bytes_are_refused_in_order(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError):
        load_space(path)


@pytest.mark.parametrize("text", FILES)
def test_the_files_to_mutate_are_valid_themselves(text: str) -> None:
    assert a_space_or_an_input_error(text, [])
