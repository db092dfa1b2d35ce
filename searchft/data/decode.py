"""The one decoder: whatever a phone, scanner or web site wrote becomes uint8 RGB of one size. Also used for predictions.

- EXIF orientation is applied; damaged EXIF data are ignored. Truncated files are unreadable.
- Transparency is laid over white.
- Grey of 16 bits is scaled by its full range. Grey of 32 bits has no known range unless its values fit 16 bits; floating-point
  grey is read where it lies in [0, 1]. Anything else is refused.
- CMYK goes through Pillow's conversion; colour profiles are ignored, as torchvision's and timm's loaders do.
- Resizing is Pillow's (antialiased), rounded as torchvision's `Resize` and `CenterCrop`; never JPEG's reduced-size decoding.
"""

from __future__ import annotations

import contextlib
import io
import re
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from searchft.data.records import printable
from searchft.errors import InputError, Problem

DECODER_VERSION = 1  # raised whenever a change here alters pixels: old stores and fingerprints then stop being answers
MAX_PIXELS = 89_478_485
"""Pillow's own limit for an image that is not suspicious: a quarter of a gigabyte in RGB. Holds while resizing too."""
MAX_FILE_BYTES = 512 * 1024 * 1024  # larger files are not read into memory
INTERPOLATIONS = {name: Image.Resampling[name.upper()] for name in ("bilinear", "bicubic", "lanczos", "nearest")}
"""Values of `data.interpolation`: Pillow's filters."""
RESIZES = ("squash", "crop", "pad")  # values of `data.resize`
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
"""What Pillow may try, whatever a file calls itself: each plug-in more is another parser for untrusted bytes. JPEG includes
the MPO files of phones (the first image is taken)."""
_READABLE = ".jpg .jpeg .jpe .jfif .mpo .png .webp .bmp .dib .ppm .pgm .pbm .pnm .tif .tiff"
READABLE = frozenset(_READABLE.split())  # suffixes, in lower case, of files that are opened
_FOREIGN = (
    ".heic .heif .hif .avif .gif .svg .psd .psb .raw .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .dng .orf .rw2 .raf .pef "
    ".srw .x3f .jxl .jp2 .j2k .jpx .ico .icns .tga .pcx .eps .ai .xcf .exr .hdr .dds .apng .qoi .sgi .fits .dcm"
)
FOREIGN = frozenset(_FOREIGN.split())
"""Suffixes, in lower case, of images that are not read: they count as unreadable and are named."""
_BEGINNINGS = (
    (rb"....ftyp(heic|heix|hevc)", "an HEIC image"),
    (rb"....ftyp(mif1|msf1)", "an HEIF image"),
    (rb"....ftypavif", "an AVIF image"),
    (rb"GIF8[79]a", "a GIF image"),
    (rb"8BPS", "a Photoshop file"),
    (rb"(?i)\s*<(html|!doc)", "a web page, perhaps what a failed download left"),
    (rb"(?i)\s*<(svg|\?xm)", "an SVG or XML file"),
)
"""What files that Pillow refuses begin with, and what they are."""

_opening = threading.Lock()
"""Warning filters belong to the whole process: one thread at a time reads headers under ours. Pixels decode in parallel."""


class UnreadableImage(InputError):
    """This one image cannot be read. `reason` says why, without the path."""

    kind = "unreadable"

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(Problem(where, "", reason))
        self.reason = reason


