"""Losses over relations between the samples of a batch. All take (B, ...) tensors and need no equal widths."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.numerics import (
    as_target,
    directions,
    full_precision,
    require_at_least,
    require_choice,
    require_order,
    require_positive,
    require_same_batch,
)

# A distance below this counts as this, without gradient: the square root has none at zero.
SMALLEST_DISTANCE = 1e-6


def _embeddings(student: Tensor, teacher: Tensor, *, loss: str) -> tuple[Tensor, Tensor]:
    require_same_batch(student, teacher, loss=loss)
    return full_precision(student).flatten(1), as_target(teacher).flatten(1)


class ProbabilisticTransfer(nn.Module):
    """PKT: the probability that one sample picks another as its neighbour, by cosine similarity.

    P_ij = k_ij / sum_j k_ij, k = (cosine + 1) / 2. L = mean over B x B of P_t log((P_t + eps) / (P_s + eps)).

    Passalis, Tefas 2018, https://arxiv.org/abs/1803.10837. The mean is over all pairs, as in the authors' code, hence
    typical weights of 30000. An all-zero embedding gives finite gradients (NaN in the authors' code).

    Args:
        eps: Added to norms and probabilities.
    """

    whole_batch = True

    def __init__(self, eps: float = 1e-7):
        super().__init__()
        require_positive(eps, argument="eps")
        self.eps = eps

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar, of embeddings (B, D_s) and (B, D_t)."""
        student, teacher = _embeddings(student, teacher, loss="ProbabilisticTransfer")
        picked, wanted = self._neighbours(student), self._neighbours(teacher)
        return (wanted * ((wanted + self.eps) / (picked + self.eps)).log()).mean()

    def _neighbours(self, embedding: Tensor) -> Tensor:
        embedding = directions(embedding, dim=1, eps=self.eps)
        kernel = (embedding @ embedding.T + 1) / 2
        return kernel / kernel.sum(dim=1, keepdim=True)


class RelationalDistance(nn.Module):
    """RKD, distances: pairwise distances agree up to scale.

    L = mean over B x B of smooth_l1(d_s / mu_s, d_t / mu_t), mu the mean distance of two different samples.

    Park, Kim, Lu, Cho 2019, https://arxiv.org/abs/1904.05068. Embeddings (B, D), not L2-normalised. Weights of distance
    and angle: 1 and 2 in the paper, 25 and 50 on CIFAR. A batch of one gives 0.
    """

    whole_batch = True

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar."""
        student, teacher = _embeddings(student, teacher, loss="RelationalDistance")
        return F.smooth_l1_loss(self._distances(student), self._distances(teacher))

    @staticmethod
    def _distances(embedding: Tensor) -> Tensor:
        # Not by x^2 + y^2 - 2xy: in float32 that loses the distance of close samples.
        raw = torch.cdist(embedding, embedding, compute_mode="donot_use_mm_for_euclid_dist")
        same = torch.eye(len(raw), dtype=torch.bool, device=raw.device)
        distances = raw.clamp(min=SMALLEST_DISTANCE).masked_fill(same, 0.0)
        pairs = max(len(raw) * (len(raw) - 1), 1)
        return distances / (distances.sum() / pairs).clamp(min=SMALLEST_DISTANCE)


class RelationalAngle(nn.Module):
    """RKD, angles: the angles of all triplets agree.

    L = mean over B x B x B of smooth_l1(cos_s(j, i, k), cos_t(j, i, k)), the angle at i.

    Park, Kim, Lu, Cho 2019, https://arxiv.org/abs/1904.05068. Embeddings (B, D), not L2-normalised. Memory grows as
    B x B x (B + D): use it on pooled embeddings, not on maps. A batch of one gives 0.
    """

    whole_batch = True

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar."""
        student, teacher = _embeddings(student, teacher, loss="RelationalAngle")
        return F.smooth_l1_loss(self._cosines(student), self._cosines(teacher))

    @staticmethod
    def _cosines(embedding: Tensor) -> Tensor:
        edges = directions(embedding.unsqueeze(0) - embedding.unsqueeze(1), dim=2)
        return edges @ edges.transpose(1, 2)


class CorrelationCongruence(nn.Module):
    """CCKD: the correlation matrices of embeddings agree.

    L = ||K_s - K_t||_F^2 / B^2 with K_ij = k(e_i, e_j) of L2-normalised embeddings. Kernel "bilinear" is x.y; kernel
    "gaussian" is the Taylor expansion exp(-2 gamma) sum_{p=0..order} (2 gamma)^p / p! (x.y)^p.

    Peng, Jin, Liu, Li, Wu, Liu, Zhou, Zhang 2019, https://arxiv.org/abs/1904.01802. Both embeddings (B, D) are learnt
    (`adapters.LinearProjector` to 128 features), so the gradient flows to both sides, unlike in the other losses here.

    Args:
        kernel: "gaussian" or "bilinear".
        gamma: Of the Gaussian kernel; 0.4 in the paper.
        order: Of its expansion, 1 or more; 2 in the paper.
        norm: "squared", or "frobenius" for ||.||_F / B^2 as in torchdistill.
        normalize: Whether embeddings are L2-normalised first; torchdistill does not.
    """

    whole_batch = True

    def __init__(
        self,
        *,
        kernel: str = "gaussian",
        gamma: float = 0.4,
        order: int = 2,
        norm: str = "squared",
        normalize: bool = True,
    ):
        super().__init__()
        require_choice(kernel, ("gaussian", "bilinear"), argument="kernel")
        require_choice(norm, ("squared", "frobenius"), argument="norm")
        require_positive(gamma, argument="gamma")
        require_at_least(order, 1, argument="order")
        if kernel == "bilinear" and (gamma, order) != (0.4, 2):
            raise ValueError(f"gamma={gamma} and order={order} have no part in kernel='bilinear': leave them out")
        self.kernel, self.gamma, self.order = kernel, gamma, order
        self.norm, self.normalize = norm, normalize

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar."""
        require_same_batch(student, teacher, loss="CorrelationCongruence")
        difference = self._correlation(student) - self._correlation(teacher)
        if self.norm == "squared":
            return difference.square().mean()
        return torch.linalg.vector_norm(difference) / difference.numel()

    def _correlation(self, embedding: Tensor) -> Tensor:
        embedding = full_precision(embedding).flatten(1)
        if self.normalize:
            embedding = directions(embedding, dim=1)
        product = embedding @ embedding.T
        if self.kernel == "bilinear":
            return product
        term = total = torch.ones_like(product)
        for power in range(1, self.order + 1):
            term = term * product * (2 * self.gamma / power)
            total = total + term
        return total * math.exp(-2 * self.gamma)


class SimilarityPreserving(nn.Module):
    """SPKD: samples that look alike to the teacher look alike to the student.

    L = ||N(F_t F_t^T) - N(F_s F_s^T)||_F^2 / B^2, F flattened to (B, D), N divides every row by its L2 norm.

    Tung, Mori 2019, https://arxiv.org/abs/1907.09682.

    Args:
        p: The norm by which rows are divided: 2, the paper's; torchdistill has 1, by accident.
    """

    whole_batch = True

    def __init__(self, p: float = 2.0):
        super().__init__()
        require_order(p, argument="p")
        self.p = p

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar, of features (B, ...)."""
        student, teacher = _embeddings(student, teacher, loss="SimilarityPreserving")
        return (self._similarity(student) - self._similarity(teacher)).square().mean()

    def _similarity(self, feature: Tensor) -> Tensor:
        return directions(feature @ feature.T, p=self.p, dim=1)
