"""What `bin/test --floors` installs is the lowest that setup.cfg allows."""

from __future__ import annotations

import configparser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def test_every_floor_of_setup_cfg_stands_once_in_floors_txt() -> None:
    """The extra `dev`, the tests' and linters' own packages, apart: no user installs it."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    groups = [setup["options"]["install_requires"], *(v for k, v in setup["options.extras_require"].items() if k != "dev")]
    asked = sorted(
        (requirement.name.lower(), Version(bound.version))
        for requirement in (Requirement(line) for group in groups for line in group.split("\n") if line)
        for bound in requirement.specifier
        if bound.operator == ">="
    )
    lines = (ROOT / "tests" / "floors.txt").read_text().splitlines()
    floors = [line.split("==") for line in lines if not line.startswith("#")]
    assert sorted((name.lower(), Version(version)) for name, version in floors) == asked
