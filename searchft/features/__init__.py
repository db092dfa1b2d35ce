"""The frozen part of a network, found (`split_model`), computed once (`Prefix`), kept under a key (`FeatureStore`)."""

from searchft.features.prefix import MICRO_BATCH, Prefix, feature_key
from searchft.features.split import Split, Suffix, split_model
from searchft.features.store import FeatureStore

__all__ = ["MICRO_BATCH", "FeatureStore", "Prefix", "Split", "Suffix", "feature_key", "split_model"]
