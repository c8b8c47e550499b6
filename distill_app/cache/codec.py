"""How an activation becomes a record of the teacher cache, and back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distill_app.errors import CacheError
from distill_app.networks.taps import shapes_in

LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class Codec:
    """How a tap becomes a row and back.

    Whole: float16, clamped to +-65504. With top_k, for logits (B, C): the k largest logits as float16 with their
    classes, and one number r = T log(sum of exp(z / T) over the others) - T log(C - k). Back come logits with r in the
    place of every other class. Their softmax at temperature T has the probabilities of the k classes (to the
    rounding), and spreads the rest evenly. At a higher temperature it gives the rest more than it had, at a lower one
    less, by the convexity of exp.

    Args:
        rows: How many rows of the tap each sample has: several where wrappers make several images of one.
        shape: Of one row.
        top_k: k, None stores all.
        temperature: T, at which the terms of the stage read the logits.
    """

    rows: int
    shape: tuple[int, ...]
    top_k: int | None = None
    temperature: float = 1.0

    @property
    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Array name -> numpy type and shape, of one sample."""
        if self.top_k is None:
            return {"values": ("<f2", (self.rows, *self.shape))}
        kind = "<u2" if self.shape[0] <= 2**16 else "<u4"
        return {"values": ("<f2", (self.rows, self.top_k + 1)), "indices": (kind, (self.rows, self.top_k))}

    def encode(self, value: Tensor) -> dict[str, Tensor]:
        """(B * rows, *shape) -> array name -> (B, rows, ...), on the same device."""
        value = value.detach().float()
        if self.top_k is None:
            return {"values": self._rounded(value)}
        top, indices = value.topk(self.top_k, dim=1)
        others = (value.scatter(1, indices, -torch.inf) / self.temperature).logsumexp(dim=1, keepdim=True)
        even = self.temperature * (others - math.log(self.shape[0] - self.top_k))
        return {
            "values": self._rounded(torch.cat([top, even], dim=1)),
            "indices": indices.to(torch.int32).unflatten(0, (-1, self.rows)),
        }

    def _rounded(self, value: Tensor) -> Tensor:
        return value.clamp(-LARGEST, LARGEST).half().unflatten(0, (-1, self.rows))

    def decode(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """What `encode` gave -> float32 (B * rows, *shape)."""
        values = arrays["values"].flatten(0, 1).float()
        if self.top_k is None:
            return values
        indices = arrays["indices"].flatten(0, 1).long()
        return values[:, -1:].repeat(1, self.shape[0]).scatter(1, indices, values[:, :-1])


def uncached(address: str, reason: str) -> CacheError:
    """The refusal of what a stage reads and cannot be kept."""
    remedy = "list others in cache.taps, or set cache.enabled=false"
    return CacheError(f"cache.taps: {address} cannot be cached: {reason}; {remedy}")


def codec_of(
    address: str, example: Any, *, count: int, classes: int | None, top_k: int | None, temperature: float = 1.0
) -> Codec:
    """How a tap is stored, from an example of it.

    Args:
        address: Of the tap, for messages.
        example: Its activation.
        count: Of how many samples.
        classes: How many class logits it holds that are read by their softmax, which top_k is for; None: none.
        top_k: As in the config.
        temperature: At which logits are read.

    Raises:
        CacheError: Not a tensor of floats with the same number of rows for each sample.
    """
    if not isinstance(example, Tensor) or not example.is_floating_point() or not example.dim() or len(example) % count:
        found = f"{shapes_in(example) or type(example).__name__} for {count} samples"
        raise uncached(address, f"{found}, and a tensor of floats with rows for each sample is needed")
    shape = tuple(example.shape[1:])
    if top_k is None or shape != (classes,):
        return Codec(len(example) // count, shape)
    return Codec(len(example) // count, shape, top_k, temperature)
