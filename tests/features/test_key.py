"""Equal values have equal keys, other values other ones."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from searchft.features import feature_key
from searchft.recipe import BackboneFacts, Numerics
from tests import invented

BACKBONE = invented.backbone()


def key(backbone: BackboneFacts = BACKBONE, values: str = "abc", numerics: Numerics | None = None, **more: object) -> str:
    arguments = {"data_fingerprint": "data", "images": "train", "device": "cpu"} | more
    return feature_key(backbone, values, numerics=numerics or Numerics(), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [
        {"backbone": dataclasses.replace(BACKBONE, weights_sha256="random:1")},
        {"backbone": dataclasses.replace(BACKBONE, mean=(0.4, 0.5, 0.5))},
        {"values": "abd"},
        {"numerics": Numerics(frozen_dtype="bfloat16")},
        {"numerics": Numerics(fold=True)},
        {"data_fingerprint": "other"},
        {"images": "val"},
        {"view": 1},
        {"image_size": 64},
        {"augmentation": "rotation=10"},
        {"device": "cuda:0"},
    ],
)
def test_what_determines_the_values_changes_the_key(other: dict[str, object]) -> None:
    assert key(**other) != key()  # type: ignore[arg-type]


def test_what_does_not_determine_them_does_not() -> None:
    assert key(device="cuda:0") == key(device="cuda:1")
    assert key(backbone=dataclasses.replace(BACKBONE, weights_source="elsewhere", notes=("read me",))) == key()
    assert key(numerics=Numerics(trainable_dtype="bfloat16", fold=True)) == key(numerics=Numerics(fold=True))
    assert len(key()) == 32


def test_threads_count_only_where_every_bit_does() -> None:
    fast = Numerics(fold=True)
    before = key(), key(numerics=fast)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert key() != before[0]
        assert key(numerics=fast) == before[1]
    finally:
        torch.set_num_threads(threads)
