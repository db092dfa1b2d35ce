"""What the command line keeps in a study beside its trials: test accuracies, each in a study attribute of its own.

The driver alone writes trials. A test score is no part of the search (nothing may be chosen by it), is written after the
fact by `export`, and goes where optuna-dashboard shows it. One attribute per trial, so that two exports never overwrite
each other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from searchft.search.ledger import Ledger

_PREFIX = "test_accuracy."


def save_test_score(ledger: Ledger, number: int, score: Mapping[str, Any]) -> None:
    """Keeps the test score of trial `number`: `accuracy`, `interval_95`, `n`."""
    kept = {name: score[name] for name in ("accuracy", "interval_95", "n")}
    ledger._set_study_attribute(f"{_PREFIX}{number:04d}", kept)


def test_scores(ledger: Ledger) -> dict[int, dict[str, Any]]:
    """What `save_test_score` kept, by trial number."""
    found = {}
    for name, value in ledger._attributes().items():
        number = name.removeprefix(_PREFIX)
        if name.startswith(_PREFIX) and number.isdigit():
            found[int(number)] = dict(value)
    return found


def delete_study(ledger: Ledger) -> None:
    """Deletes the study with all its trials from its database."""
    import optuna

    ledger._do(lambda: optuna.delete_study(study_name=ledger.name, storage=ledger._storage))
