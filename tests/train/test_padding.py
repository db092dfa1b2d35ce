"""Zeros put before a depthwise convolution instead of inside it: the same values, the same gradients, nothing left behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from searchft.train.network import pad_first


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False),
        nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=8, stride=2),
        nn.Conv2d(8, 4, 3, padding=1),
    )


@pytest.mark.parametrize("side", [2, 3, 4, 9])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_the_convolution(side: int, layout: torch.memory_format) -> None:
    images = torch.randn(6, 3, side, side).contiguous(memory_format=layout)
    plain = network().to(memory_format=layout)
    padded = copy.deepcopy(plain)
    pad_first(padded)
    for model in (plain, padded):
        model(images).square().sum().backward()
    assert torch.allclose(plain(images), padded(images), rtol=1e-5, atol=1e-6)
    for (name, expected), (_, got) in zip(plain.named_parameters(), padded.named_parameters(), strict=True):
        assert expected.grad is not None and got.grad is not None
        assert torch.allclose(expected.grad, got.grad, rtol=1e-4, atol=1e-4), name


def test_evaluation_runs_the_network_as_it_is() -> None:
    images = torch.randn(5, 3, 3, 3)
    model = network()
    with torch.no_grad():
        before = model(images)
        pad_first(model)
        assert torch.equal(model(images), before)
    assert list(model.state_dict()) == list(network().state_dict())


def test_only_depthwise_convolutions_that_train_are_touched() -> None:
    model = network()
    model[2].requires_grad_(False)
    pad_first(model)
    assert [i for i, module in enumerate(model) if "forward" in vars(module)] == [1]
