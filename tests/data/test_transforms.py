"""Batches: normalisation against torchvision's reference, augmentation that is random per image and repeatable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from searchft.data import decode_image
from searchft.data.transforms import Augment, Preprocess, blend, crop_box, factors
from searchft.recipe import Recipe

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 6, size: int = 20) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size, 3), generator=generator(9), dtype=torch.uint8)


def augment(images, seed=0, size=16, **recipe):
    return Augment(Recipe("torchvision/resnet18", **recipe), size)(images, generator(seed))


def test_preprocessing_equals_torchvisions_on_a_real_image(faces):
    image = Image.open(faces / "s1" / "1.pgm").convert("RGB")
    geometry = [v1.Resize(72), v1.CenterCrop(64)]
    exact = v1.Compose([*geometry, v1.ToTensor(), v1.Normalize(MEAN, STD)])
    newer = v2.Compose([*geometry, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    stored = torch.from_numpy(decode_image(image, 72, "crop", "bilinear"))[None]
    found = Preprocess(MEAN, STD, 64)(stored)[0]
    assert torch.equal(found, exact(image))
    assert torch.allclose(found, newer(image).as_subclass(torch.Tensor), atol=1e-6)


def test_preprocessing_casts_last_and_keeps_the_layout_asked_for():
    images = batch()
    plain = Preprocess(MEAN, STD, 16)(images)
    fast = Preprocess(MEAN, STD, 16, dtype=torch.bfloat16, channels_last=True)(images)
    assert plain.shape == (6, 3, 16, 16) and plain.is_contiguous()
    assert fast.is_contiguous(memory_format=torch.channels_last) and torch.equal(fast, plain.to(torch.bfloat16))


def test_images_smaller_than_asked_for_are_refused():
    with pytest.raises(ValueError, match="smaller than image_size"):
        Preprocess(MEAN, STD, 32)(batch())


RECORDED = [
    ({"horizontal_flip": 0.5}, [830149, 831272, 805679, 832067]),
    ({"rotation": 30.0}, [826934, 833991, 793621, 830329]),
    ({"brightness": 0.5}, [998111, 1098296, 500626, 845290]),
    ({"contrast": 0.5}, [821671, 843772, 803944, 837447]),
    ({"saturation": 0.5}, [819659, 844912, 804274, 837128]),
    ({"hue": 0.3}, [824138, 843924, 817041, 833746]),
    ({"grayscale": 0.5}, [806649, 823509, 800196, 832431]),
    ({"crop_scale": 0.3}, [868869, 848499, 812763, 852251]),
]
EACH = [recipe for recipe, _ in RECORDED]
ALL = {key: value for recipe in EACH for key, value in recipe.items()}


@pytest.mark.parametrize(("recipe", "moments"), [*RECORDED, (ALL, [1067067, 1048971, 503910, 772641])])
def test_what_images_draw_and_become_stays_as_recorded(recipe, moments):
    """Sums of pixels weighted by column; another processor's rounding moves them by a few tens, another draw by thousands."""
    found = augment(batch(4), 3, **recipe).long() * torch.arange(1, 17).view(1, 1, 16, 1)
    assert found.sum((1, 2, 3)).tolist() == pytest.approx(moments, abs=200)


@pytest.mark.parametrize("recipe", EACH, ids=lambda r: next(iter(r)))
def test_each_augmentation_is_repeatable_and_random_per_image(recipe):
    same = batch(1).expand(32, -1, -1, -1)
    kept = same.clone()
    state = torch.get_rng_state()
    one, two, other = augment(same, 1, **recipe), augment(same, 1, **recipe), augment(same, 2, **recipe)
    assert one.shape == (32, 16, 16, 3) and one.dtype == torch.uint8 and one.is_contiguous()
    assert torch.equal(one, two) and not torch.equal(one, other)
    distinct = len({image.numpy().tobytes() for image in one})
    assert distinct == 2 if {"horizontal_flip", "grayscale"} & set(recipe) else distinct > 20
    assert torch.equal(same, kept) and torch.equal(state, torch.get_rng_state())


def test_nothing_asked_for_is_a_centre_crop():
    images = batch()
    assert torch.equal(augment(images), images[:, 2:18, 2:18])


def test_flips_and_grey_happen_always_at_probability_one():
    images = batch()
    assert torch.equal(augment(images, horizontal_flip=1.0), images[:, 2:18, 2:18].flip(2))
    grey = augment(images, grayscale=1.0)
    assert torch.equal(grey[..., 0], grey[..., 1]) and torch.equal(grey[..., 0], grey[..., 2])


def test_one_augmentation_more_leaves_the_others_as_they_were():
    images = batch(16)
    flipped = (augment(images, horizontal_flip=0.5) == images[:, 2:18, 2:18].flip(2)).flatten(1).all(1)
    both = augment(images, horizontal_flip=0.5, grayscale=1.0)
    grey = augment(images, grayscale=1.0)
    assert 0 < flipped.sum() < 16
    assert torch.equal(torch.where(flipped.view(-1, 1, 1, 1), grey.flip(2), grey), both)


def test_colour_jitter_equals_torchvisions_image_by_image():
    values = batch().permute(0, 3, 1, 2) / 255.0
    factor = factors(torch.linspace(0, 0.99, 6), 0.4)
    for i in range(6):
        f, image = factor[i].item(), values[i]
        dark = blend(values, torch.zeros_like(values), factor)[i]
        assert torch.allclose(dark, reference.adjust_brightness(image, f), atol=1e-6)
        grey = reference.rgb_to_grayscale(values)
        flat = blend(values, grey.mean((1, 2, 3), keepdim=True), factor)[i]
        assert torch.allclose(flat, reference.adjust_contrast(image, f), atol=1e-6)
        pale = blend(values, grey, factor)[i]
        assert torch.allclose(pale, reference.adjust_saturation(image, f), atol=1e-6)


def test_jitter_factors_stay_in_range():
    found = factors(torch.tensor([0.0, 0.5, 0.999]), 0.3).flatten().tolist()
    assert found == pytest.approx([0.7, 1.0, 1.3], abs=1e-3)
    assert factors(torch.tensor([0.0]), 1.5).item() == 0


@pytest.mark.parametrize("smallest", [0.08, 0.5, 0.9, 0.999])
def test_crops_lie_inside_keep_their_share_and_vary(smallest):
    rng = np.random.default_rng(0)
    boxes = [crop_box(100, smallest, rng.random(4).tolist()) for _ in range(2000)]
    for top, left, height, width in boxes:
        assert 0 <= top <= 100 - height and 0 <= left <= 100 - width
        assert height * width >= smallest * 10_000 - 110
        assert 0.7 < width / height < 1.4
    shares = [h * w / 10_000 for _, _, h, w in boxes]
    assert np.mean(shares) == pytest.approx((1 + smallest) / 2, abs=0.02)


def test_the_crop_takes_the_stored_margin():
    ramp = torch.arange(40, dtype=torch.uint8).view(1, 1, 40, 1).expand(200, 40, 40, 3) * 6
    seen = augment(ramp, size=16, crop_scale=0.3)
    assert seen.min() < 12 and seen.max() > 216  # a centre crop to 16 would show 72 … 162 only
