"""Losses over several layers of both networks at once, weighted by a learnt attention between them."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.numerics import as_target, directions, full_precision, pool_to_smaller


def _require_attention(attention: Tensor, wanted: tuple[int, int, int], *, loss: str, adapter: str) -> None:
    if tuple(attention.shape) != wanted:
        raise ValueError(
            f"{loss} needs an attention of shape {wanted} for these layers, got {tuple(attention.shape)}: read a "
            f"distill_app.adapters.{adapter} of the same layers"
        )


class SemanticCalibration(nn.Module):
    """SemCKD: each of the student's layers learns from a mixture of the teacher's, mixed for each image.

    L = 1 / (B S) * sum_b sum_i sum_j a[b, i, j] mean (r_ij(F_i) - F_j)^2

    over the S layers i of the student's and all layers j of the teacher's.

    Chen, Mei, Zhang, Wang, Feng, Chen 2021, https://arxiv.org/abs/2012.03236. `student` is the nested list of
    predictions r_ij from `adapters.CrossLayerProjections`, `teacher` the list of maps, `attention` (B, S, T) from
    `adapters.BatchSimilarityAttention`. The teacher's map is average-pooled where the prediction is smaller.
    """

    whole_batch = True  # by its attention, which reads similarities between the samples

    def forward(self, student: Sequence[Sequence[Tensor]], teacher: Sequence[Tensor], attention: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The attention is of other layers, or a prediction has other channels than its target.
        """
        shape = (len(teacher[0]), len(student), len(teacher))
        _require_attention(attention, shape, loss="SemanticCalibration", adapter="BatchSimilarityAttention")
        attention = full_precision(attention)
        total = attention.new_zeros(())
        for i, predictions in enumerate(student):
            for j, (prediction, target) in enumerate(zip(predictions, teacher, strict=True)):
                if prediction.shape[:2] != target.shape[:2]:
                    raise ValueError(
                        f"SemanticCalibration needs predictions of the teacher's channels, got "
                        f"{tuple(prediction.shape)} of {tuple(target.shape)}: read a "
                        f"distill_app.adapters.CrossLayerProjections whose target is the list of teacher's maps"
                    )
                ours, theirs = pool_to_smaller(full_precision(prediction), as_target(target))
                total = total + (attention[:, i, j] * (ours - theirs).square().mean(dim=(1, 2, 3))).mean()
        return total / len(student)


class AttendedTransfer(nn.Module):
    """AFD: each of the teacher's layers is learnt by a mixture of the student's, mixed for each image.

    L = sum_t mean_b sum_s a[b, t, s] mean over HW of (phi(F_s) - phi(F_t))^2,  phi(F) = vec(mean_c F^2) / ||.||_2

    Ji, Heo, Park 2021, https://arxiv.org/abs/2102.02973. `student` and `teacher` are lists of maps (B, C, H, W);
    `attention` (B, T, S) comes from `adapters.CrossLayerAttention`. The student's energies are average-pooled to the
    size of each of the teacher's, which also enlarges, before they are normalised.
    """

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], attention: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The attention is of other layers.
        """
        shape = (len(teacher[0]), len(teacher), len(student))
        _require_attention(attention, shape, loss="AttendedTransfer", adapter="CrossLayerAttention")
        attention = full_precision(attention)
        energies = [full_precision(feature).square().mean(dim=1, keepdim=True) for feature in student]
        total = attention.new_zeros(())
        for t, target in enumerate(teacher):
            wanted = directions(as_target(target).square().mean(dim=1).flatten(1), dim=1)
            size = (target.shape[2], target.shape[3])
            for s, energy in enumerate(energies):
                ours = directions(F.adaptive_avg_pool2d(energy, size).flatten(1), dim=1)
                total = total + (attention[:, t, s] * (ours - wanted).square().mean(dim=1)).mean()
        return total
