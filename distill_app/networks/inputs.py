"""The input of one network: images of a batch resized and normalised as this network was trained on them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from distill_app.config.inputs import GREY, has_own_input, own_input, statistics
from distill_app.config.schema import DatasetConf, InputConf, NormalizeConf
from distill_app.errors import SettingError


class OwnInput:
    """Changes the images in front of a network, which stays as it is: hooks, taps, names and state dict.

    Images go back to [0, 1] as their data set normalised them, get the network's number of channels (grey is
    0.299 R + 0.587 G + 0.114 B, colours of grey are three times the same), its size (bilinear, with antialiasing) and
    its normalisation, on the device where they are and in their precision. What is the same is not computed.

    Args:
        conf: What the network wants; null is as the data have it.
        data: The data set; its mean and deviation are undone.
        device: Where images will be.
    """

    def __init__(self, conf: InputConf, data: DatasetConf, *, device: torch.device | str):
        given, channels = statistics(data), conf.channels or data.channels
        self._size, self._channels = conf.size, channels
        self.conf = own_input(conf)
        as_given = statistics(replace(data, channels=channels, normalize=given))
        wanted = (list(conf.mean or as_given.mean), list(conf.std or as_given.std))
        self.anew = channels != data.channels or wanted != (as_given.mean, as_given.std)  # and not only resized
        self._undo, self._redo = _affine(given.mean, given.std, device), _affine(*wanted, device)
        self._grey = torch.tensor(GREY, device=device).view(1, 3, 1, 1) / sum(GREY)

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) as the data normalise them -> (B, C', size, size) as the network wants them.

        Raises:
            SettingError: They are no batch of images.
        """
        if not isinstance(images, Tensor) or images.dim() != 4 or not images.is_floating_point():
            got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise SettingError(f"a network with an input of its own takes images (B, C, H, W) of floats, got {got}")
        if self.anew:
            images = self.undone(images)
            if images.shape[1] == 3 and self._channels == 1:
                images = (images * self._grey).sum(1, keepdim=True)
            elif images.shape[1] == 1 and self._channels == 3:
                images = images.expand(-1, 3, -1, -1)
        if self._size is not None and images.shape[2:] != (self._size, self._size):
            images = interpolate(images, (self._size, self._size), mode="bilinear", antialias=True)
        if self.anew:
            mean, std = self._redo
            images = (images - mean) / std
        return images

    def undone(self, images: Tensor) -> Tensor:
        """Images as they were before the data set normalised them, in [0, 1]."""
        mean, std = self._undo
        return images * std + mean

    def before(self, module: nn.Module) -> None:
        """Puts itself in front of a module for good."""
        module.register_forward_pre_hook(self._hook, with_kwargs=True)

    def _hook(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if not args:
            raise SettingError("a network with an input of its own takes images as its first argument, without a name")
        return (self(args[0]), *args[1:]), kwargs

    def described(self) -> dict[str, Any]:
        """As plain values from which `of` makes it anew."""
        mean, std = (value.flatten().tolist() for value in self._undo)
        return {**self.conf, "of": {"channels": len(mean), "mean": mean, "std": std}}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "OwnInput":
        """What `described` gave.

        Raises:
            SettingError: It is not that.
        """
        try:
            given = value["of"]
            normalize = NormalizeConf(mean=[float(x) for x in given["mean"]], std=[float(x) for x in given["std"]])
            data = DatasetConf(channels=int(given["channels"]), normalize=normalize)
            conf = InputConf(**{name: value[name] for name in own_input(InputConf())})
            return cls(conf, data, device="cpu")
        except (KeyError, TypeError, ValueError) as error:
            raise SettingError(f"an input that is none: {error!r}") from error

    def __str__(self) -> str:
        return ", ".join(f"{name} {_text(value)}" for name, value in self.conf.items() if value is not None)


def own_input_of(conf: InputConf, data: DatasetConf, *, device: torch.device | str) -> OwnInput | None:
    """The input of a network, None where it takes images as the data have them."""
    return OwnInput(conf, data, device=device) if has_own_input(conf) else None


def _affine(mean: list[float], std: list[float], device: torch.device | str) -> tuple[Tensor, Tensor]:
    return torch.tensor(mean, device=device).view(1, -1, 1, 1), torch.tensor(std, device=device).view(1, -1, 1, 1)


def _text(value: Any) -> str:
    return "(" + ", ".join(f"{each:g}" for each in value) + ")" if isinstance(value, list) else f"{value}"
