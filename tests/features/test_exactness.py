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

DEFAULT = [
    ("torchvision/resnet18", 32),
    ("timm/test_efficientnet", 64),
    ("timm/test_vit", 160),
    ("torchvision/mobilenet_v3_small", 32),
]
WIDE = [
    ("torchvision/densenet121", 32),
    ("torchvision/mobilenet_v2", 32),
    ("torchvision/efficientnet_b0", 32),
    ("torchvision/googlenet", 32),
    ("torchvision/inception_v3", 80),
    ("torchvision/vgg11_bn", 32),
    ("torchvision/squeezenet1_1", 32),
    ("torchvision/shufflenet_v2_x0_5", 32),
    ("torchvision/regnet_y_400mf", 32),
    ("torchvision/convnext_tiny", 32),
    ("torchvision/swin_t", 32),
    ("timm/convnext_atto", 32),
    ("timm/vit_tiny_patch16_224", 64),
    ("timm/mixer_s32_224", 64),
    ("timm/swin_tiny_patch4_window7_224", 56),
    ("timm/seresnet18", 32),
    ("timm/legacy_seresnet18", 64),
    ("timm/nf_regnet_b0", 64),
    ("timm/levit_128s", 224),
    ("timm/tf_efficientnet_lite0", 64),
]
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
        self.prefix = None if self.split.prefix is None else Prefix(self.split.prefix, Numerics(), "cpu")

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


def agree(name: str, size: int, depth: float, tmp_path: Path) -> None:
    model = build(name, size)
    images = torch.randn(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(IMAGES) % 4
    plain, stored = Opened(copy.deepcopy(model), depth, size), Opened(model, depth, size)
    assert stored.split.reason == ""
    assert stored.prefix is not None, "these depths leave something frozen"
    prefix, plain_prefix = stored.prefix, plain.prefix
    assert plain_prefix is not None
    values = FeatureStore(tmp_path, 10**10).values("00", IMAGES, lambda a, b: prefix(images[a:b]))
    assert values is not None

    def from_store(chosen: Tensor) -> list[Tensor]:
        return [v.index_select(0, chosen) for v in values]

    def through_prefix(chosen: Tensor) -> tuple[Tensor, ...]:
        return plain_prefix(images[chosen])

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


@pytest.mark.parametrize(("name", "size"), DEFAULT)
@pytest.mark.parametrize("depth", [0.6, 1.0])
def test_store_changes_no_bit(name: str, size: int, depth: float, tmp_path: Path) -> None:
    agree(name, size, depth, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), WIDE)
@pytest.mark.parametrize("depth", [0.35, 0.7, 1.0])
def test_store_changes_no_bit_on_any_architecture(name: str, size: int, depth: float, tmp_path: Path) -> None:
    agree(name, size, depth, tmp_path)
