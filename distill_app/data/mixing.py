"""Mixed samples: each is blended with another one, and its label becomes the shares of the classes."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta
from torch.nn.functional import one_hot

from distill_app.data.order import Key
from distill_app.data.samples import SampleWrapper
from distill_app.errors import DataError


class _Mixing(SampleWrapper):
    """What Mixup and CutMix share: partner, share and soft label.

    `target` becomes float32 (num_classes,): lam * onehot(y) + (1 - lam) * onehot(y of the partner), which
    `torch.nn.CrossEntropyLoss` takes; a target that is mixed already is mixed once more. `index` stays that of the
    first image. Partner and share are drawn from torch's generator, so they are functions of (seed, stage, view,
    index) as the augmentation is: the same view of the same image is the same mixture, whichever batch it is in, and
    what a teacher says of it can be cached. The authors' code mixes a batch with itself in another order, one share
    for all; here every sample has a partner from the whole training set and a share of its own.

    Args:
        samples: `Samples`, or another wrapper.
        num_classes: Given by the program.
        alpha: Of Beta(alpha, alpha), from which the share is drawn; 1 is uniform, towards 0 little is mixed.
        probability: Of mixing a sample at all; else only its label becomes a vector.

    Raises:
        ValueError: An alpha not above 0, a probability outside of [0, 1], or images of two sizes.
    """

    def __init__(self, samples: Any, *, num_classes: int, alpha: float = 1.0, probability: float = 1.0) -> None:
        super().__init__(samples)
        if alpha <= 0:
            raise ValueError(f"alpha: must be above 0, got {alpha}")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability: must be in [0, 1], got {probability}")
        self.num_classes, self.probability = num_classes, probability
        self._beta = Beta(torch.tensor(float(alpha)), torch.tensor(float(alpha)), validate_args=False)

    def load(self, key: Key) -> dict[str, Any]:
        """One mixed sample; the partner is loaded in the same view."""
        sample = self.samples.load(key)
        mixed = float(torch.rand(())) < self.probability
        lam, partner, following = self._beta.sample().item(), torch.randint(len(self), ()), torch.randint(2**62, ())
        target = self._soft(sample["target"])
        if mixed:
            place = torch.rand(2).tolist()
            other = self.samples.load((int(partner), key[1]))
            if other["input"].shape != sample["input"].shape:
                raise DataError(
                    f"{type(self).__name__} needs images of one size, got {tuple(sample['input'].shape)} and "
                    f"{tuple(other['input'].shape)}: end the dataset's train_transform with a crop to one size"
                )
            image, share = self._blend(sample["input"], other["input"], lam, place)
            target = share * target + (1 - share) * self._soft(other["target"])
            sample = sample | {"input": image}
        # The partner has seeded the generator with its own place: a wrapper around this one goes on from ours.
        torch.default_generator.manual_seed(int(following))
        return sample | {"target": target}

    def _soft(self, target: Any) -> Tensor:
        target = torch.as_tensor(target)
        return target.float() if target.dim() else one_hot(target.long(), self.num_classes).float()

    def _blend(self, image: Tensor, other: Tensor, lam: float, place: list[float]) -> tuple[Tensor, float]:
        """The mixture, and the share that the first image has in it."""
        raise NotImplementedError


class Mixup(_Mixing):
    """lam * image + (1 - lam) * partner, labels alike (Zhang et al. 2018, https://arxiv.org/abs/1710.09412).

    uint8 images are rounded to uint8 again. See `_Mixing` for arguments and for how partners are drawn.
    In a stage: `wrappers: {mixup: {_target_: distill_app.data.Mixup, alpha: 0.2}}`.
    """

    def _blend(self, image: Tensor, other: Tensor, lam: float, place: list[float]) -> tuple[Tensor, float]:
        blend = torch.lerp(other.float(), image.float(), lam)
        return (blend.round_().to(image.dtype) if image.dtype == torch.uint8 else blend.to(image.dtype)), lam


class CutMix(_Mixing):
    """A box of the partner is pasted into the image (Yun et al. 2019, https://arxiv.org/abs/1905.04899).

    The box has the image's proportions and (1 - lam) of its area, around a uniform centre, cut at the border; lam
    becomes the share of pixels that stay. See `_Mixing` for arguments and for how partners are drawn.
    In a stage: `wrappers: {cutmix: {_target_: distill_app.data.CutMix}}`.
    """

    def _blend(self, image: Tensor, other: Tensor, lam: float, place: list[float]) -> tuple[Tensor, float]:
        (top, bottom), (left, right) = (
            _span(side, math.sqrt(1 - lam), centre) for side, centre in zip(image.shape[-2:], place, strict=True)
        )
        mixture = image.clone()
        mixture[..., top:bottom, left:right] = other[..., top:bottom, left:right]
        return mixture, 1 - (bottom - top) * (right - left) / (image.shape[-2] * image.shape[-1])


def _span(side: int, ratio: float, centre: float) -> tuple[int, int]:
    """Where a cut begins and ends along one side, in pixels."""
    middle, half = int(centre * side), int(side * ratio) // 2
    return max(middle - half, 0), min(middle + half, side)
