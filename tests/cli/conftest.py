"""Calling the command line as `main` does, within this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from searchft.cli import call


@dataclass
class Result:
    """What a call left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout; fails if there is anything else."""
        answer = json.loads(self.out)
        assert isinstance(answer, dict) and self.out.count("\n") == 1
        return answer


@pytest.fixture
def searchft(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`searchft("show", "faces", "--json")`."""

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        code = call([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run
