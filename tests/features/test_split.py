"""A network split at random places computes what the whole one does, to the last bit, in both modes."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from searchft.features.split import Split, split_model


def modes_of(model: nn.Module, opened: set[str]) -> Callable[[bool], None]:
    def set_modes(training: bool) -> None:
        for name, module in model.named_modules():
            module.training = training and name in opened

    return set_modes


def split_open(model: nn.Module, opened: tuple[str, ...], modes: set[str], side: int, leaves: tuple[str, ...] = ()) -> Split:
    """A split in which parameters whose names start as in `opened` train, and modules named in `modes` follow train mode."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(opened))
    return split_model(model, modes_of(model, modes), torch.randn(2, 3, side, side), leaves)


class Small(nn.Module):
    """Residuals, concatenation, chunks, in-place activations of all kinds, BatchNorm, dropout, a frozen constant."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.bn0 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(8, 8, 3, 1, 1)
        self.bn1 = nn.BatchNorm2d(8)
        self.drop1 = nn.Dropout(0.3, inplace=True)
        self.conv2 = nn.Conv2d(8, 4, 1)
        self.conv3 = nn.Conv2d(12, 16, 3, 2, 1)
        self.bn3 = nn.BatchNorm2d(16)
        self.act3 = nn.Hardswish(inplace=True)
        self.position = nn.Parameter(torch.randn(1, 16, 1, 1))
        self.se1 = nn.Conv2d(16, 4, 1)
        self.se2 = nn.Conv2d(4, 16, 1)
        self.norm = nn.LayerNorm(16)
        self.drop2 = nn.Dropout(0.5)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn0(self.stem(x)))
        y = self.drop1(self.bn1(self.conv1(x)))
        y += x
        y = self.relu(y)
        z = F.relu(self.conv2(y), True)
        x = torch.cat([y, z], dim=1)
        x = self.act3(self.bn3(self.conv3(x)))
        x = x + self.position.reshape(1, -1, 1, 1)
        gate = torch.sigmoid(self.se2(self.relu(self.se1(x.mean((2, 3), keepdim=True)))))
        x = x * gate
        x.mul_(0.5)
        first, second = x.chunk(2, dim=1)
        x = torch.cat([second, first], 1)
        batch, channels, height, width = x.shape
        x = x.view(batch, channels, height * width).transpose(1, 2)
        x = self.drop2(self.norm(x)).relu_()
        return self.head(F.dropout(x.mean(1), 0.2, self.training))


def opened_at_random(model: nn.Module, chance: random.Random) -> set[str]:
    """Freezes at random; gives the names of the modules that follow train and eval mode."""
    names = [name for name, _ in model.named_parameters()]
    start = chance.randrange(len(names))
    stop = start + chance.randrange(1, 5)
    some = chance.choice(
        [
            names[start:],
            [name for name in names if name.startswith(("bn", "norm"))],
            names[start:stop],
            [name for name in names if name.endswith("bias")],
            [name for name in names if chance.random() < 0.3],
        ]
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head") or name in some)
    trained = {name.rpartition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    undecided = [name for name in sorted(trained) if name.startswith("bn")] + ["drop1", "drop2", ""]
    return {name for name in trained if not name.startswith("bn")} | {name for name in undecided if chance.random() < 0.5}


def run(split: Split, images: Tensor, training: bool) -> Tensor:
    split.suffix.select(training)
    if split.prefix is None:
        return split.suffix(images)
    with torch.no_grad():
        values = split.prefix(images)
    kept = [v.clone() for v in values]
    logits = split.suffix(*values)
    assert all(map(torch.equal, kept, values)), "a crossing value was overwritten"
    return logits


def lively(model: nn.Module) -> nn.Module:
    """Running statistics and affine values that are not the trivial ones."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("seed", range(50))
