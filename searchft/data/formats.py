"""Which files are images that we read, which are images that we do not, and which are no images at all.

The decoder's allow-list is short on purpose: each Pillow plug-in more is another parser for untrusted bytes.
"""

from __future__ import annotations

import re

PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
"""What Pillow may try, whatever a file calls itself. JPEG includes the MPO files of phones (the first image is taken)."""

_READABLE = ".jpg .jpeg .jpe .jfif .mpo .png .webp .bmp .dib .ppm .pgm .pbm .pnm .tif .tiff"
READABLE = frozenset(_READABLE.split())
"""Suffixes, in lower case, of files that are opened."""

_FOREIGN = (
    ".heic .heif .hif .avif .gif .svg .psd .psb .raw .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .dng .orf .rw2 .raf .pef "
    ".srw .x3f .jxl .jp2 .j2k .jpx .ico .icns .tga .pcx .eps .ai .xcf .exr .hdr .dds .apng .qoi .sgi .fits .dcm"
)
FOREIGN = frozenset(_FOREIGN.split())
"""Suffixes, in lower case, of images that are not read: they count as unreadable and are named."""

IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"})
"""What systems leave behind beside images, in lower case. Names that begin with a dot are ignored too."""

_BEGINNINGS = (
    (rb"....ftyp(heic|heix|hevc)", "an HEIC image"),
    (rb"....ftyp(mif1|msf1)", "an HEIF image"),
    (rb"....ftypavif", "an AVIF image"),
    (rb"GIF8[79]a", "a GIF image"),
    (rb"8BPS", "a Photoshop file"),
    (rb"(?i)\s*<(html|!doc)", "a web page, perhaps what a failed download left"),
    (rb"(?i)\s*<(svg|\?xm)", "an SVG or XML file"),
)
"""What files begin with, and what they are."""


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is left aside without a word."""
    return name.startswith(".") or name.lower() in IGNORED_NAMES


def what_it_is(head: bytes) -> str:
    """What the first bytes of a file that Pillow refused really are (`an HEIC image`), or an empty string."""
    return next((words for pattern, words in _BEGINNINGS if re.match(pattern, head, re.DOTALL)), "")
