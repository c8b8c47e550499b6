"""From a file, or from a Pillow image of any depth, to 8 bits a channel: nothing is cut off in silence."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from distill_app.data.opening import MAX_PIXELS, open_bytes, open_image
from distill_app.errors import DataError

try:
    from torchvision.io import decode_image
except ImportError:  # a torchvision that has given its decoders to torchcodec
    decode_image = None


# It says with every image that they will go there.
warnings.filterwarnings("ignore", message="The image decoding and encoding", category=DeprecationWarning)
# Of palettes with transparency, which is left out here.
warnings.filterwarnings("ignore", message="Palette images with Transparency", category=UserWarning)
_BITS_PER_SAMPLE = 258  # the tag of TIFF
# How Pillow reads the upper 8 of the 16 bits of a colour PNG -> how it reads the lower 8, and where red, green and blue
# are then.
_LOWER = {"RGB;16B": ("RGB;16L", [0, 1, 2]), "RGBA;16B": ("RGBA;16L", [0, 1, 2]), "LA;16B": ("RGBA", [1, 1, 1])}
_TURNS = {  # what EXIF says of how the camera was held -> what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(
    path: str | Path, *, max_pixels: int = MAX_PIXELS, white: float | None = None, upright: bool = False
) -> Tensor:
    """Decodes an image to RGB, after its header has shown an expected format and size.

    A few kilobytes can claim to be gigabytes of pixels, and every reader of a rare format is more code that
    strangers' bytes can reach; so neither is started for a file that does not pass. JPEG is decoded by torchvision: to
    the same pixels as by Pillow, and with the crop that follows 1.8 times as fast. Its decoder of PNG is not used: a
    damaged file ends the process there.

    Of several pictures in a file the first is read; transparency is left out, as by torchvision's own reader.

    Args:
        path: The file.
        max_pixels: Images with more are refused.
        white: The value that becomes 255, of images of more than 8 bits a channel. None: 65535 for those of 16 bits,
            whose upper 8 bits are then kept.
        upright: Turn and mirror it as its EXIF data say, as cameras and phones leave that to the reader.

    Returns:
        uint8 (3, H, W).

    Raises:
        DataError: Whole numbers of 32 bits or floats without a `white`, or values that lie outside of it.
        ValueError: Another format, or more pixels than allowed.
        OSError, RuntimeError: damaged bytes.
    """
    with open_image(path, max_pixels=max_pixels) as image:
        if white is not None and _read_as(image) in _LOWER:
            with open_image(path, max_pixels=max_pixels, header_only=True) as again:
                deep = _sixteen_bits(image, again)
            shallow = Image.fromarray(_scaled(deep, white=white, name=str(path)))
            return pil_to_tensor(_turned(shallow, image) if upright else shallow)
        return _decoded(image, str(path), name=str(path), white=white, upright=upright)


def image_of(data: bytes, *, name: str, max_pixels: int = MAX_PIXELS, upright: bool = False) -> Tensor:
    """As `load_image`, of the bytes of a file.

    Args:
        data: The bytes.
        name: What messages call the image.
        max_pixels: As there.
        upright: As there.

    Raises:
        DataError, ValueError, OSError, RuntimeError: As there.
    """
    with open_bytes(data, name=name, max_pixels=max_pixels) as image:
        source = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return _decoded(image, source, name=name, white=None, upright=upright)


def _decoded(image: Image.Image, source: str | Tensor, *, name: str, white: float | None, upright: bool) -> Tensor:
    if decode_image is not None and image.format == "JPEG":
        return decode_image(source, mode="RGB", apply_exif_orientation=upright)
    return pil_to_tensor(rgb_image(image, white=white, name=name, upright=upright))


def _read_as(image: Any) -> str | None:
    """What Pillow calls the way in which a PNG has its pixels."""
    return str(image.tile[0].args) if image.format == "PNG" and image.tile else None


def _sixteen_bits(image: Any, again: Any) -> np.ndarray:
    """(H, W, 3) of a colour PNG of 16 bits, which Pillow reads as one of 8: opened twice, it gives both halves."""
    lower, channels = _LOWER[image.tile[0].args]
    again.tile = [tile._replace(args=lower) for tile in again.tile]
    upper = np.asarray(image)[..., :3].astype(np.uint16)
    return upper << 8 | np.asarray(again)[..., channels]


def rgb_image(image: Image.Image, *, name: str, white: float | None = None, upright: bool = False) -> Image.Image:
    """A Pillow image of any mode as RGB of 8 bits; arguments and errors are those of `load_image`."""
    image.load()  # Pillow turns TIFFs by itself then, and a PNG may have its EXIF data behind its pixels
    shallow = eight_bits(image, white=white, name=name)
    return (_turned(shallow, image) if upright else shallow).convert("RGB")


def _turned(image: Image.Image, source: Image.Image) -> Image.Image:
    """An image as the EXIF data of its source say."""
    turn = _TURNS.get(source.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits a channel, which Pillow's own conversion to RGB would cut off at 255."""
    return image.mode.startswith("I") or image.mode == "F"


