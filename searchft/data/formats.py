"""Which files are images that we read, which are images that we do not, and which are no images at all.

The decoder's allow-list is short on purpose: each Pillow plug-in more is another parser for untrusted bytes.
"""

from __future__ import annotations

PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
"""What Pillow may try, whatever a file calls itself. JPEG includes the MPO files of phones (the first picture is taken)."""

_READABLE = ".jpg .jpeg .jpe .jfif .mpo .png .webp .bmp .dib .ppm .pgm .pbm .pnm .tif .tiff"
READABLE = frozenset(_READABLE.split())
"""Suffixes, in lower case, of files that are opened."""

_FOREIGN = (
    ".heic .heif .hif .avif .gif .svg .psd .psb .raw .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .dng .orf .rw2 .raf .pef "
    ".srw .x3f .jxl .jp2 .j2k .jpx .ico .icns .tga .pcx .eps .ai .xcf .exr .hdr .dds .apng .qoi .sgi .fits .dcm"
)
FOREIGN = frozenset(_FOREIGN.split())
"""Suffixes, in lower case, of pictures that are not read: they count as unreadable and are named."""

IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"})
"""What systems leave behind beside photos, in lower case. Names that begin with a dot are ignored too."""

_BRANDS = (
    (b"heic", "an HEIC photo"),
    (b"heix", "an HEIC photo"),
    (b"hevc", "an HEIC photo"),
    (b"mif1", "an HEIF photo"),
    (b"msf1", "an HEIF photo"),
    (b"avif", "an AVIF picture"),
)


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is left aside without a word."""
    return name.startswith(".") or name.lower() in IGNORED_NAMES


def what_it_is(head: bytes) -> str:
    """What the first bytes of a file that Pillow refused really are (`an HEIC photo`), or an empty string."""
    if head[4:8] == b"ftyp":
        for brand, words in _BRANDS:
            if head[8:12] == brand:
                return words
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "a GIF picture"
    if head[:4] == b"8BPS":
        return "a Photoshop file"
    if head.lstrip()[:5].lower() in (b"<html", b"<!doc"):
        return "a web page, perhaps what a failed download left"
    if head.lstrip()[:4].lower() in (b"<svg", b"<?xm"):
        return "an SVG or XML file"
    return ""
