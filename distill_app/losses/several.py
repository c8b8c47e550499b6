"""Losses over the logits of several networks: peers that teach each other, and a student with several teachers."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.logits import softened_kl
from distill_app.losses.numerics import (
    as_target,
    full_precision,
    require_choice,
    require_labels,
    require_logits,
    require_positive,
    require_same_shape,
)
from distill_app.world import common_number


def _require_peers(logits: Sequence[Tensor], *, loss: str) -> None:
    if len(logits) < 2:
        raise ValueError(f"{loss} needs two networks or more, got {len(logits)}: they teach each other")
    for other in logits[1:]:
        require_logits(logits[0], other, loss=loss)


class MutualKL(nn.Module):
    """Deep mutual learning (DML): each of K peers learns what the others say.

    L = sum_i 1 / (K - 1) sum_{j != i} T^2 / B * sum_b KL(sg p_j || p_i)

    Zhang, Xiang, Hospedales, Lu 2018, https://arxiv.org/abs/1706.00384. What a peer is to learn from comes from the
    same forward, before anyone's step, and has no gradient (sg): the sum over peers gives every peer the gradient of
    its own loss. Deliberately different: the authors' TensorFlow code sums over the others ("sum") and learns smoothed
    labels.

    Args:
        temperature: Of all; 1 in the paper.
        reduction: Over the other peers, "mean" as in the paper, or "sum".
    """

    def __init__(self, temperature: float = 1.0, *, reduction: str = "mean"):
        super().__init__()
        require_positive(temperature, argument="temperature")
        require_choice(reduction, ("mean", "sum"), argument="reduction")
        self.temperature, self.reduction = temperature, reduction

    def forward(self, logits: Sequence[Tensor]) -> Tensor:
        """The loss, a scalar, of the logits (B, C) of every peer.

        Raises:
            ValueError: Fewer than two, or logits that differ in shape.
        """
        _require_peers(logits, loss="MutualKL")
        peers = [full_precision(each) for each in logits]
        divisor = len(peers) - 1 if self.reduction == "mean" else 1
        pairs = itertools.permutations(range(len(peers)), 2)
        values = [softened_kl(peers[own], peers[other].detach(), self.temperature).mean() for own, other in pairs]
        return torch.stack(values).sum() / divisor


ENSEMBLES = ("mean", "min_logit", "best")


class CollaborativeKL(nn.Module):
    """Online distillation by collaborative learning (KDCL): K peers learn what they say together.

    L = sum_i T^2 / B * sum_b KL(sg p_E || p_i),  p_E = softmax(z_E / T)

    where z_E is of one of three ensembles: "mean" of the peers' logits; "min_logit", min_k (z_k - z_k[label]), a class
    counts as much as the peer says that takes it least for the label; "best", the logits of the peer whose
    cross-entropy on the batch is least (the paper's naive ensemble).

    Guo, Wang, Wu, Yu, Liang, Hu, Luo 2020, https://openaccess.thecvf.com/content_CVPR_2020/html/Guo_Online_Knowledge_Distillation_via_Collaborative_Learning_CVPR_2020_paper.html.
    Left out are its ensembles with weights that are fitted to a batch or to held-out data, and that every peer sees an
    augmentation of its own.

    Args:
        temperature: Of all.
        ensemble: "mean", "min_logit" or "best"; the latter two need labels.
    """

    def __init__(self, temperature: float = 4.0, *, ensemble: str = "mean"):
        super().__init__()
        require_positive(temperature, argument="temperature")
        require_choice(ensemble, ENSEMBLES, argument="ensemble")
        self.temperature, self.ensemble = temperature, ensemble
        self.whole_batch = ensemble == "best"  # one peer is chosen for the batch

    def forward(self, logits: Sequence[Tensor], target: Tensor) -> Tensor:
        """The loss, a scalar, of the logits (B, C) of every peer and labels (B,).

        Raises:
            ValueError: Fewer than two peers, logits that differ in shape, or labels that are no classes.
        """
        _require_peers(logits, loss="CollaborativeKL")
        peers = [full_precision(each) for each in logits]
        together = self._together([each.detach() for each in peers], target)
        return torch.stack([softened_kl(own, together, self.temperature).mean() for own in peers]).sum()

    def _together(self, peers: Sequence[Tensor], target: Tensor) -> Tensor:
        everyone = torch.stack(list(peers))
        if self.ensemble == "mean":
            return everyone.mean(dim=0)
        require_labels(target, peers[0], loss="CollaborativeKL")
        if self.ensemble == "min_logit":
            label = target.view(1, -1, 1).expand(len(peers), -1, 1)
            return (everyone - everyone.gather(2, label)).amin(dim=0)
        losses = torch.stack([F.cross_entropy(each, target) for each in peers])
        return everyone[losses.argmin()]


WEIGHTS = ("mean", "probabilities", "entropy", "labels")


def _by_entropy(teachers: Tensor) -> Tensor:
    """1 - H_k / sum_j H_j, of (K, B, C) the weights (K, B); teachers that are all sure count alike."""
    log_probabilities = F.log_softmax(teachers, dim=2)
    entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=2)
    total = entropy.sum(dim=0)
    share = entropy / total.clamp_min(torch.finfo(total.dtype).tiny)
    return 1 - torch.where(total > 0, share, 1 / len(teachers))


def by_labels(logits: Tensor, target: Tensor) -> Tensor:
    """(1 - softmax_k CE_k) / (K - 1), of (K, B, C) and labels (B,) the weights (K, B), with gradient."""
    count, batch = logits.shape[:2]
    losses = F.cross_entropy(logits.flatten(0, 1), target.repeat(count), reduction="none").view(count, batch)
    return (1 - F.softmax(losses, dim=0)) / (count - 1)


class MultiTeacherKL(nn.Module):
    """A student with K teachers: KD from each, weighted sample by sample, or from all together.

    "mean":           L = 1 / (B K) sum_b,k T^2 KL(p_k || p_s)
    "probabilities":  L = T^2 / B sum_b KL(mean_k p_k || p_s)
    "entropy":        as "mean", each KL times 1 - H(softmax z_k) / sum_j H(softmax z_j)
    "labels":         as "mean", each KL times (1 - softmax_k CE(z_k, y)) / (K - 1)

    The mean is that of You et al. 2017, https://doi.org/10.1145/3097983.3098135, "entropy" is that of EBKD, Kwon, Na,
    Lee, Kim 2020 (Adaptive knowledge distillation based on entropy), "labels" the logit part of CA-MKD, Zhang, Chen,
    Wang 2022, https://arxiv.org/abs/2201.00007. As in the code of the latter the weights are divided by K once more, so
    that "labels" teaches 1 / K as much as "mean", which the term's weight can make up for.

    With `drop` teachers are dropped sample by sample, as UNIC does (Sariyildiz et al. 2024,
    https://arxiv.org/abs/2408.05088): the one with the largest KL stays, every other goes with that probability, and
    the sum over those that stayed is divided by their number in the batch.

    Logits are (B, C).

    Args:
        temperature: Of all sides; the weights look at the logits as they are.
        weights: "mean", "probabilities", "entropy" or "labels"; the latter two need two teachers.
        drop: Probability, for "mean" alone; 0.5 in UNIC.
    """

    def __init__(self, temperature: float = 4.0, *, weights: str = "mean", drop: float = 0.0):
        super().__init__()
        require_positive(temperature, argument="temperature")
        require_choice(weights, WEIGHTS, argument="weights")
        if not 0 <= drop <= 1:
            raise ValueError(f"drop={drop} must lie between 0 and 1: the probability with which a teacher is dropped")
        if drop and weights != "mean":
            raise ValueError(f"drop={drop} has no part in weights={weights!r}: set weights=mean")
        self.temperature, self.weights, self.drop = temperature, weights, drop
        self.whole_batch = drop > 0  # it is divided by how many stayed in the batch

    def forward(self, student: Tensor, teachers: Sequence[Tensor], target: Tensor) -> Tensor:
        """The loss, a scalar, of the student's logits, those of every teacher, and labels (B,).

        Raises:
            ValueError: Logits that differ in shape, too few teachers, or labels that are no classes.
        """
        for teacher in teachers:
            require_logits(student, teacher, loss="MultiTeacherKL")
        least = 2 if self.weights in ("entropy", "labels") else 1
        if len(teachers) < least:
            raise ValueError(
                f"MultiTeacherKL with weights={self.weights!r} needs {least} teachers or more, got {len(teachers)}"
            )
        student, everyone = full_precision(student), torch.stack([as_target(each) for each in teachers])
        if self.weights == "probabilities":
            log_student = F.log_softmax(student / self.temperature, dim=1)
            together = F.softmax(everyone / self.temperature, dim=2).mean(dim=0)
            return F.kl_div(log_student, together, reduction="batchmean") * self.temperature**2
        rows = softened_kl(student.expand_as(everyone), everyone, self.temperature)
        if self.drop:
            kept = self._kept(rows.detach())
            return (rows * kept).sum() / kept.sum()
        if self.weights == "mean":
            return rows.mean()
        if self.weights == "entropy":
            return (_by_entropy(everyone) * rows).mean()
        require_labels(target, student, loss="MultiTeacherKL")
        return (by_labels(everyone, target) * rows).mean()

    def _kept(self, rows: Tensor) -> Tensor:
        """Which teachers stay, (K, B); several ranks draw the same."""
        generator = torch.Generator(rows.device).manual_seed(common_number())
        stays = torch.rand(rows.shape, generator=generator, device=rows.device) >= self.drop
        return (stays | (rows == rows.amax(dim=0))).to(rows.dtype)


class ConfidenceDistance(nn.Module):
    """The feature part of CA-MKD: the student's map is compared with that of K teachers, as far as each can read it.

    L = 1 / (B K) sum_b,k v_bk mean over the map of (s_k - t_k)^2,  v_bk = (1 - softmax_k CE(c_k, y)) / (K - 1)

    where s_k is the student's map, projected to that of teacher k, and c_k what the teacher's classifier makes of s_k.

    Zhang, Chen, Wang 2022, https://arxiv.org/abs/2201.00007. As in the authors' code v has a gradient, through the
    classifier into the projector; they leave the term out in the first epoch and weight it with 50.
    """

    def forward(
        self, student: Sequence[Tensor], teachers: Sequence[Tensor], logits: Sequence[Tensor], target: Tensor
    ) -> Tensor:
        """The loss, a scalar, of projected maps and the teachers' (B, C_k, H_k, W_k), logits (B, C), labels (B,).

        Raises:
            ValueError: They are not as many, fewer than two, or differ in shape.
        """
        if not len(student) == len(teachers) == len(logits) >= 2:
            raise ValueError(
                f"ConfidenceDistance needs a map, the teacher's map and logits for each of two teachers or more, got "
                f"{len(student)}, {len(teachers)} and {len(logits)}"
            )
        for ours, theirs in zip(student, teachers, strict=True):
            require_same_shape(ours, theirs, loss="ConfidenceDistance")
        require_labels(target, logits[0], loss="ConfidenceDistance")
        pairs = zip(student, teachers, strict=True)
        rows = torch.stack(
            [(full_precision(ours) - as_target(theirs)).square().flatten(1).mean(dim=1) for ours, theirs in pairs]
        )
        return (by_labels(torch.stack([full_precision(each) for each in logits]), target) * rows).mean()
