"""Adapters of logits: Spherical KD's scales."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.adapters.shapes import Shape
from distill_app.losses.numerics import full_precision, require_positive
from distill_app.losses.standardised import deviation, require_spread


class RescaledLogits(nn.Module):
    """Spherical KD: the student's logits with the teacher's spread, image by image.

    z_s std(z_t) / std(z_s), standard deviations over classes, unbiased; the gradient flows through that of the student.

    Guo, Chen, Hu, Zhu, He, Cai 2020, https://arxiv.org/abs/2010.07485, as the authors train. Deliberately different: a
    standard deviation is at least 0.001, where equal logits give NaN in their code.

    Args:
        in_shape: Of the student's and the teacher's logits, (B, C) each, of at least three classes.

    Raises:
        ValueError: They are not two of one shape.
    """

    def __init__(self, in_shape: Sequence[Shape]):
        super().__init__()
        if len(in_shape) != 2 or isinstance(in_shape[0], int) or in_shape[0] != in_shape[1] or len(in_shape[0]) != 2:
            raise ValueError(
                f"RescaledLogits reads logits (B, C) of both networks, got {in_shape}: "
                f"source: [student.logits, teacher.logits]"
            )

    def forward(self, logits: Sequence[Tensor]) -> Tensor:
        """[(B, C), (B, C)] -> (B, C), the student's.

        Raises:
            ValueError: There are one or two classes.
        """
        student, teacher = full_precision(logits[0]), full_precision(logits[1]).detach()
        return student * (deviation(teacher) / deviation(student))


class NormedLogits(nn.Module):
    """Spherical KD, the other form: logits of mean zero and a fixed spread, image by image.

    multiplier (z - mean z) / sqrt(var z + 1e-7), the variance biased.

    Guo, Chen, Hu, Zhu, He, Cai 2020, https://arxiv.org/abs/2010.07485, as in the authors' README and in PaddleClas; it
    is applied to the logits of either network. It is another loss than that of `RescaledLogits`.

    Args:
        multiplier: The spread; 2 to 3.
    """

    def __init__(self, *, multiplier: float = 2.0):
        super().__init__()
        require_positive(multiplier, argument="multiplier")
        self.multiplier = multiplier

    def forward(self, logits: Tensor) -> Tensor:
        """(B, C) -> (B, C).

        Raises:
            ValueError: There are one or two classes.
        """
        require_spread(logits)
        logits = full_precision(logits)
        return self.multiplier * F.layer_norm(logits, logits.shape[1:], eps=1e-7)
