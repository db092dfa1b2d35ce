"""Images: from a source to memory-mapped pixels and device batches.

The transforms need torch and are loaded on first use: finding, checking and decoding images does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from searchft.data.decode import UnreadableImage, decode_image
from searchft.data.images import Images, ImageSplit, open_images, reopen_images
from searchft.data.sources import SOURCES
from searchft.data.torchvision_sets import TORCHVISION_SETS

if TYPE_CHECKING:
    from searchft.data.transforms import Augment, Preprocess

__all__ = [
    "SOURCES",
    "TORCHVISION_SETS",
    "Augment",
    "ImageSplit",
    "Images",
    "Preprocess",
    "UnreadableImage",
    "decode_image",
    "open_images",
    "reopen_images",
]


def __getattr__(name: str) -> Any:
    if name in ("Augment", "Preprocess"):
        from searchft.data import transforms

        return getattr(transforms, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
