"""The table of fields: everything that is said of a field once follows everywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from searchft.recipe import OPTIMIZERS, DataSettings, Recipe, SearchSettings
from searchft.recipe.fields import AUGMENTATIONS, RECIPE, SECTIONS, STRATEGIES

ROOT = Path(__file__).parents[2]
FIELDS = [(section, key) for section, fields in SECTIONS.items() for key in fields]


@pytest.mark.parametrize(("section", "key"), FIELDS)
def test_a_field_says_what_it_means_and_takes_its_own_default(section: str, key: str) -> None:
    field = SECTIONS[section][key]
    assert field.meaning.endswith(".") and field.kind.rule.startswith("must ")
    if field.default is not None and field.kind.shape == "scalar" and field.default != "":
        assert field.kind.read(field.default) == field.default
        assert type(field.kind.read(field.default)) is type(field.default)


def test_the_dataclasses_and_the_table_are_one() -> None:
    assert list(Recipe("x").to_json()) == list(RECIPE)
    assert {field.name for field in SECTIONS["data"].values()} == set(DataSettings("x").to_json())
    assert {field.name for key, field in SECTIONS["search"].items() if key != "enqueue"} == set(SearchSettings().to_json())
    assert all(field in RECIPE for values in STRATEGIES.values() for field in values)
    assert all(field in RECIPE for row in OPTIMIZERS.values() for field in row.takes)


def test_no_alias_is_a_key_of_its_section_or_stands_twice() -> None:
    for fields in SECTIONS.values():
        aliases = [alias for field in fields.values() for alias in field.aliases.split()]
        assert len(set(aliases)) == len(aliases)
        assert not set(aliases) & set(fields)
        assert aliases == [alias.lower() for alias in aliases]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("warmup_epochs", 0.5, "warm-up 0.5 epochs"),
        ("warmup_epochs", 0.0, "no warm-up"),
        ("weight_decay", 1e-4, "weight decay 1e-4"),
        ("label_smoothing", 0.1, "label smoothing 0.1"),
        ("edits", (("conv1.stride", 1),), "edits conv1.stride=1"),
    ],
)
def test_values_in_words(name: str, value: object, words: str) -> None:
    assert RECIPE[name].in_words(value, "1e-4") == words


def test_augmentations_are_the_fields_that_change_images_at_random() -> None:
    assert " ".join(AUGMENTATIONS) == "horizontal_flip rotation brightness contrast saturation hue grayscale crop_scale"


# --- a field more, in a copy of the package ------------------------------------------------------------------------

LINE = """    focal_gamma: float = row(0.0, real(0, 10), "Exponent of the focal loss; 0: cross entropy.", TRAINING,
        says=" | cross entropy", aliases="focal")
    random_erasing: float = row(0.0, PROBABILITY, "Probability of erasing a rectangle.", AUGMENTATION)
    horizontal_flip: float"""

CODE = """
import importlib.util, json
from searchft.recipe import AUGMENTATIONS, Recipe
from searchft.recipe.fields import RECIPE
from searchft.errors import InputError
from searchft.report.words import recipe_in_words, varying_fields
from searchft.space import differences, parse_space
from searchft.space.schema import space_schema
from tests import invented
from tests.recipe import test_golden

HEAD = "study: s\\ndata: {source: orl_faces}\\nrecipe:\\n  backbone: torchvision/small\\n  "
def space_of(line): return parse_space(HEAD + line + "\\n", "x.yaml")
def refusal(line):
    try: space_of(line)
    except InputError as error: return str(error)

space = space_of("focal_gamma: [0, 2]")
facts = invented.facts_of(space)
recipes = [space.resolve({"focal_gamma": v}) for v in (0.0, 2.0)]
spec = importlib.util.spec_from_file_location("make_grammar", "docs/make_grammar.py")
page = importlib.util.module_from_spec(spec); spec.loader.exec_module(page)
print(json.dumps({
    "grammar": "| `focal_gamma` | Exponent of the focal loss; 0: cross entropy. | in [0, 10] | `0` |" in page.page(),
    "schema": space_schema()["definitions"]["focal_gamma"],
    "choices": "focal_gamma" in space_schema()["properties"]["recipe"]["properties"],
    "range": refusal("focal_gamma: 11"),
    "near": refusal("focal_gama: 1"),
    "alias": refusal("focal: 1"),
    "words": [recipe_in_words(recipe, facts, varying_fields(space)).split(", ")[-1] for recipe in recipes],
    "keys": len({recipe.key(facts) for recipe in recipes}),
    "keys of before": test_golden.golden()["keys"] == json.loads(test_golden.GOLDEN.read_text())["keys"],
    "difference": [str(d) for d in differences(space_of("lr: 1"), space)][-1],
    "augmentation": ["random_erasing" in AUGMENTATIONS, Recipe("x", random_erasing=0.5).augments],
}))
"""


def test_a_field_added_to_the_table_is_known_everywhere(tmp_path: Path) -> None:
    """One line in fields.py; the other file of a new field is the code that acts on it."""
    import json

    for folder in ("searchft", "docs", "spaces", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.png", "benchmarks"))
    table = tmp_path / "searchft" / "recipe" / "fields.py"
    table.write_text(table.read_text().replace("    horizontal_flip: float", LINE, 1))
    done = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": "."})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("schema") == {"type": "number", "minimum": 0, "maximum": 10}
    assert "focal_gamma: must lie in [0, 10] but got 11" in found.pop("range")
    assert "did you mean 'focal_gamma'?" in found.pop("near") and "did you mean 'focal_gamma'?" in found.pop("alias")
    assert found.pop("words") == ["cross entropy", "focal gamma 2"]
    assert found.pop("difference") == "recipe.focal_gamma gained 2.0"
    assert found == {"grammar": True, "choices": True, "keys": 2, "keys of before": True, "augmentation": [True, True]}
