"""What several loss families need of tensors: precision, equal map sizes, and the error for shapes that do not fit."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def full_precision(tensor: Tensor) -> Tensor:
    """At least float32: sums and exponentials of bf16 or fp16 activations lose too much. float64 stays float64."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def as_target(tensor: Tensor) -> Tensor:
    """What the student is compared with: at least float32, and no gradient flows back into it."""
    return full_precision(tensor).detach()


SHORTEST = 1e-12  # what is shorter has no direction


def directions(vectors: Tensor, *, dim: int, p: float = 2.0, eps: float = 0.0) -> Tensor:
    """Vectors divided by their length (and eps), as torch.nn.functional.normalize does; those of length zero stay zero.

    They have no gradient: the eps that otherwise takes the place of their length would make one of 1e12, which is
    infinite in fp16.
    """
    length = torch.linalg.vector_norm(vectors, ord=p, dim=dim, keepdim=True)
    return vectors / (length + eps).masked_fill(length <= SHORTEST, math.inf)


def has_spread(values: Tensor, *, dim: int) -> Tensor:
    """1 where values differ along a dimension by more than their own rounding, else 0, without gradient."""
    values = values.detach()
    spread = (values - values.mean(dim=dim, keepdim=True)).norm(dim=dim)
    return (spread > 4 * torch.finfo(values.dtype).eps * values.norm(dim=dim)).to(values.dtype)


def pool_to_smaller(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pools two maps (B, C, H, W) to the smaller height and the smaller width of the two."""
    size = (min(first.shape[-2], second.shape[-2]), min(first.shape[-1], second.shape[-1]))
    return _pool(first, size), _pool(second, size)


def _pool(feature: Tensor, size: tuple[int, int]) -> Tensor:
    return feature if tuple(feature.shape[-2:]) == size else F.adaptive_avg_pool2d(feature, size)


def require_same_shape(student: Tensor, teacher: Tensor, *, loss: str) -> None:
    """Refuses what would otherwise broadcast silently or fail with a message about operands.

    Raises:
        ValueError: The shapes differ.
    """
    if student.shape != teacher.shape:
        adapter = "LinearProjector" if teacher.dim() == 2 else "ConvRegressor"
        raise ValueError(
            f"{loss} needs student and teacher of one shape, got student {tuple(student.shape)} and "
            f"teacher {tuple(teacher.shape)}: read the student through an adapter (distill_app.adapters.{adapter})"
        )


def require_same_channels(student: Tensor, teacher: Tensor, *, loss: str) -> None:
    """Refuses what are no maps of one batch and one number of channels; their sizes may differ.

    Raises:
        ValueError: A tensor has not four dimensions, or the first two of them differ.
    """
    if not (student.dim() == teacher.dim() == 4 and student.shape[:2] == teacher.shape[:2]):
        raise ValueError(
            f"{loss} needs maps (B, C, H, W) of the same channels, got student {tuple(student.shape)} and teacher "
            f"{tuple(teacher.shape)}: read stages, the student through an adapter (distill_app.adapters.MatchChannels)"
        )


def require_maps(student: Tensor, teacher: Tensor, *, loss: str) -> None:
    """Refuses what are no maps of one batch; channels and sizes may differ.

    Raises:
        ValueError: A tensor has not four dimensions, or the first of them differ.
    """
    if not (student.dim() == teacher.dim() == 4 and student.shape[0] == teacher.shape[0]):
        raise ValueError(
            f"{loss} needs maps (B, C, H, W) of one batch, got student {tuple(student.shape)} and teacher "
            f"{tuple(teacher.shape)}: read stages, such as student.stage4 and teacher.stage4"
        )


def require_same_batch(student: Tensor, teacher: Tensor, *, loss: str) -> None:
    """Refuses relations between samples of two different batches.

    Raises:
        ValueError: The first dimensions differ.
    """
    if student.shape[:1] != teacher.shape[:1]:
        raise ValueError(
            f"{loss} compares samples of one batch, got student {tuple(student.shape)} and "
            f"teacher {tuple(teacher.shape)}: give both sides an address with the same first dimension"
        )


def require_logits(student: Tensor, teacher: Tensor, *, loss: str) -> None:
    """Refuses what is not one row of class logits for each image, of both networks.

    Raises:
        ValueError: The shapes differ, or are not (B, C).
    """
    require_same_shape(student, teacher, loss=loss)
    if student.dim() != 2:
        raise ValueError(
            f"{loss} needs class logits (B, C), got {tuple(student.shape)}: read student.logits and teacher.logits"
        )


def require_labels(target: Tensor, student: Tensor, *, loss: str) -> None:
    """Refuses targets that are not one class for each row of logits (B, C).

    Raises:
        ValueError: The targets are mixed or several labels, or belong to another batch.
    """
    images = len(target) if target.dim() == 1 and not target.is_floating_point() else 0
    if images and len(student) > images and len(student) % images == 0:
        raise ValueError(
            f"{loss} needs one class index for each row of logits, and there are {len(student) // images} times as "
            f"many rows ({len(student)}) as labels ({images}): rows of several views of an image, of which it reads one"
        )
    if target.shape != student.shape[:1] or target.is_floating_point():
        raise ValueError(
            f"{loss} needs one class index for each image, ({len(student)},) integers, got {tuple(target.shape)} of "
            f"{target.dtype}: read batch.target of data with one label for each image, and mix no labels"
        )


def require_positive(value: float, *, argument: str) -> None:
    """Refuses what has to be above 0, and a number.

    Raises:
        ValueError: It is 0 or below, infinite or NaN.
    """
    if not 0 < value < math.inf:
        raise ValueError(f"{argument}={value} must be above 0{_finite(value)}")


def require_at_least(value: float, least: float, *, argument: str) -> None:
    """Refuses what is too small, or no number.

    Raises:
        ValueError: It is below, infinite or NaN.
    """
    if not least <= value < math.inf:
        raise ValueError(f"{argument}={value} must be {least} or more{_finite(value)}")


def _finite(value: float) -> str:
    return "" if math.isfinite(value) else " and finite"


def require_share(value: float, *, argument: str) -> None:
    """Refuses what is no share or probability.

    Raises:
        ValueError: It lies outside of [0, 1].
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{argument}={value} must lie between 0 and 1")


def require_order(value: float, *, argument: str) -> None:
    """Refuses what is no order of a norm; infinity is one, that of the largest element.

    Raises:
        ValueError: It is 0 or below, or NaN.
    """
    if not value > 0:
        raise ValueError(f"{argument}={value} must be above 0, as the order of a norm")


def require_choice(value: str, allowed: tuple[str, ...], *, argument: str) -> None:
    """Refuses an option that does not exist.

    Raises:
        ValueError: The value is none of those allowed.
    """
    if value not in allowed:
        raise ValueError(f"{argument}={value!r} does not exist; allowed: {', '.join(allowed)}")
