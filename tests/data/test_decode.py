"""The decoder on images as phones, scanners and web sites write them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from searchft.data.decode import UnreadableImage, decode_image

HALVES = np.zeros((20, 40, 3), np.uint8)
HALVES[:, :20] = (250, 10, 10)
HALVES[:, 20:] = (10, 10, 250)


def decode(source, size=8, resize="squash", interpolation="bilinear"):
    return decode_image(source, size, resize, interpolation)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_real_image_is_decoded_like_the_reference(faces):
    face = faces / "s7" / "3.pgm"
    expected = np.asarray(Image.open(face).convert("RGB").resize((64, 64), Image.Resampling.BILINEAR))
    assert np.array_equal(decode(face, 64), expected)


@pytest.mark.parametrize(
    ("orientation", "corners"),  # colours of the top left and bottom right corner: red is the left half before turning
    [(1, "rb"), (2, "br"), (3, "br"), (4, "rb"), (5, "rb"), (6, "rb"), (7, "br"), (8, "br")],
)
def test_exif_orientation_is_applied(orientation, corners):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = decode(saved(Image.fromarray(HALVES), "JPEG", exif=exif, quality=95), 16, "pad")
    inside = turned[turned.sum(2) > 100]
    red = {True: "r", False: "b"}
    assert red[bool(inside[0][0] > 128)] + red[bool(inside[-1][0] > 128)] == corners
    wide = turned[0].sum() == 0  # black bars above and below: still lying
    assert wide == (orientation < 5)


def test_damaged_exif_data_do_not_matter():
    content = saved(Image.fromarray(HALVES), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert decode(content)[4, 1, 0] > 200


def test_cmyk_jpeg():
    pixels = decode(saved(Image.fromarray(HALVES).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(pixels[4, 1].astype(int) - (250, 10, 10)).max() < 12


def test_a_phones_multi_image_file_gives_its_first_image():
    first, second = Image.fromarray(HALVES), Image.new("RGB", (40, 20), "green")
    assert decode(saved(first, "MPO", save_all=True, append_images=[second]))[4, 1, 0] > 200


def test_transparency_lies_over_white():
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.putpixel((0, 0), 1)
    pixels = decode(saved(palette, "PNG", transparency=0), 4)
    assert pixels[0, 0].tolist() == [200, 0, 0] and pixels[3, 3].tolist() == [255, 255, 255]
    assert decode(saved(Image.new("LA", (4, 4), (0, 0)), "PNG"), 4).min() == 255
    assert decode(saved(Image.new("LA", (4, 4), (90, 255)), "PNG"), 4).max() == 90
    assert decode(saved(Image.new("RGBA", (4, 4), (0, 0, 0, 128)), "PNG"), 4)[0, 0, 0] == pytest.approx(127, abs=1)
    assert decode(saved(Image.new("RGB", (4, 4), (7, 7, 7)), "PNG", transparency=(7, 7, 7)), 4).min() == 255


def test_sixteen_bit_grey_is_scaled_not_cut():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        pixels = decode(saved(Image.fromarray(ramp), kind), 16)
        assert np.abs(pixels[..., 0].ravel().astype(int) - np.arange(256)).max() <= 1
    pgm = b"P5 16 16 65535\n" + ramp.astype(">u2").tobytes()
    assert np.abs(decode(pgm, 16)[..., 1].ravel().astype(int) - np.arange(256)).max() <= 1


def test_grey_of_other_depths_is_scaled_where_its_range_is_known():
    assert set(np.unique(decode(saved(Image.new("1", (4, 4), 1), "PNG"), 4))) == {255}
    assert decode(saved(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"), 4)[0, 0, 0] == 128
    for values, words in (
        (np.full((4, 4), 1e6, np.int32), "32-bit grey"),
        (np.full((4, 4), 3.0, np.float32), "floating-point"),
    ):
        with pytest.raises(UnreadableImage, match=words):
            decode(saved(Image.fromarray(values), "TIFF"))


def bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10_000, 9_500, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file: copy it again"),
        (b"hello", "none of JPEG"),
        (bomb(), "pixels"),
        (saved(Image.fromarray(HALVES), "JPEG")[:-200], "cut short"),
        (saved(Image.effect_noise((64, 64), 90), "PNG")[:900], "cut short"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "an HEIC image"),
        (saved(Image.fromarray(HALVES), "GIF"), "a GIF image"),
        (b"<!DOCTYPE html><html>", "a web page"),
    ],
    ids=["empty", "text", "bomb", "cut JPEG", "cut PNG", "HEIC", "GIF", "web page"],
)
def test_what_is_unreadable_says_why(content, words, tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=words) as caught:
        decode(path)
    assert caught.value.where == str(path) and caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "words"), [("a.heic", "HEIC is not a format"), ("b.jpg", "No such file"), ("", "is a folder")]
)
def test_a_foreign_or_missing_file_says_so(tmp_path, name, words):
    with pytest.raises(UnreadableImage, match=words):
        decode(tmp_path / name)


def test_a_wrong_call_is_not_called_a_damaged_image():
    with pytest.raises(ValueError, match="stretch"):
        decode(Image.fromarray(HALVES), resize="stretch")


def test_resizing():
    squash, crop, pad = (decode(Image.fromarray(HALVES), 10, how) for how in ("squash", "crop", "pad"))
    assert squash[0, 0, 0] > 200 and squash[0, -1, 2] > 200
    assert crop[5, 0, 0] > 200 and crop[5, -1, 2] > 200 and crop.min() >= 10
    assert pad[0].max() == 0 and pad[-1].max() == 0 and pad[5, 0, 0] > 200


@pytest.mark.parametrize(
    ("size", "shape", "how"), [(64, (1, 40_000), "crop"), (64, (2_000_000, 1), "squash"), (64, (40_000, 1), "crop")]
)
def test_an_extreme_shape_is_refused_before_it_is_enlarged(size, shape, how):
    content = saved(Image.fromarray(np.zeros(shape, np.uint8)), "PNG")
    with pytest.raises(UnreadableImage, match=f"is {shape[1]:,} × {shape[0]:,} and would take more than"):
        decode(content, size, how)
    assert decode(content, size, "pad").shape == (size, size, 3)


def test_resize_and_crop_agree_with_torchvision(image):
    from torchvision.transforms import v2

    for width, height in [(37, 53), (64, 41), (30, 30)]:
        source = image(1, (width, height))
        expected = np.asarray(v2.CenterCrop(24)(v2.Resize(24)(source)))
        assert np.array_equal(decode(source, 24, "crop"), expected)
