"""The frozen part gives an image one value whatever it is computed with; the fast ways stay near and touch nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from searchft.features import MICRO_BATCH, Prefix, split_model
from searchft.features.prefix import fold_batch_norms
from searchft.recipe import Numerics


class Network(nn.Module):
    """Ends in 320 → 1280 on small maps, where values are known to depend on the batch they are computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 320, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(320)
        self.wide = nn.Conv2d(320, 1280, 1)
        self.linear = nn.Linear(1280, 64)
        self.head = nn.Linear(64, 5)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(torch.relu(self.norm(self.first(x))))
        return self.head(torch.relu(self.linear(x.mean((2, 3)))))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return Network()


def prefix_of(model: nn.Module) -> nn.Module:
    """The frozen part where only the head trains."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    split = split_model(model.eval(), lambda training: None, torch.randn(2, 3, 6, 6))
    assert split.prefix is not None
    return split.prefix


@pytest.mark.parametrize("numerics", [Numerics(), Numerics(channels_last=True, fold=True), Numerics(frozen_dtype="bfloat16")])
def test_an_image_has_one_value_in_every_batch(network: nn.Module, numerics: Numerics) -> None:
    prefix = Prefix(prefix_of(network), numerics, "cpu")
    images = torch.randn(MICRO_BATCH + 23, 3, 6, 6)
    (whole,) = prefix(images)
    for chosen in ([3], [70, 1, 5], list(range(40, 87)), list(range(86, -1, -1))):
        (some,) = prefix(images[chosen])
        assert torch.equal(some, whole[chosen])


def test_fast_ways_stay_near_and_touch_nothing(network: nn.Module) -> None:
    before = copy.deepcopy(network.state_dict())
    formats = [p.stride() for p in network.parameters()]
    part = prefix_of(network)
    images = torch.randn(5, 3, 6, 6)
    (exact,) = Prefix(part, Numerics(), "cpu")(images)
    (fast,) = Prefix(part, Numerics(channels_last=True, fold=True), "cpu")(images)
    (coarse,) = Prefix(part, Numerics("bfloat16", "float32", True, True), "cpu")(images)
    assert torch.allclose(exact, fast, rtol=1e-4, atol=1e-5)
    assert coarse.dtype == torch.bfloat16
    assert torch.allclose(exact, coarse.float(), rtol=0.1, atol=0.05)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert formats == [p.stride() for p in network.parameters()]
    assert fold_batch_norms(copy.deepcopy(part)) == 1


def test_a_convolution_that_is_read_twice_is_not_folded() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.head((y * self.norm(y)).mean((2, 3)))

    assert fold_batch_norms(copy.deepcopy(prefix_of(Both()))) == 0


def test_a_network_that_insists_on_float32_runs_in_bfloat16_all_the_same() -> None:
    class Insists(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.mix, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.mix(self.conv(x).mean((2, 3)).float()))

    part = prefix_of(Insists())
    images = torch.randn(3, 3, 6, 6)
    (exact,) = Prefix(part, Numerics(), "cpu")(images)
    (coarse,) = Prefix(part, Numerics(frozen_dtype="bfloat16"), "cpu")(images)
    assert coarse.dtype == torch.bfloat16
    assert torch.allclose(exact, coarse.float(), atol=0.05)
