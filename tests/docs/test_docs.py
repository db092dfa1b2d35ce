"""What the pages say is true: the grammar is the schema's, links lead somewhere, the Python example runs."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


def run_python(*arguments: str, cwd: Path | None = None) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def code_blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_grammar_page_is_what_the_schema_says() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "make_grammar.py"))["page"]()
    assert (ROOT / "docs" / "grammar.md").read_text() == page, "run docs/make_grammar.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)\)", page.read_text())
    missing = [t for t in targets if not t.startswith("https://") and not (page.parent / t).exists()]
    assert missing == []


def test_the_readmes_space_says_what_the_shipped_one_does() -> None:
    from searchft.space import differences, load_space, parse_space

    (shown,) = code_blocks("README.md", "yaml")
    assert differences(parse_space(shown), load_space(ROOT / "spaces" / "quickstart.yaml")) == []


def test_the_readmes_snippet_has_at_most_ten_lines_and_is_what_export_writes() -> None:
    snippet = code_blocks("README.md", "python")[0].strip()
    assert len(snippet.splitlines()) <= 10
    from searchft.export.card import snippet_text

    config = {
        "architecture": {"library": "timm", "edits": {}, "head": {"layers": [["Linear", {}]]}},
        "preprocessing": {"image_size": 96, "stored_size": 96, "resize": "squash", "interpolation": "bilinear", "crop": []},
    }
    assert snippet == snippet_text(config, "winner")


def test_the_verbs_that_the_pages_name_exist() -> None:
    from searchft.cli import VERBS

    for page in PAGES:
        for verb in re.findall(r"^ {4}searchft ([a-z]+)", page.read_text(), re.MULTILINE):
            assert verb in VERBS, f"{page.name} names {verb}"


@pytest.mark.slow
def test_the_python_pages_example_runs(tmp_path: Path, shared_cache: Path) -> None:
    (example,) = code_blocks("docs/python.md", "python")
    (tmp_path / "example.py").write_text(example)
    lines = run_python("example.py", cwd=tmp_path).splitlines()
    assert lines[0].startswith("epoch 1: ") and lines[1].startswith("epoch 2: ")
    assert float(lines[2].split()[0]) == float(lines[3].split()[0]), "Optuna sees the same best value"
    assert lines[4] == "ResNet 40" and "probability" in lines[5]


def test_the_study_opens_with_plain_optuna_as_the_readme_shows(study_copy) -> None:
    snippet = next(block for block in code_blocks("README.md", "python") if "optuna.load_study" in block)
    out = run_python("-c", snippet.replace("quickstart", "faces"), cwd=study_copy.studies.parent)
    assert out.startswith("0.5 {") and "'unfrozen': 'layer4'" in out and "'head_widths': '256'" in out
