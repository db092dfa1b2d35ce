"""Under which key frozen values are stored: a digest of everything that determines them, and of nothing else.

The opening is not part of it: openings whose cut lies at the same place share their values. What is computed is
`Split.digest` (operations, module settings, and so every edit); with which weights, on which images and with which
numerics comes from the trial.
"""

from __future__ import annotations

import timm
import torch
import torchvision

from searchft.cache import FORMAT
from searchft.features.prefix import MICRO_BATCH
from searchft.recipe import BackboneFacts, Numerics, digest

FEATURES_VERSION = 1
"""Raised whenever a change of ours makes the prefix compute other values."""


def feature_key(
    backbone: BackboneFacts,
    values: str,
    data_fingerprint: str,
    images: str,
    numerics: Numerics,
    device: str | torch.device,
    view: int = 0,
    image_size: int = 0,
    augmentation: str = "",
) -> str:
    """32 hex digits. `values` is the digest of what is kept (`Split.digest`); `images` names the data split; `view` and `augmentation`
    (its settings and seed) one fixed view.

    In exact fp32 the number of threads counts too: it changes the order of summation. Otherwise values made with other
    threads are welcome.
    """
    exact = numerics == Numerics()
    return digest(
        {
            "features": FEATURES_VERSION,
            "store": FORMAT,
            "micro_batch": MICRO_BATCH,
            "versions": [torch.__version__, torchvision.__version__, timm.__version__],
            "backbone": backbone.backbone,
            "weights": backbone.weights_sha256,
            "normalisation": [backbone.mean, backbone.std],
            "split": values,
            "data": [data_fingerprint, images, image_size, view, augmentation],
            "numerics": [numerics.frozen_dtype, numerics.channels_last, numerics.fold],
            "device": torch.device(device).type,
            "processor": [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()] if exact else [],
        }
    )[:32]
