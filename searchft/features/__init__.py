"""The frozen part of a network is constant while it trains: find it, compute it once, keep it.

`split_model` finds it, `Prefix` computes it, `FeatureStore` keeps it under `feature_key`, `choose_cut` says whether and
where (`find_candidates`) keeping pays, and the two calibrations measure once how to compute fastest here.
"""

from searchft.features.calibrate import calibrate_prefix, calibrate_suffix, gathered_bytes_per_s, native_bf16, seconds_per_image
from searchft.features.candidates import agrees, find_candidates
from searchft.features.cut import Candidate, Cut, choose_cut, padding_of
from searchft.features.key import feature_key
from searchft.features.padding import meets_small_maps, pad_first
from searchft.features.prefix import MICRO_BATCH, First, Prefix, Rest
from searchft.features.split import Split, Suffix, split_model
from searchft.features.store import FeatureStore

__all__ = [
    "MICRO_BATCH",
    "Candidate",
    "Cut",
    "FeatureStore",
    "First",
    "Prefix",
    "Rest",
    "Split",
    "Suffix",
    "agrees",
    "calibrate_prefix",
    "calibrate_suffix",
    "choose_cut",
    "feature_key",
    "find_candidates",
    "gathered_bytes_per_s",
    "meets_small_maps",
    "native_bf16",
    "pad_first",
    "padding_of",
    "seconds_per_image",
    "split_model",
]
