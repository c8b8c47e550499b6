"""Losses that compare the class probabilities of a batch as one table: by rows, by columns, by products of them."""

import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.numerics import as_target, full_precision, require_logits, require_positive


def pearson(first: Tensor, second: Tensor, *, eps: float) -> Tensor:
    """Pearson's correlation of every row with its counterpart: (R, K) x (R, K) -> (R,)."""
    first = first - first.mean(dim=1, keepdim=True)
    second = second - second.mean(dim=1, keepdim=True)
    return (first * second).sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1) + eps)


class PearsonDistance(nn.Module):
    """Distillation from a stronger teacher (DIST): correlations of probabilities, in place of their equality.

    L = T^2 [beta (1 - mean_b rho(p_s[b, :], p_t[b, :])) + gamma (1 - mean_c rho(p_s[:, c], p_t[:, c]))]

    where p is the softmax of z / T and rho Pearson's correlation: over the classes of a sample, and over the samples of
    a class.

    Huang, You, Wang, Qian, Xu 2022, https://arxiv.org/abs/2205.10536. As in the authors' code eps is added to the
    denominator of rho; one public framework clamps with it, which differs from the eighth digit on. Columns of hardly
    any probability thus count as uncorrelated, and a student with exactly equal logits gets a gradient of about a
    million: clip gradients where a head starts at zero.

    Logits are (B, C). With a batch of one there is nothing to correlate over samples: that part is T^2 gamma, without
    gradient.

    Args:
        temperature: Of both sides; 1 on ImageNet, 4 on CIFAR.
        beta: Weight of the correlation over classes.
        gamma: Weight of the correlation over samples.
        eps: Added to the product of norms.
    """

    def __init__(self, temperature: float = 1.0, *, beta: float = 1.0, gamma: float = 1.0, eps: float = 1e-8):
        super().__init__()
        require_positive(temperature, argument="temperature")
        self.temperature, self.beta, self.gamma, self.eps = temperature, beta, gamma, eps

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape.
        """
        require_logits(student, teacher, loss="PearsonDistance")
        student = F.softmax(full_precision(student) / self.temperature, dim=1)
        teacher = F.softmax(as_target(teacher) / self.temperature, dim=1)
        classes = 1 - pearson(student, teacher, eps=self.eps).mean()
        samples = 1 - pearson(student.T, teacher.T, eps=self.eps).mean()
        return self.temperature**2 * (self.beta * classes + self.gamma * samples)
