"""Losses over feature maps and embeddings of single samples."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.numerics import (
    as_target,
    directions,
    full_precision,
    pool_to_smaller,
    require_at_least,
    require_choice,
    require_order,
    require_positive,
    require_same_shape,
)


class AttentionTransfer(nn.Module):
    """Attention transfer: the spatial maps of mean activation energy agree.

    Q(F) = vec(mean_c |F_c|^exponent) / ||.||_2. With norm "mse", Eq. 4 of Matsubara 2021
    (https://arxiv.org/abs/2011.12913) and all released code,

        L = mean over B x HW of (Q(F_s) - Q(F_t))^2

    and with norm "p", its Eq. 3, L = mean over B of ||Q(F_s) - Q(F_t)||_p.

    Zagoruyko, Komodakis 2017, https://arxiv.org/abs/1612.03928. Maps (B, C, H, W); channels may differ; if sizes do,
    the larger map is average-pooled first. The multiplier, 1000, is the weight of the term: the paper prints beta / 2,
    its released settings use beta.

    Args:
        norm: "mse" or "p".
        p: Order of the norm if `norm` is "p".
        exponent: Of the activations inside the channel mean.
    """

    def __init__(self, *, norm: str = "mse", p: float = 2.0, exponent: float = 2.0):
        super().__init__()
        require_choice(norm, ("mse", "p"), argument="norm")
        require_order(p, argument="p")
        require_positive(exponent, argument="exponent")
        if norm == "mse" and p != 2:
            raise ValueError(f"p={p} has no part in norm='mse': leave it out, or set norm=p")
        self.norm, self.p, self.exponent = norm, p, exponent

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: A tensor is not a map.
        """
        for role, feature in (("student", student), ("teacher", teacher)):
            if feature.dim() != 4:
                raise ValueError(f"AttentionTransfer needs maps (B, C, H, W), got {role} {tuple(feature.shape)}")
        student, teacher = pool_to_smaller(full_precision(student), as_target(teacher))
        difference = self._attention(student) - self._attention(teacher)
        if self.norm == "mse":
            return difference.square().mean()
        return torch.linalg.vector_norm(difference, ord=self.p, dim=1).mean()

    def _attention(self, feature: Tensor) -> Tensor:
        return directions(feature.abs().pow(self.exponent).mean(dim=1).flatten(1), dim=1)


class FactorTransfer(nn.Module):
    """Factor transfer, second stage: the student's factors against the paraphraser's.

    N(F) = vec(F) / ||.||_2. With p = 1, L = mean over B x D of |N(F_s) - N(F_t)|; else, as in torchdistill and not
    divided by D, L = mean over B of ||N(F_s) - N(F_t)||_p.

    Kim, Park, Kwak 2018, https://arxiv.org/abs/1802.04977. Factors (B, C, H, W) come from `adapters.FactorEncoder`, on
    the teacher's map (the paraphraser, frozen) and on the student's (the translator, with as many channels); if sizes
    differ the larger is average-pooled. All-zero factors give finite gradients.

    Args:
        p: Order of the norm.
    """

    def __init__(self, p: float = 1.0):
        super().__init__()
        require_order(p, argument="p")
        self.p = p

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The factors differ in batch or channels.
        """
        student, teacher = full_precision(student), as_target(teacher)
        if student.dim() == teacher.dim() == 4 and student.shape[:2] == teacher.shape[:2]:
            student, teacher = pool_to_smaller(student, teacher)
        require_same_shape(student, teacher, loss="FactorTransfer")
        difference = directions(student.flatten(1), dim=1) - directions(teacher.flatten(1), dim=1)
        if self.p == 1:
            return difference.abs().mean()
        return torch.linalg.vector_norm(difference, ord=self.p, dim=1).mean()


class FlowOfSolution(nn.Module):
    """FSP: how features change between two taps of one network, as a Gram matrix between the two.

    G = F1 F2^T / (H W), shape (B, C1, C2). L = mean over B of ||G_s - G_t||_F^2.

    Yim, Joo, Bae, Kim 2017, https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html.
    `student` and `teacher` are lists of two maps (B, C, H, W), shallow and deep. The larger of the two is pooled to the
    smaller. Sizes may differ between student and teacher, channels may not (`adapters.MatchChannels`).

    Args:
        pool: "average", or "max" as the paper does.
        reduction: "frobenius", the paper's; "mean" over all elements of G, which divides it by C1 C2; or "columns", the
            sum of the L2 norms of the C2 columns of G_s - G_t, as in torchdistill.
    """

    def __init__(self, *, pool: str = "average", reduction: str = "frobenius"):
        super().__init__()
        require_choice(pool, ("average", "max"), argument="pool")
        require_choice(reduction, ("frobenius", "mean", "columns"), argument="reduction")
        self.pool, self.reduction = pool, reduction

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: Not two maps a side, or channels that differ.
        """
        student_flow = self._flow([full_precision(feature) for feature in student], role="student")
        teacher_flow = self._flow([as_target(feature) for feature in teacher], role="teacher")
        if student_flow.shape != teacher_flow.shape:
            raise ValueError(
                f"FlowOfSolution needs the same channels on both sides, got student "
                f"{[tuple(feature.shape) for feature in student]} and teacher "
                f"{[tuple(feature.shape) for feature in teacher]}: read each student map through an adapter "
                f"(distill_app.adapters.MatchChannels)"
            )
        if self.reduction == "columns":
            return torch.linalg.vector_norm(student_flow - teacher_flow, dim=1).sum(dim=1).mean()
        squares = (student_flow - teacher_flow).square()
        return squares.mean() if self.reduction == "mean" else squares.sum(dim=(1, 2)).mean()

    def _flow(self, pair: list[Tensor], *, role: str) -> Tensor:
        if len(pair) != 2 or any(feature.dim() != 4 for feature in pair):
            raise ValueError(
                f"FlowOfSolution needs a list of two maps (B, C, H, W) as {role}, got shapes "
                f"{[tuple(feature.shape) for feature in pair]}; write {role}: [{role}.stage1, {role}.stage2]"
            )
        size = (min(feature.shape[-2] for feature in pair), min(feature.shape[-1] for feature in pair))
        pool = F.adaptive_avg_pool2d if self.pool == "average" else F.adaptive_max_pool2d
        first, second = (f if tuple(f.shape[-2:]) == size else pool(f, size) for f in pair)
        return first.flatten(2) @ second.flatten(2).transpose(1, 2) / (size[0] * size[1])


class ActivationBoundary(nn.Module):
    """DAB: the student's pre-activations lie on the teacher's side of zero, by a margin m.

    L = 1/B * sum over elements of (s + m)^2 [s > -m, t <= 0] + (s - m)^2 [s <= m, t > 0]

    Heo, Lee, Yun, Choi 2019, https://arxiv.org/abs/1811.03233. Both tensors are pre-activations of one shape, the
    student's through a connector (`adapters.ConvRegressor` with norm and pointwise). The authors' scale 3 / 1000 and
    their layer weights, 2^(i - n + 1) for layer i = 0..n-1 of n, are the weights of the terms.

    Args:
        margin: In units of the activation; 0 or more.
    """

    def __init__(self, margin: float = 1.0):
        super().__init__()
        require_at_least(margin, 0, argument="margin")
        self.margin = margin

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The shapes differ.
        """
        require_same_shape(student, teacher, loss="ActivationBoundary")
        student, teacher = full_precision(student), as_target(teacher)
        # Hinge form of the indicator form: both are zero, with zero gradient, on the teacher's side of the margin.
        wrong_side = torch.where(teacher > 0, self.margin - student, student + self.margin).clamp(min=0)
        return wrong_side.square().sum() / len(student)


class VariationalInformation(nn.Module):
    """VID: negative log-likelihood of the teacher's map under a Gaussian around the student's prediction of it.

    L = mean of [(mu - F_t)^2 / v_c + log v_c] / 2, v_c = softplus(r_c) + eps, one learnt r_c per channel.

    Ahn, Hu, Damianou, Lawrence, Dai 2019, https://arxiv.org/abs/1904.05835. `student` is mu, the output of
    `adapters.VIDRegressor`; both (B, C, H, W), the larger is average-pooled. The variance is a parameter of this loss,
    so it is trained with the stage (in one public code base it never is).

    Args:
        input_shapes: Argument name -> shape; the teacher's gives the number of channels.
        init_variance: v at the start; 5 in the authors' code.
        eps: Smallest variance.
    """

    def __init__(self, input_shapes: Mapping[str, Sequence[int]], *, init_variance: float = 5.0, eps: float = 1e-5):
        super().__init__()
        require_positive(eps, argument="eps")
        if not eps < init_variance < float("inf"):
            raise ValueError(f"init_variance={init_variance} must be above eps={eps}")
        self.eps = eps
        start = torch.full((input_shapes["teacher"][1],), init_variance - eps, dtype=torch.float64)
        self.raw_variance = nn.Parameter(start.expm1().log().to(torch.get_default_dtype()))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The maps differ in batch or channels.
        """
        student, teacher = full_precision(student), as_target(teacher)
        if student.dim() == teacher.dim() == 4:
            student, teacher = pool_to_smaller(student, teacher)
        require_same_shape(student, teacher, loss="VariationalInformation")
        variance = F.softplus(full_precision(self.raw_variance)) + self.eps
        variance = variance.view(1, -1, *[1] * (student.dim() - 2))
        return 0.5 * ((student - teacher).square() / variance + variance.log()).mean()


class PrimeAwareL2(nn.Module):
    """PAD-L2: squared distance of embeddings, each weighted by the certainty that the student learns for it.

    L = mean over B x D of (e_t - e_s)^2 / (eps + exp(v)) + v

    Zhang, Lan, Dai, Zeng, Bai, Chang, Wei 2020, https://arxiv.org/abs/2008.01458. Embeddings (B, D) or (B, D, 1, 1);
    v, the log-variance (B, D), comes from `adapters.LogVarianceHead` on the student's embedding.

    Args:
        eps: Smallest variance.
    """

    def __init__(self, eps: float = 1e-6):
        super().__init__()
        require_at_least(eps, 0, argument="eps")
        self.eps = eps

    def forward(self, student: Tensor, teacher: Tensor, log_variance: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The shapes differ.
        """
        student, teacher = full_precision(student).flatten(1), as_target(teacher).flatten(1)
        log_variance = full_precision(log_variance).flatten(1)
        require_same_shape(student, teacher, loss="PrimeAwareL2")
        if log_variance.shape != teacher.shape:
            raise ValueError(
                f"PrimeAwareL2 needs a log_variance of shape {tuple(teacher.shape)}, got {tuple(log_variance.shape)}: "
                f"build it with distill_app.adapters.LogVarianceHead and target: the teacher's embedding"
            )
        return ((teacher - student).square() / (self.eps + log_variance.exp()) + log_variance).mean()
