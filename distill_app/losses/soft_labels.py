"""Losses whose soft labels are made without a teacher."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.decoupled import other_classes
from distill_app.losses.numerics import full_precision, require_labels, require_same_batch

EPS = 1e-6


class CustomizedSoftLabels(nn.Module):
    """Universal self-knowledge distillation (USKD): soft labels from the student itself.

    L = alpha L_label + beta L_others + mu L_weak, all means over B:
    L_label = -w log p(label), w = 1 + p(label)^2 - mean over the batch of p(label)^2, a constant
    L_others = -sum_{c != label} z_c log r_c, r the softmax over the other classes, z_c ~ 1 / rank of c, of sum 1
    L_weak = cross-entropy of the weak logits with the label smoothed by 0.1

    Classes are ranked by q / (1 - q(label)) + log p / (1 - log p(label)), q of the weak logits and p of the student,
    the logarithm in the second part alone, as in the authors' code: Zipf's law says how much each gets.

    Yang, Zeng, Li, Zhang, Yuan, Li 2023, https://arxiv.org/abs/2303.13005. Zipf's shares are those of all classes, of
    which the one that falls on the label is left out before they are made to sum to one, as in the authors' code. One
    label for each image; their code also takes mixed ones.

    Args:
        alpha: Weight of the label; 1 for CNNs.
        beta: Of the other classes; 0.1 for CNNs.
        mu: Of the weak logits; 0.005 for CNNs.
    """

    whole_batch = True  # the mean of p(label)^2

    def __init__(self, *, alpha: float = 1.0, beta: float = 0.1, mu: float = 0.005):
        super().__init__()
        self.alpha, self.beta, self.mu = alpha, beta, mu

    def forward(self, student: Tensor, weak: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            student: Logits (B, C).
            weak: Logits of a linear layer on earlier features, (B, C).
            target: Labels (B,).

        Raises:
            ValueError: The logits differ in shape, or the labels are not one for each row.
        """
        require_same_batch(student, weak, loss="CustomizedSoftLabels")
        require_labels(target, student, loss="CustomizedSoftLabels")
        if student.shape != weak.shape:
            raise ValueError(
                f"CustomizedSoftLabels needs weak logits of the same classes, got {tuple(weak.shape)} beside "
                f"{tuple(student.shape)}: read a distill_app.adapters.LinearProjector with out_features of that number"
            )
        student, weak, label = full_precision(student), full_precision(weak), target.unsqueeze(1)
        sure = F.softmax(student, dim=1).gather(1, label).squeeze(1).detach().square()
        of_label = (1 + sure - sure.mean()) * F.cross_entropy(student, target, reduction="none")
        of_weak = F.cross_entropy(weak, target, label_smoothing=0.1)
        others = F.log_softmax(other_classes(student, target), dim=1)
        of_others = -(self._shares(student, weak, target) * others).sum(dim=1)
        return (self.alpha * of_label + self.beta * of_others).mean() + self.mu * of_weak

    @torch.no_grad()
    def _shares(self, student: Tensor, weak: Tensor, target: Tensor) -> Tensor:
        """What each class but the label gets, (B, C - 1)."""
        parts = (F.softmax(weak, dim=1), F.log_softmax(student, dim=1))
        scores = sum(part / (1 - part.gather(1, target.unsqueeze(1)) + EPS) for part in parts)
        assert isinstance(scores, Tensor)  # for the type checker: there are two
        order = scores.argsort(dim=1, descending=True)
        zipf = 1 / torch.arange(1, student.shape[1] + 1, dtype=student.dtype, device=student.device)
        shares = torch.empty_like(student).scatter_(1, order, zipf.expand_as(student))
        shares = other_classes(shares, target)
        return shares / shares.sum(dim=1, keepdim=True)
