"""Opening images that may come from strangers: by their headers, of a few formats, no larger than allowed. No torch."""

import io
import zlib
from pathlib import Path
from typing import IO, Any

from PIL import Image

from distill_app.runs.untrusted import open_regular

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
# Where Pillow itself begins to warn: 268 MB as RGB, and larger than any image of ImageNet.
MAX_PIXELS = 89_478_485
_SIGNATURE, _PIXELS, _AT_ONCE = 8, b"IDAT", 2**20  # of a PNG: bytes in front of its parts, one of pixels; bytes read


def open_image(path: str | Path, *, max_pixels: int = MAX_PIXELS, header_only: bool = False) -> Image.Image:
    """Reads an image's header; its mode and size are known then, and its pixels not yet read.

    Args:
        path: The file.
        max_pixels: Images with more are refused.
        header_only: Nobody will read its pixels, so that the checksums of a PNG need not be compared.

    Raises:
        ValueError: Another format, or more pixels than allowed.
        OSError: A file that cannot be opened, or is a fifo or a device; a damaged PNG.
    """
    open_regular(path, links=True).close()  # data sets of links to images are common
    return _opened(path, name=str(path), max_pixels=max_pixels, header_only=header_only)


def open_bytes(data: bytes, *, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The same of the bytes of a file; the name is for messages."""
    return _opened(io.BytesIO(data), name=name, max_pixels=max_pixels)


def _opened(source: Any, *, name: str, max_pixels: int, header_only: bool = False) -> Image.Image:
    try:
        image = Image.open(source, formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{name} is not an image of the formats {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name}: {error}") from error
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise ValueError(f"{name} would have {width} x {height} pixels; at most {max_pixels} are allowed")
    if image.format == "PNG" and image.fp and not header_only and (damage := _damage(image.fp)):
        image.close()
        raise OSError(f"{name} is damaged: {damage}")
    return image


def _damage(png: IO[bytes]) -> str | None:
    """What of a PNG is not as it was written, up to its last pixel; None where all is.

    Pillow compares the checksums in front of the pixels alone, and reads pixels that are lost in silence, as black.
    """
    begun, pixels = png.tell(), False
    png.seek(_SIGNATURE)
    try:
        while True:
            place, head = png.tell(), png.read(8)
            kind = head[4:]
            if pixels and kind != _PIXELS:
                return None  # whether there are enough of them, Pillow says
            left, found = int.from_bytes(head[:4], "big"), zlib.crc32(kind)
            while left and (piece := png.read(min(left, _AT_ONCE))):
                left, found = left - len(piece), zlib.crc32(piece, found)
            if png.read(4) != found.to_bytes(4, "big"):
                reason = "ends too early" if left else "does not match its checksum"
                return f"its part {kind.decode('ascii', 'replace')} at byte {place} {reason}"
            pixels = kind == _PIXELS
    finally:
        png.seek(begun)