def test_any_freezing_splits_and_agrees_bit_for_bit(seed: int) -> None:
    torch.manual_seed(seed)
    whole = lively(Small())
    opened = opened_at_random(whole, random.Random(seed))
    apart = copy.deepcopy(whole)
    split = split_model(apart, modes_of(apart, opened), torch.randn(2, 3, 12, 12))
    assert split.reason == ""
    set_modes = modes_of(whole, opened)

    optimizers = [torch.optim.SGD([p for p in m.parameters() if p.requires_grad], 0.1, momentum=0.9) for m in (whole, apart)]
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    for step in range(2):
        images = torch.randn(7, 3, 12, 12)
        set_modes(True)
        losses = []
        for forward, optimizer in ((whole, optimizers[0]), (lambda x: run(split, x, True), optimizers[1])):
            torch.manual_seed(step)
            logits = forward(images)
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(logits.detach())
        assert torch.equal(*losses)
    for (name, a), b in zip(whole.state_dict().items(), apart.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    set_modes(False)
    with torch.no_grad():
        assert torch.equal(whole(images), run(split, images, False))


def test_splitting_changes_neither_state_nor_the_random_generator() -> None:
    model = lively(Small()).requires_grad_(False)
    model.head.requires_grad_(True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = set(vars(model))
    random_state = torch.get_rng_state()
    split = split_model(model, modes_of(model, {"drop1", "bn3", "head"}), torch.zeros(2, 3, 12, 12))
    assert split.prefix is not None
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert attributes == set(vars(model))
    assert not any(module.training for module in model.modules())


class Caches(nn.Module):
    """Keeps, in evaluation mode, what it made of a parameter: as LeViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bias, self.head = nn.Conv2d(3, 4, 1), nn.Parameter(torch.ones(4)), nn.Linear(4, 2)
        self.cache: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3))
        device = str(x.device)
        if device not in self.cache:
            self.cache[device] = self.bias * 2
        return self.head(x + self.cache[device])


def test_what_a_module_caches_is_not_baked_into_the_split() -> None:
    model = Caches()
    split = split_open(model, ("bias", "head"), {"", "head"}, 4)
    assert split.reason == ""
    assert model.cache == {}
    images = torch.randn(3, 3, 4, 4)
    before = run(split, images, False)
    with torch.no_grad():
        model.bias.add_(1.0)
    after = run(split, images, False)
    assert not torch.equal(before, after)
    model.cache.clear()
    assert torch.equal(after, model(images))


def test_a_named_leaf_can_be_replaced_after_the_split() -> None:
    model = Small()
    model.head = nn.Sequential(nn.Linear(16, 5))
    split = split_open(model, ("head",), {"head"}, 12, leaves=("head",))
    assert split.prefix is not None
    head = nn.Sequential(nn.Linear(16, 7), nn.ReLU(), nn.Dropout(0.5), nn.Linear(7, 2))
    for module in (model, *split.suffix.graphs):
        module.head = head
    images = torch.randn(4, 3, 12, 12)
    logits = run(split, images, False)
    assert logits.shape == (4, 2)
    assert torch.equal(logits, model(images))


def test_dropout_before_the_head_is_not_stored_twice() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(6, 2))
    split = split_open(model, ("4",), {"3", "4"}, 2)
    assert split.crossing == ("2",)
    assert split.shapes == ((6,),)
    assert split.bytes_per_image() == 24
    assert split.bytes_per_image(torch.bfloat16) == 12


def test_batchnorm_without_statistics_looks_at_the_batch_and_is_never_frozen() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.Linear(16, 2))
    assert split_open(model, ("3",), {"3"}, 2).crossing == ("0",)


class Between(nn.Module):
    """A convolution and a head, with something between them."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.head, self.between = nn.Conv2d(3, 4, 1), nn.Linear(4, 2), between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.conv(x)).mean((2, 3)))


def overwrite(x: Tensor) -> Tensor:
    """Changes a base through a view and gives the base: a copy of the view would lose the change."""
    x.narrow(1, 0, 2).mul_(3.0)
    return x


@pytest.mark.parametrize(
    ("between", "crossing", "reason"),
    [
        pytest.param(lambda x: x - x.mean(0, keepdim=True), ("conv",), "", id="a value that mixes images is computed again"),
        pytest.param(lambda x: x * 2 if x.mean() > 0 else x, (), "cannot be traced", id="control flow on data"),
        pytest.param(overwrite, (), "other values", id="a change through a view is noticed"),
    ],
)
def test_what_cannot_cross_or_be_split(between: Callable[[Tensor], Tensor], crossing: tuple[str, ...], reason: str) -> None:
    model = Between(between)
    split = split_open(model, ("head",), {"head"}, 4)
    assert split.crossing == crossing and (split.prefix is None) == (not crossing)
    assert reason in split.reason and "\n" not in split.reason
    images = torch.randn(5, 3, 4, 4)
    for training in (False, True):
        assert torch.equal(run(split, images, training), model(images))


class BatchInside(nn.Module):
    """Windows go into the batch dimension, and the sizes are needed behind the cut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        count, channels, height, width = x.shape
        windows = x.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1)
        windows = self.mix(windows.reshape(-1, 4, channels))
        x = windows.reshape(count, -1, channels)
        return self.head(x.mean(1)) + x.new_zeros(count, 2)


def test_windows_in_the_batch_dimension_do_not_cross() -> None:
    model = BatchInside()
    split = split_open(model, ("mix",), {"mix", "head"}, 4)
    assert split.prefix is not None
    assert all(shape[0] == 4 or len(shape) > 1 for shape in split.shapes)
    for count in (1, 2, 5):
        images = torch.randn(count, 3, 4, 4)
        assert torch.equal(run(split, images, True), model(images))


def test_everything_open_has_no_prefix_and_the_models_own_error_is_the_callers() -> None:
    split = split_model(Small(), lambda training: None, torch.randn(2, 3, 12, 12))
    assert split.prefix is None and split.reason == ""
    with pytest.raises(RuntimeError):
        split_model(nn.Conv2d(5, 3, 1), lambda training: None, torch.randn(2, 3, 4, 4))
    with pytest.raises(ValueError, match="2,3,H,W"):
        split_model(Small(), lambda training: None, torch.randn(1, 3, 12, 12))


def test_equal_cuts_have_equal_digests_and_edits_change_them() -> None:
    def digest(stride: int, opened: tuple[str, ...]) -> str:
        model = Small()
        model.stem.stride = (stride, stride)
        return split_open(model, opened, {"head"}, 12).digest

    assert digest(2, ("conv3", "head")) == digest(2, ("conv3", "bn3", "se1", "head"))
    assert digest(2, ("conv3", "head")) != digest(1, ("conv3", "head"))
    assert digest(2, ("conv3", "head")) != digest(2, ("norm", "head"))