def decode_image(source: Path | bytes | np.ndarray | Image.Image, size: int, resize: str, interpolation: str) -> np.ndarray:
    """Decodes one image to uint8 [size, size, 3], RGB.

    `source` is a path, the bytes of a file, a uint8 array ([H, W] or [H, W, 3]) or an open PIL image; `resize` is one
    of RESIZES, `interpolation` a key of INTERPOLATIONS. Raises UnreadableImage with the reason (and the path, if given).
    """
    if resize not in RESIZES or interpolation not in INTERPOLATIONS or size < 1:
        raise ValueError(f"cannot resize to {size} by {resize!r} and {interpolation!r}")
    try:
        if isinstance(source, Path):
            return decode_image(_read(source), size, resize, interpolation)
        if isinstance(source, bytes):
            image: Image.Image = _open(source)
        elif isinstance(source, np.ndarray):
            image = Image.fromarray(source)
        else:
            image = source
        image.load()
        with contextlib.suppress(
            Exception
        ):  # damaged EXIF data: any parser error may come out, and the image is good all the same
            image = ImageOps.exif_transpose(image)
        return np.array(_resize(_to_rgb(image), size, resize, INTERPOLATIONS[interpolation]), dtype=np.uint8)
    except UnreadableImage as error:
        if isinstance(source, Path):
            raise UnreadableImage(error.reason, printable(source)) from error
        raise
    except MemoryError as error:
        raise UnreadableImage("does not fit in memory") from error
    except Exception as error:
        # Pillow's parsers raise nearly anything on damaged files (struct.error, IndexError, SyntaxError, zlib.error …).
        raise UnreadableImage(f"is damaged or cut short: {error or type(error).__name__}") from error


def foreign_reason(suffix: str) -> str:
    """Why an image with a suffix of FOREIGN is not read, and what to do."""
    return f"{suffix.lower().lstrip('.').upper()} is not a format that searchft reads; convert it to JPEG or PNG"


def _read(path: Path) -> bytes:
    if path.suffix.lower() in FOREIGN:
        raise UnreadableImage(foreign_reason(path.suffix))
    try:
        if path.is_dir():
            raise UnreadableImage("is a folder, not an image: name the images in it (FOLDER/*)")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UnreadableImage(f"is larger than {MAX_FILE_BYTES // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"cannot be read: {error.strerror or error}") from error


def _open(content: bytes) -> Image.Image:
    if not content:
        raise UnreadableImage("is an empty file: copy it again, or remove it")
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(content), formats=PILLOW_FORMATS)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            reason = f"claims more than {MAX_PIXELS:,} pixels, as decompression bombs do; scale it down"
            raise UnreadableImage(reason) from error
        except Image.UnidentifiedImageError as error:
            really = next((what for pattern, what in _BEGINNINGS if re.match(pattern, content[:64], re.DOTALL)), "")
            fallback = f"is none of {', '.join(PILLOW_FORMATS)}, or damaged"
            raise UnreadableImage(f"is {really}; convert it to JPEG or PNG" if really else fallback) from error
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(f"has {image.width:,} × {image.height:,} pixels, more than {MAX_PIXELS:,}; scale it down")
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_of_many_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _grey_of_many_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise UnreadableImage("is floating-point grey outside [0, 1], whose range is unknown; convert it to 8 bits")
        return Image.fromarray((values * 255 + 0.5).astype(np.uint8))
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImage("is 32-bit grey, whose range is unknown; convert it to 8 or 16 bits")
    return Image.fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))


def _resize(image: Image.Image, size: int, resize: str, method: Any) -> Image.Image:
    width, height = image.size
    short, long = min(image.size), max(image.size)
    if resize == "squash":
        return _scaled(image, size, size, method)
    if resize == "crop":
        other = int(size * long / short)
        image = _scaled(image, *((size, other) if width <= height else (other, size)), method)
        left, top = round((image.width - size) / 2), round((image.height - size) / 2)
        return image.crop((left, top, left + size, top + size))
    image = _scaled(image, max(1, round(width * size / long)), max(1, round(height * size / long)), method)
    square = Image.new("RGB", (size, size))
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return square


def _scaled(image: Image.Image, width: int, height: int, method: Any) -> Image.Image:
    """Resized; refused where Pillow would hold more than MAX_PIXELS. It scales rows first: [image.height, width] lies between."""
    if (width, height) == image.size:
        return image
    if width * max(height, image.height) > MAX_PIXELS:
        rule = f"would take more than {MAX_PIXELS:,} pixels while it is resized; cut it to a less extreme shape"
        raise UnreadableImage(f"is {image.width:,} × {image.height:,} and {rule}")
    return image.resize((width, height), method)
