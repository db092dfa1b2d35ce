"""The frozen part of a network is constant while it trains: find it (`split_model`), compute it once (`Prefix`), keep it
(`FeatureStore`, under `feature_key`).
"""

from searchft.features.prefix import MICRO_BATCH, Prefix, feature_key
from searchft.features.split import Split, Suffix, split_model
from searchft.features.store import FeatureStore

__all__ = ["MICRO_BATCH", "FeatureStore", "Prefix", "Split", "Suffix", "feature_key", "split_model"]
