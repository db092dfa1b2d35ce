"""A frozen part divided anywhere gives the values of the undivided one, bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, fx, nn

from searchft.features import First, Prefix, Rest, agrees, find_candidates, split_model
from searchft.features.candidates import _rows
from searchft.features.divide import positions
from searchft.recipe import Numerics

FAST = Numerics("bfloat16", "bfloat16", channels_last=True, fold=True)


class Branched(nn.Module):
    """Branches, in-place activations, sizes, a position embedding, a wide place and a value that is needed late."""

    def __init__(self, insists: bool = False) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.wide, self.narrow = nn.Conv2d(8, 48, 1), nn.Conv2d(48, 8, 3, padding=1)
        self.side = nn.Conv2d(8, 16, 1)
        self.act = nn.ReLU(inplace=True)
        self.embedding = nn.Parameter(torch.randn(1, 64, 16))
        self.mix, self.last, self.head = nn.Linear(16, 16), nn.Linear(16, 24), nn.Linear(24, 3)
        self.insists = insists
        self.norm.running_mean.normal_()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(x)))
        x = x + self.narrow(self.act(self.wide(x)))
        y = self.side(x)
        rows, channels = y.shape[0], y.shape[1]
        y = y.flatten(2).transpose(1, 2) + self.embedding * 2
        y = self.mix(y).reshape(rows, -1, channels)
        y = torch.cat([y, x.mean((2, 3)).reshape(rows, 1, 8).repeat(1, 1, 2)], 1)
        y = self.last(y.float() if self.insists else y)
        return self.head(torch.relu(y).mean(1))


def prefix_of(model: nn.Module, size: int = 16, opened: tuple[str, ...] = ("head",)) -> nn.Module:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(opened))
    split = split_model(
        model, lambda training: [setattr(m, "training", False) for m in model.modules()], torch.randn(2, 3, size, size)
    )
    assert split.prefix is not None, split.reason
    return split.prefix


def storable(prefix: Prefix, images: Tensor) -> list[str]:
    """Names of all places where everything that lives can be stored."""
    rows = _rows(prefix, images)
    assert isinstance(prefix.module, fx.GraphModule)
    return [p.name for p in positions(prefix.module) if all(node.name in rows for node in p.live)]


def check(prefix: Prefix, at: str, images: Tensor) -> None:
    """The whole, and what goes on from kept values, whatever batch they come in."""
    first, rest = prefix.divided(at, images[:2])
    whole, kept = prefix(images), first(images)
    before = [value.clone() for value in kept]
    for chosen in ([3], [len(images) - 1, 0, 1], list(range(len(images) - 1, -1, -1))):
        got = rest(*(value[chosen] for value in kept))
        for expected, value in zip(whole, got, strict=True):
            assert value.dtype == expected.dtype
            assert value.stride()[1:] == expected.stride()[1:]
            assert torch.equal(value, expected[chosen]), at
    assert all(map(torch.equal, before, kept)), "kept values are left as they were"


@pytest.fixture(scope="module")
def branched() -> nn.Module:
    torch.manual_seed(0)
    return prefix_of(Branched(), opened=("last", "head"))


@pytest.mark.parametrize("numerics", [Numerics(), Numerics(channels_last=True, fold=True), FAST])
def test_any_position_of_a_small_network_with_branches(branched: nn.Module, numerics: Numerics) -> None:
    prefix, images = Prefix(branched, numerics, "cpu"), torch.randn(71, 3, 16, 16)
    names = storable(prefix, images)
    assert len(names) >= 8 and "wide" in names
    for at in names:
        check(prefix, at, images)


def test_a_network_that_cannot_be_cast_is_divided_as_it_runs_whole() -> None:
    """What insists on float32 lies behind the cut: the part before it alone would have run in bfloat16."""
    torch.manual_seed(0)
    model = Branched(insists=True)
    prefix, images = Prefix(prefix_of(model), Numerics("bfloat16"), "cpu"), torch.randn(66, 3, 16, 16)
    names = storable(prefix, images)
    assert prefix._casts and "wide" in names
    for at in names:
        check(prefix, at, images)


def test_places_where_more_than_images_rows_would_cross_are_none(branched: nn.Module) -> None:
    """Between `y.shape` and `reshape` live sizes; transposed values do not lie as files know them."""
    prefix, images = Prefix(branched, Numerics(), "cpu"), torch.randn(3, 3, 16, 16)
    names = storable(prefix, images)
    assert "mix" not in names and not any("transpose" in name for name in names)


def test_halves_share_the_modules_and_leave_them_alone(branched: nn.Module) -> None:
    before = copy.deepcopy(branched.state_dict())
    prefix, images = Prefix(branched, Numerics(), "cpu"), torch.randn(5, 3, 16, 16)
    first, rest = prefix.divided("narrow", images)
    rest(*first(images))
    assert all(torch.equal(before[name], value) for name, value in branched.state_dict().items())
    halves = {id(p) for half in (first, rest) for p in half._module.parameters()}
    assert halves <= {id(p) for p in branched.parameters()}


def test_an_unknown_position_is_refused(branched: nn.Module) -> None:
    prefix = Prefix(branched, Numerics(), "cpu")
    with pytest.raises(KeyError):
        prefix.divided("layer9", torch.randn(2, 3, 16, 16))
    assert not agrees(prefix, "layer9", torch.randn(4, 3, 16, 16))


def digest(prefix: Prefix, at: str) -> str:
    first, _ = prefix.divided(at, torch.randn(2, 3, 16, 16))
    return first.digest


def test_cuts_are_told_apart_and_equal_ones_are_shared() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(True), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(1152, 2)
    )

    def split_from(index: int) -> tuple[nn.Module, str]:
        for i, module in enumerate(model):
            module.requires_grad_(i >= index)
        split = split_model(
            model, lambda training: [setattr(m, "training", False) for m in model.modules()], torch.randn(2, 3, 16, 16)
        )
        assert split.prefix is not None
        return split.prefix, split.digest

    deep, _ = split_from(5)
    edge = split_from(3)[1]  # its edge lies behind the activation or before it, whichever is smaller
    for numerics in (Numerics(), Numerics(fold=True)):
        prefix = Prefix(deep, numerics, "cpu")
        found = [digest(prefix, at) for at in storable(prefix, torch.randn(3, 3, 16, 16))]
        assert edge in found
        assert len(set(found)) == len(found)
    folded = Prefix(deep, Numerics(fold=True), "cpu")
    assert digest(folded, "0") != digest(Prefix(deep, Numerics(), "cpu"), "0"), "the convolution now normalises, too"


def test_candidates_hold_ever_fewer_bytes_and_share_out_the_time(branched: nn.Module) -> None:
    prefix, images = Prefix(branched, Numerics(), "cpu"), torch.randn(8, 3, 16, 16)
    edge, *shallower = find_candidates(prefix, images, 8 * 8 * 16 * 4 + 64, 0.5)
    assert (edge.at, edge.before_s, edge.after_s) == ("", 0.5, 0.0)
    assert shallower
    sizes = [edge.bytes_per_image, *(c.bytes_per_image for c in shallower)]
    assert sizes == sorted(set(sizes), reverse=True)
    times = [c.before_s for c in (edge, *shallower)]
    assert times == sorted(times, reverse=True)
    assert all(c.before_s + c.after_s == pytest.approx(0.5) for c in shallower)
    assert all(agrees(prefix, c.at, images) for c in shallower)


def test_an_edge_that_is_the_narrowest_place_has_no_rival(branched: nn.Module) -> None:
    assert len(find_candidates(Prefix(branched, Numerics(), "cpu"), torch.randn(8, 3, 16, 16), 4, 0.5)) == 1


def test_what_mixes_rows_does_not_agree() -> None:
    """The trial run finds it out: rows that depend on the whole batch change with the padding."""

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> tuple[Tensor]:
            y = self.conv(x)
            return (torch.relu(y - y.mean(0, keepdim=True)),)

    prefix = Prefix(fx.symbolic_trace(Mixing()), Numerics(), "cpu")
    assert not agrees(prefix, "conv", torch.randn(5, 3, 4, 4))


def test_parts_are_what_network_and_inputs_take(branched: nn.Module) -> None:
    first, rest = Prefix(branched, Numerics(), "cpu").divided("narrow", torch.randn(2, 3, 16, 16))
    assert isinstance(first, First) and isinstance(rest, Rest)
    assert not first(torch.randn(1, 3, 16, 16))[0].is_inference()
    with pytest.raises(ValueError, match="at least one image"):
        first(torch.empty(0, 3, 16, 16))
