"""Images: from a source to memory-mapped pixels. Needs no torch; only `searchft.data.transforms` does, for batches."""

from __future__ import annotations

from searchft.data.decode import UnreadableImage, decode_image
from searchft.data.images import Images, ImageSplit, open_images, reopen_images
from searchft.data.sources import SOURCES
from searchft.data.torchvision_sets import TORCHVISION_SETS

__all__ = [
    "SOURCES",
    "TORCHVISION_SETS",
    "ImageSplit",
    "Images",
    "UnreadableImage",
    "decode_image",
    "open_images",
    "reopen_images",
]
