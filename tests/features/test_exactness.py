"""In fp32 on a CPU a fine-tuning from stored values and one without a store agree in every bit, on real architectures."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from searchft.features import FeatureStore, Prefix, Split, split_model
from searchft.recipe import Numerics

IMAGES, BATCH = 70, 6

DEFAULT = {32: "torchvision/resnet18 torchvision/mobilenet_v3_small", 64: "timm/test_efficientnet", 160: "timm/test_vit"}
WIDE = {
    32: "torchvision/densenet121 torchvision/mobilenet_v2 torchvision/efficientnet_b0 torchvision/googlenet torchvision/vgg11_bn "
    "torchvision/squeezenet1_1 torchvision/shufflenet_v2_x0_5 torchvision/regnet_y_400mf torchvision/convnext_tiny "
    "torchvision/swin_t timm/convnext_atto timm/seresnet18",
    56: "timm/swin_tiny_patch4_window7_224",
    64: "timm/vit_tiny_patch16_224 timm/mixer_s32_224 timm/legacy_seresnet18 timm/nf_regnet_b0 timm/tf_efficientnet_lite0",
    80: "torchvision/inception_v3",
    224: "timm/levit_128s",
}
"""Side in pixels: networks."""
SIZED = ("vit_tiny", "mixer", "swin")


def build(name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    library, _, variant = name.partition("/")
    if library == "timm":
        more = {"img_size": size} if variant.startswith(SIZED) else {}
        model = timm.create_model(variant, num_classes=4, drop_rate=0.1, **more)
    else:
        more = {"aux_logits": False, "init_weights": True} if variant in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(variant, weights=None, num_classes=4, **more)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    return model


class Opened:
    """A model that trains its last parameters, from `depth` (0: all, 1: only the last two tensors) on."""

    def __init__(self, model: nn.Module, depth: float, size: int) -> None:
        self.model = model
        named = list(model.named_parameters())
        first = min(int(depth * len(named)), len(named) - 2)
        for i, (_, parameter) in enumerate(named):
            parameter.requires_grad_(i >= first)
        self.trained = {name.rpartition(".")[0] for name, _ in named[first:]}
        example = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))
        self.split: Split = split_model(model, self.set_modes, example)
        assert self.split.prefix is not None, self.split.reason or "these depths leave something frozen"
        self.prefix = Prefix(self.split.prefix, Numerics(), "cpu")

    def set_modes(self, training: bool) -> None:
        for name, module in self.model.named_modules():
            is_head_dropout = isinstance(module, nn.Dropout) and name.startswith(("classifier", "head", "dropout"))
            module.training = training and (name in self.trained or is_head_dropout)

    def fit(self, read: object, labels: Tensor) -> list[Tensor]:
        optimizer = torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], 0.01, momentum=0.9)
        losses = []
        for step in range(2):
            torch.manual_seed(step)
            chosen = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(step))[:BATCH]
            self.split.suffix.select(True)
            loss = F.cross_entropy(self.split.suffix(*read(chosen)), labels[chosen])  # type: ignore[operator]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return losses


CASES = [
    *((size, name, depth) for size, names in DEFAULT.items() for name in names.split() for depth in (0.6, 1.0)),
    *(
        pytest.param(size, name, depth, marks=pytest.mark.slow)
        for size, names in WIDE.items()
        for name in names.split()
        for depth in (0.35, 0.7, 1.0)
    ),
]


@pytest.mark.parametrize(("size", "name", "depth"), CASES)
def test_the_store_changes_no_bit(size: int, name: str, depth: float, tmp_path: Path) -> None:
    model = build(name, size)
    images = torch.randn(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(IMAGES) % 4
    plain, stored = Opened(copy.deepcopy(model), depth, size), Opened(model, depth, size)
    values = FeatureStore(tmp_path, 10**10).values("00", IMAGES, lambda a, b: stored.prefix(images[a:b]))
    assert values is not None

    def from_store(chosen: Tensor) -> list[Tensor]:
        return [v.index_select(0, chosen) for v in values]

    def through_prefix(chosen: Tensor) -> tuple[Tensor, ...]:
        return plain.prefix(images[chosen])

    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    assert all(map(torch.equal, stored.fit(from_store, labels), plain.fit(through_prefix, labels)))
    for (key, a), b in zip(stored.model.state_dict().items(), plain.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    assert all(torch.equal(frozen[n], p) for n, p in model.named_parameters() if n in frozen)
    chosen = torch.tensor([0, IMAGES - 1, 5])
    for opened in (stored, plain):
        opened.split.suffix.select(False)
    with torch.no_grad():
        assert torch.equal(stored.split.suffix(*from_store(chosen)), plain.split.suffix(*through_prefix(chosen)))
