"""The frozen part of a network is constant while it trains: find it, compute it once, keep it.

`split_model` finds it, `Prefix` computes it, `FeatureStore` keeps it under `feature_key`, `choose_keeping` says where.
"""

from searchft.features.keeping import Keeping, choose_keeping
from searchft.features.key import feature_key
from searchft.features.padding import pad_first
from searchft.features.prefix import MICRO_BATCH, Prefix
from searchft.features.split import Split, Suffix, split_model
from searchft.features.store import FeatureStore

__all__ = [
    "MICRO_BATCH",
    "FeatureStore",
    "Keeping",
    "Prefix",
    "Split",
    "Suffix",
    "choose_keeping",
    "feature_key",
    "pad_first",
    "split_model",
]
