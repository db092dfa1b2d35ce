"""The frozen part of a network is constant while it trains: find it, compute it once, keep it.

`split_model` finds it, `Prefix` computes it, `FeatureStore` keeps it under `feature_key`, `choose_cut` says whether
keeping pays, and the two calibrations measure once how to compute fastest here.
"""

from searchft.features.calibrate import calibrate_prefix, calibrate_suffix, native_bf16, seconds_per_image
from searchft.features.cut import Cut, choose_cut
from searchft.features.key import feature_key
from searchft.features.prefix import MICRO_BATCH, Prefix
from searchft.features.split import Split, Suffix, split_model
from searchft.features.store import FeatureStore

__all__ = [
    "MICRO_BATCH",
    "Cut",
    "FeatureStore",
    "Prefix",
    "Split",
    "Suffix",
    "calibrate_prefix",
    "calibrate_suffix",
    "choose_cut",
    "feature_key",
    "native_bf16",
    "seconds_per_image",
    "split_model",
]