def eight_bits(image: Image.Image, *, white: float | None = None, name: str) -> Image.Image:
    """The same image with 8 bits a channel; most images are returned as they are.

    Args:
        image: Of any mode.
        white: As in `load_image`.
        name: What messages call the image.

    Raises:
        DataError: Whole numbers of 32 bits or floats without a `white`, or values that lie outside of it.
    """
    if not is_deep(image):
        if white is not None and max(_tag(image, _BITS_PER_SAMPLE), default=8) > 8:
            raise DataError(
                f"{name}: of colour images of 16 bits the upper 8 are read; white={white:g} is for grey ones"
            )
        return image
    if white is None:
        # Pillow gives the grey values of a PGM of more than 8 bits the range of 16.
        if image.mode in ("I", "F") and not (image.mode == "I" and image.format == "PPM"):
            kind = "32-bit floats" if image.mode == "F" else "whole numbers of 32 bits"
            raise DataError(
                f"{name}: the image holds {kind} (mode {image.mode}): nobody can know which value is white; say it: "
                f"distill_app.data.ImageFolder takes white=1.0 ('+dataset.train.white=1.0' '+dataset.test.white=1.0'), "
                f"or save the images with 8 or 16 bits"
            )
        white = 65535
    return Image.fromarray(_scaled(np.asarray(image), white=white, name=name))


def _scaled(values: np.ndarray, *, white: float, name: str) -> np.ndarray:
    """uint8 of values from 0 to white."""
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= white):  # so that NaN is refused too
        raise DataError(
            f"{name}: the image has values from {low:g} to {high:g}, outside of 0 (black) to {white:g} (white)"
        )
    if white == 65535:
        # As Pillow and libpng make 8 of 16 bits where they do it themselves.
        return (values.astype(np.int32) >> 8).astype(np.uint8)
    return np.rint(values.astype(np.float64) * (255 / white)).astype(np.uint8)


def _tag(image: Any, number: int) -> tuple[int, ...]:
    return image.tag_v2.get(number, ()) if image.format == "TIFF" else ()


def finished(image: Any, *, name: str) -> Tensor:
    """The image of a sample as a task takes it: uint8, or floats that are returned as they are.

    A Pillow image becomes RGB, and of whole numbers of 16 bits the upper 8 are kept.

    Raises:
        DataError: No image, or whole numbers of another type, whose range nobody can know.
    """
    if isinstance(image, Image.Image):
        return pil_to_tensor(eight_bits(image, name=name).convert("RGB"))
    if not isinstance(image, Tensor):
        raise DataError(
            f"{name}: the transforms leave a {type(image).__name__}; end them with "
            "torchvision.transforms.v2.PILToTensor or ToImage"
        )
    if image.dtype == torch.uint8 or image.is_floating_point():
        return image
    if image.dtype == torch.uint16:
        return (image.to(torch.int32) >> 8).to(torch.uint8)
    raise DataError(
        f"{name}: the image is a tensor of {image.dtype}, and nobody can know which value is white; give uint8 (0 to "
        f"255), uint16 (0 to 65535) or floats (0 to 1)"
    )
