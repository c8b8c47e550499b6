"""Image folders (one folder per class) whose files may come from strangers."""

import warnings
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder as TorchvisionImageFolder
from torchvision.transforms.v2.functional import pil_to_tensor

from distill_app.data.presence import folder_problems

try:
    from torchvision.io import decode_image
except ImportError:  # a torchvision that has given its decoders to torchcodec
    decode_image = None


# It says with every image that they will go there.
warnings.filterwarnings("ignore", message="The image decoding and encoding", category=DeprecationWarning)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM")
# Where Pillow itself begins to warn: 268 MB as RGB, and larger than any image of ImageNet.
MAX_PIXELS = 89_478_485


def load_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decodes an image to RGB, after its header has shown an expected format and size.

    A few kilobytes can claim to be gigabytes of pixels, and every reader of a rare format is more code that
    strangers' bytes can reach; so neither is started for a file that does not pass. JPEG and PNG are decoded by
    torchvision: to the same pixels as by Pillow, and with the crop that follows 1.8 times as fast.

    Returns:
        uint8 (3, H, W).

    Raises:
        ValueError: Another format, or more pixels than allowed.
        OSError, RuntimeError: damaged bytes.
    """
    with open(path, "rb") as file:
        try:
            image = Image.open(file, formats=FORMATS)
        except Image.UnidentifiedImageError as error:
            raise ValueError(f"{path} is not an image of the formats {', '.join(FORMATS)}") from error
        except Image.DecompressionBombError as error:
            raise ValueError(f"{path}: {error}") from error
        width, height = image.size
        if width * height > max_pixels:
            raise ValueError(f"{path} would have {width} x {height} pixels; at most {max_pixels} are allowed")
        if decode_image is not None and image.format in ("JPEG", "PNG"):
            decoded = decode_image(str(path), mode="RGB")
            if decoded.dtype == torch.uint8:  # of 16 bits a channel it keeps all
                return decoded
        return pil_to_tensor(image.convert("RGB"))


class ImageFolder(TorchvisionImageFolder):
    """torchvision's ImageFolder with `load_image`, and with an error that names the folder at fault.

    Args:
        root: holds one folder per class.
        max_pixels: images with more are refused.

    Raises:
        FileNotFoundError: No root, no class folder, or a class folder without an image.
    """

    def __init__(self, root: str, *, max_pixels: int = MAX_PIXELS) -> None:
        problems = folder_problems(root)
        if problems:
            raise FileNotFoundError("; ".join(problems))
        super().__init__(root, loader=partial(load_image, max_pixels=max_pixels))
