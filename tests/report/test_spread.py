"""Seeds of a row stand together, with their range; what began at random values says so."""

from __future__ import annotations

from searchft.recipe import DataFacts, Recipe, SpaceFacts
from searchft.report.spread import markdown, spread_rows
from searchft.search.records import TrialRecord


def test_a_rows_seeds_are_one_line_with_their_range() -> None:
    from dataclasses import replace

    from searchft.models import describe_backbone

    recipe = Recipe("searchft/convnet3", weights="none", epochs=4)
    facts = SpaceFacts(DataFacts("x", "f", ("a",), ()), {recipe.architecture(): describe_backbone(recipe, 0)})

    def trial(number: int, name: str, seed: int, value: float, state: str = "complete") -> TrialRecord:
        extra = {"train_accuracy": 1.0, "trained_parameters": 70}
        return TrialRecord(
            number, name, state, {}, replace(recipe, seed=seed), str(number), value, (0.1, value - 0.1), extra=extra
        )

    records = [
        trial(0, "A, seed 2", 2, 0.9),
        trial(1, "A, seed 0", 0, 0.6),
        trial(2, "B, seed 0", 0, 0.5),
        trial(3, "A, seed 1", 1, 0.1, state="pruned"),
        trial(4, "", 0, 0.99),
    ]
    rows = spread_rows(records, facts)
    assert [(row.name, row.values) for row in rows] == [("A", (0.6, 0.9)), ("B", (0.5,))]
    assert rows[0].on_random_weights and rows[0].mean == 0.75
    first, second = markdown(rows).splitlines()[2:]
    assert "| 2 | 0.750 (0.600–0.900) | 0.650 (0.500–0.800) | 1.000 (1.000–1.000) |" in first and "random" in first
    assert "| 1 | 0.500 | 0.400 | 1.000 |" in second
