"""`python:FILE.py:NAME`: networks that a user wrote. Their file is run only where the user said so with --allow-code.

A space is data: reading one must never run code. The permission is therefore an environment variable, which the processes that this
one starts inherit; on other machines it is set by hand.

NAME is called with the number of classes and returns an nn.Module: images [N, 3, H, W] to logits [N, C]. Its last
nn.Linear is the head; each other child with parameters is a stage, in order, the first one called `stem`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import traceback
from pathlib import Path

from torch import nn

from searchft.errors import InputError, Problem

PERMISSION = "SEARCHFT_ALLOW_CODE"
"""The environment variable: the folder of the space file; unset or empty: no code is run."""


def permit(folder: Path) -> None:
    """Allows this process, and those it starts, to run the networks' files that a space in `folder` names."""
    os.environ[PERMISSION] = str(Path(folder).absolute())


def parts_of(text: str) -> tuple[Path, str]:
    """FILE (absolute) and NAME of `python:FILE.py:NAME`. Raises InputError without permission or for another form."""
    file, _, name = text.removeprefix("python:").rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise _refusal(f"must be python:FILE.py:NAME but got {text!r}")
    if not os.environ.get(PERMISSION):
        raise _refusal(f"must not be code unless you allow it but got {text!r}: read {file}, then say --allow-code")
    path = Path(os.environ[PERMISSION]) / Path(file).expanduser()
    if not path.is_file():
        raise _refusal(f"must name a Python file that exists but {path} does not")
    return path, name


def digest_of(text: str) -> str:
    """12 hex digits of the file's content: another text is another network. Raises as `parts_of`."""
    return hashlib.sha256(parts_of(text)[0].read_bytes()).hexdigest()[:12]


def build_own(text: str, num_classes: int) -> nn.Module:
    """Runs the file and calls NAME. Raises InputError naming the file, line and cause of whatever goes wrong there."""
    path, name = parts_of(text)
    spec = importlib.util.spec_from_file_location(f"searchft_user_{digest_of(text)}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        factory = getattr(module, name, None)
        if not callable(factory):
            raise _refusal(f"must name a class or function of {path} but it has no {name!r}")
        model = factory(num_classes)
    except InputError:
        raise
    except Exception as error:  # whatever the user's code raises
        inside = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f", line {inside[-1]}" if inside else ""
        raise _refusal(f"must build a network but {path}{line}: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise _refusal(f"must give an nn.Module but {name} of {path} gives {type(model).__name__}")
    return model


def _refusal(rule: str) -> InputError:
    return InputError(Problem("", "recipe.backbone", rule))
