"""The YAML `search:` section as the search reads it: who suggests, who prunes, how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("none", "median", "percentile", "asha", "hyperband", "patient")


@dataclass(frozen=True)
class SearchSettings:
    """How a space is searched. None of it changes what a configuration scores, except `seed`."""

    sampler: str = "tpe"
    """`tpe`, `random` or `grid`."""
    pruner: str = "median"
    """`none`, `median`, `percentile`, `asha`, `hyperband` or `patient`."""
    trials: int = 40
    """Total of the study: complete, pruned and failed ones; those answered from the record do not count."""
    seed: int = 0
    """Seed of the sampler, and of every recipe that has none of its own."""
    timeout_s: float = 0.0
    """Seconds after which this invocation starts nothing new; 0: no limit. In the YAML: `timeout`."""
    max_retries: int = 2
    """How often a trial whose worker died is taken up again."""
    keep_checkpoints: int = 5
    """How many of the best trials keep their weights on disk."""
    startup_trials: int = 10
    """Random trials before TPE begins to learn."""
    prune_startup_trials: int = 5
    """Finished curves that median and percentile need before they stop anything."""
    prune_warmup_epochs: int = 1
    """Epochs that every trial runs unjudged."""
    prune_percentile: float = 25.0
    """Pruner `percentile`: the share of best trials (in percent) that goes on."""
    prune_patience: int = 5
    """Pruner `patient`: epochs without a better value before a trial stops."""
    reduction_factor: int = 3
    """Pruners `asha` and `hyperband`: one of so many goes on at each rung."""
    min_epochs: int = 1
    """Pruners `asha` and `hyperband`: epochs up to the first rung."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data; `from_json` gives equal settings back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchSettings:
        """The settings that `to_json` wrote."""
        return cls(**data)
