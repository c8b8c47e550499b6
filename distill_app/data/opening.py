"""Opening images that may come from strangers: by their headers, of a few formats, no larger than allowed. No torch."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from distill_app.runs.untrusted import open_regular

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
# Where Pillow itself begins to warn: 268 MB as RGB, and larger than any image of ImageNet.
MAX_PIXELS = 89_478_485


def open_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Reads an image's header; its mode and size are known then, and its pixels not yet read.

    Raises:
        ValueError: Another format, or more pixels than allowed.
        OSError: A file that cannot be opened, or is a fifo or a device.
    """
    open_regular(path, links=True).close()  # data sets of links to images are common
    return _opened(path, name=str(path), max_pixels=max_pixels)


def open_bytes(data: bytes, *, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The same of the bytes of a file; the name is for messages."""
    return _opened(io.BytesIO(data), name=name, max_pixels=max_pixels)


def _opened(source: Any, *, name: str, max_pixels: int) -> Image.Image:
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
    return image
