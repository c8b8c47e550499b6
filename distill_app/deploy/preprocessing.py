"""From an image to what a network takes: the transforms of its evaluation, and the normalisation of its data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from distill_app.config.build import Builder
from distill_app.config.inputs import statistics
from distill_app.config.schema import DatasetConf
from distill_app.data.images import finished, load_image, rgb_image
from distill_app.errors import SettingError, UsageError

_V2 = "torchvision.transforms.v2"
_OPTIONAL: tuple[tuple[str, Any], ...] = (("size", int), ("white", float))
_PROBES = ((96, 160), (200, 64))  # height and width of two images that have nothing in common


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before a network sees it, as plain values.

    Attributes:
        transforms: Configs with a `_target_`, in their order.
        mean: Per channel, of images scaled to [0, 1].
        std: The same.
        size: Of the images, of one side in pixels; None where they keep what the transforms leave.
        channels: 1 makes images grey.
        white: As `load_image` has it.
        upright: As `load_image` has it.
        allow: Packages of which transforms may be, beside those that always are.
    """

    transforms: tuple[Mapping[str, Any], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None
    channels: int = 3
    white: float | None = None
    upright: bool = False
    allow: tuple[str, ...] = ()

    @classmethod
    def of_dataset(cls, conf: DatasetConf, *, allow: Iterable[str] = (), fit: str | None = "crop") -> "Preprocessing":
        """That of the images on which networks of a data set are evaluated.

        Bundled data have one size by themselves, and no transform that makes it: then images are resized and cropped.

        Args:
            conf: The data set.
            allow: As of the class.
            fit: How images of other sizes are brought to that of the data: `crop`; `stretch`, which cuts nothing off;
                None: they keep the size that the transforms leave.
        """
        reading: Mapping[str, Any] = conf.test if isinstance(conf.test, Mapping) else {}
        found_statistics = statistics(conf)
        found = cls(
            tuple(conf.eval_transform),
            tuple(found_statistics.mean),
            tuple(found_statistics.std),
            conf.image_size,
            conf.channels,
            reading.get("white"),
            bool(reading.get("upright")),
            tuple(allow),
        )
        if fit is None or conf.image_size is None or found._makes_one_size():
            return found
        size = [conf.image_size, conf.image_size]
        if fit == "stretch":
            stretched = {"_target_": f"{_V2}.Resize", "size": size, "antialias": True}
            return replace(found, transforms=(*found.transforms, stretched))
        fitting = (
            {"_target_": f"{_V2}.Resize", "size": conf.image_size, "antialias": True},
            {"_target_": f"{_V2}.CenterCrop", "size": size},
        )
        return replace(found, transforms=(*found.transforms, *fitting))

    @classmethod
    def in_own_size(cls, conf: DatasetConf, *, allow: Iterable[str] = ()) -> "Preprocessing":
        """That of images for networks that resize and normalise by themselves: values in [0, 1], and any size."""
        zeros, ones = (0.0,) * conf.channels, (1.0,) * conf.channels
        return cls(tuple(conf.eval_transform), zeros, ones, None, conf.channels, allow=tuple(allow))

    @classmethod
    def of(cls, value: Any, *, allow: Iterable[str] = (), source: str) -> "Preprocessing":
        """What `described` gave, from a file of whoever's.

        Raises:
            UsageError: It is not that.
        """
        try:
            mean, std = (tuple(float(number) for number in value[key]) for key in ("mean", "std"))
            size, white = (None if value[key] is None else type_(value[key]) for key, type_ in _OPTIONAL)
            channels, transforms = int(value["channels"]), tuple(dict(each) for each in value["transforms"])
            if not isinstance(upright := value.get("upright", False), bool):  # the first exports do not say it
                raise TypeError(f"upright is {upright!r}; true or false is needed")
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{source} does not say how images are prepared ({type(error).__name__}: {error})"
            ) from None
        return cls(transforms, mean, std, size, channels, white, upright, tuple(allow))

    def described(self) -> dict[str, Any]:
        """All of it as plain values, for a file."""
        return {
            "size": self.size,
            "channels": self.channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "scale": "pixels of 0 to 255 are divided by 255, then normalised by mean and std",
            "layout": "float32 (batch, channels, height, width), RGB" if self.channels == 3 else "float32, NCHW, grey",
            "white": self.white,
            "upright": self.upright,
            "transforms": [dict(each) for each in self.transforms],
        }

    def __call__(self, image: Any) -> Tensor:
        """One image as a network takes it.

        Args:
            image: A path, a Pillow image, uint8 (3, H, W) as a tensor, or uint8 (H, W, 3) as an array.

        Returns:
            float32 (channels, height, width), normalised.

        Raises:
            OSError, RuntimeError, ValueError: A file that is no image, or a damaged one.
        """
        opened, name = self._opened(image)
        for transform in self._built:
            opened = transform(opened)
        pixels = finished(opened, name=name)
        scaled = pixels.float().div(255.0) if pixels.dtype == torch.uint8 else pixels
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (scaled - mean) / std

    def pixels(self, path: str | Path) -> Tensor:
        """An image file as the evaluation reads it, in front of the transforms: uint8 (3, H, W).

        Raises:
            OSError, RuntimeError, ValueError: A file that is no image, or a damaged one.
        """
        return load_image(path, white=self.white, upright=self.upright)

    def _opened(self, image: Any) -> tuple[Any, str]:
        if isinstance(image, str | Path):
            return self.pixels(image), str(image)
        if isinstance(image, np.ndarray):
            image = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        if isinstance(image, Image.Image):
            return rgb_image(image, white=self.white, upright=self.upright, name="the image"), "the image"
        return image, "the image"

    def batch(self, images: Iterable[Any]) -> Tensor:
        """Several images, (batch, channels, height, width).

        Raises:
            SettingError: The transforms leave them with several sizes.
        """
        made = [self(image) for image in images]
        if len(sizes := sorted({tuple(each.shape[1:]) for each in made})) > 1:
            raise SettingError(
                f"the transforms leave images of several sizes, {', '.join(f'{h} x {w}' for h, w in sizes)}: give them "
                f"one by one, or end the eval_transform of the data set with a crop"
            )
        return torch.stack(made)

    @cached_property
    def _built(self) -> list[Any]:
        builder = Builder(self.allow)
        built = [
            builder.build(conf, key=f"dataset.eval_transform[{number}]") for number, conf in enumerate(self.transforms)
        ]
        return built + ([v2.PILToTensor(), v2.Grayscale()] if self.channels == 1 else [])

    def _makes_one_size(self) -> bool:
        """Whether images of any size come out as one."""
        probes = [torch.zeros(3, *size, dtype=torch.uint8) for size in _PROBES]
        return len({self(probe).shape for probe in probes}) == 1
