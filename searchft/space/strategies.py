"""Strategies: the literature's names for sets of recipe values. A macro, not a mechanism: they only fill values in.

Sources: BitFit's bias training (Ben Zaken et al. 2022, arXiv:2106.10199), training only BatchNorm (Frankle et al. 2021,
arXiv:2003.00152), TinyTL's lite residual adapters beside biases (Cai et al. 2020, arXiv:2007.11622).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

STRATEGIES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "head": {"unfrozen": "head", "adapters": "none"},
        "full": {"unfrozen": "all", "parameters": "all", "adapters": "none"},
        "partial": {"parameters": "all", "adapters": "none"},
        "scratch": {"unfrozen": "all", "parameters": "all", "adapters": "none", "weights": "none", "weights_fallback": ""},
        "bias": {"unfrozen": "all", "parameters": "bias", "adapters": "none"},
        "norm": {"unfrozen": "all", "parameters": "norm", "adapters": "none"},
        "tinytl": {"unfrozen": "all", "parameters": "bias", "adapters": "lite_residual"},
    }
)
"""Strategy to the values it sets. What a row does not name stays with the space: `norm` for `bias`, for instance, and for
`partial` how far to open, which the space's own `unfrozen` says."""

SAME_QUESTION: Mapping[str, tuple[str, ...]] = MappingProxyType({"unfrozen": ("unfrozen", "stages", "unfrozen_tensors")})
"""Recipe values that say the same as one a strategy sets, in other words."""


def conflicts(given: Mapping[str, tuple[Any, ...]]) -> list[tuple[str, str]]:
    """(key, rule) of each value of `given` (choices per recipe key, `strategy` among them) that a strategy overrides.

    Weights beside `scratch` are a conflict only where every choice is `scratch`: elsewhere they are the others' weights. So
    is `unfrozen` only where no choice is `partial`.
    """
    found: dict[str, str] = {}
    strategies = given.get("strategy", ())
    for strategy in strategies:
        for field, value in STRATEGIES[strategy].items():
            if field in ("weights", "weights_fallback") and strategies != (strategy,):
                continue
            if field == "unfrozen" and "partial" in strategies:
                continue
            for key in SAME_QUESTION.get(field, (field,)):
                if key in given and (key != field or given[key] != (value,)) and key not in found:
                    sets = f"sets {field} to {value}" if value != "" else f"needs no {field}"
                    found[key] = f"must not stand beside strategy {strategy}, which {sets}: remove one of the two"
    return list(found.items())
