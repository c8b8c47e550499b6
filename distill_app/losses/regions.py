"""SDD: knowledge of parts of an image."""

import torch
from torch import Tensor, nn

from distill_app.losses.decoupled import DecoupledKL, NormalizedKD
from distill_app.losses.logits import KLDivergence
from distill_app.losses.numerics import require_labels, require_same_shape


class ScaleDecoupled(nn.Module):
    """Scale decoupled distillation (SDD): the loss of all regions; those that say otherwise than the whole count twice.

    L = 1 / (B N) * sum_b sum_k w_bk base(r_t[b, k], r_s[b, k], y_b)

    over the N regions k; w is 2 where the teacher is right of the region and wrong of the whole image, or the other way
    round, and else 1.

    Wei, Luo, Luo 2024, https://arxiv.org/abs/2403.13512. Deliberately different: with NKD as the base the label is left
    out of the other classes, which the authors' code does not do, and nothing is replaced by zeros.

    Logits of regions (B, C, N), the whole image first, come from `adapters.RegionLogits`; labels are (B,).

    Args:
        base: `KLDivergence`, `DecoupledKL` or `NormalizedKD` of this package, with arguments of its own.

    Raises:
        ValueError: Another base, or one with a reduction of its own.
    """

    def __init__(self, base: nn.Module):
        super().__init__()
        if not isinstance(base, KLDivergence | DecoupledKL | NormalizedKD):
            raise ValueError(
                f"base={type(base).__name__} has no loss of single rows; allowed: distill_app.losses.KLDivergence, "
                f"DecoupledKL, NormalizedKD"
            )
        if isinstance(base, KLDivergence) and base.reduction != "batchmean":
            raise ValueError(
                f"base.reduction={base.reduction!r} has no part in ScaleDecoupled, which averages over regions: leave "
                f"it out, and use the term's weight"
            )
        self.base = base

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape or are not (B, C, N), or the labels are not one for each image.
        """
        require_same_shape(student, teacher, loss="ScaleDecoupled")
        if student.dim() != 3:
            raise ValueError(
                f"ScaleDecoupled needs logits of regions (B, C, N), got {tuple(student.shape)}: read a "
                f"distill_app.adapters.RegionLogits of either network"
            )
        require_labels(target, student, loss="ScaleDecoupled")
        batch, classes, regions = student.shape
        rows = [logits.transpose(1, 2).reshape(-1, classes) for logits in (student, teacher)]
        each = self.base.rows(rows[0], rows[1], target.repeat_interleave(regions)).view(batch, regions)
        right = teacher.argmax(dim=1) == target.unsqueeze(1)
        return (each * torch.where(right == right[:, :1], 1.0, 2.0)).mean()
