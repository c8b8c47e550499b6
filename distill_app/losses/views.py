"""CRLD: what networks say of a weak and a strong view of an image."""

import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.logits import softened_kl
from distill_app.losses.numerics import as_target, full_precision, require_logits, require_positive, require_share


class CrossViewKL(nn.Module):
    """Cross-view consistency regularisation (CRLD): KD of each view, and of each view by what is said of the other.

    L = 1 / B * sum_b within m_w [KL(t_w || s_w) + KL(t_s || s_s)] + across m_s [KL(t_w || s_s) + KL(t_s || s_w)]

    of softmaxes at temperature T, times T^2; m_w is 1 where the teacher's largest probability of the weak view, at
    temperature 1, reaches a bound, m_s the same of the strong view. Images that it leaves out count in B.

    Zhang, Yang, Chen 2024, https://arxiv.org/abs/2412.16493.

    Logits are (2 B, C), rows grouped by image, the weak view before the strong one, as `data.StrongView` makes them.

    Args:
        temperature: Of both sides; 4 on CIFAR-100, 1 on ImageNet.
        within: Weight of a view by itself; 0.5 to 2 on CIFAR-100, with the pair.
        across: Weight of a view by the other.
        weak_confidence: Bound of m_w.
        strong_confidence: Bound of m_s.
    """

    def __init__(
        self,
        temperature: float = 4.0,
        *,
        within: float = 2.0,
        across: float = 0.5,
        weak_confidence: float = 0.9,
        strong_confidence: float = 0.2,
    ):
        super().__init__()
        require_positive(temperature, argument="temperature")
        require_share(weak_confidence, argument="weak_confidence")
        require_share(strong_confidence, argument="strong_confidence")
        self.temperature, self.within, self.across = temperature, within, across
        self.bounds = (weak_confidence, strong_confidence)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape, or their number is odd.
        """
        require_logits(student, teacher, loss="CrossViewKL")
        if len(student) % 2:
            raise ValueError(
                f"CrossViewKL needs two rows for each image, got {len(student)}: the stage needs "
                f"wrappers: {{views: {{_target_: distill_app.data.StrongView}}}}"
            )
        ours, theirs = full_precision(student).unflatten(0, (-1, 2)), as_target(teacher).unflatten(0, (-1, 2))
        sure = F.softmax(theirs, dim=2).amax(dim=2)
        weak, strong = (sure[:, view] >= bound for view, bound in enumerate(self.bounds))
        within = softened_kl(ours, theirs, self.temperature).sum(dim=1)
        across = softened_kl(ours, theirs.flip(1), self.temperature).sum(dim=1)
        return (self.within * (weak * within) + self.across * (strong * across)).mean()
