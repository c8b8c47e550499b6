"""Losses over what channels have in common: products, spectra and moments of maps, not their values."""

import torch
from torch import Tensor, nn

from distill_app.losses.numerics import (
    SHORTEST,
    as_target,
    directions,
    full_precision,
    pool_to_smaller,
    require_maps,
    require_positive,
    require_same_channels,
    require_same_shape,
)


class NeuronSelectivity(nn.Module):
    """Neuron selectivity transfer (NST): the channels of both networks, as points in space, are distributed alike.

    L = mean k(t, t') - 2 mean k(t, s) + mean k(s, s'),  k(x, y) = (x . y)^2

    over all channels s, t of a map, flattened and L2-normalised: the squared maximum mean discrepancy with the
    polynomial kernel of degree 2, averaged over the batch.

    Huang, Wang 2017, https://arxiv.org/abs/1707.01219. Maps (B, C, H, W); channels may differ; if sizes do, the larger
    is average-pooled. Computed from Gram matrices between channels or between positions, whichever are smaller.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: A tensor is no map, or the batches differ.
        """
        require_maps(student, teacher, loss="NeuronSelectivity")
        student, teacher = pool_to_smaller(full_precision(student), as_target(teacher))
        ours, theirs = directions(student.flatten(2), dim=2), directions(teacher.flatten(2), dim=2)
        if ours.shape[2] <= min(ours.shape[1], theirs.shape[1]):
            # The mean of (x . y)^2 over rows x of X and y of Y is <X^T X, Y^T Y>, divided by their numbers.
            difference = _second_moment(ours) - _second_moment(theirs)
            return difference.square().sum(dim=(1, 2)).mean()
        pairs = ((theirs, theirs), (ours, ours), (ours, theirs))
        among_theirs, among_ours, across = ((x @ y.transpose(1, 2)).square().mean() for x, y in pairs)
        return among_theirs + among_ours - 2 * across


def _second_moment(points: Tensor) -> Tensor:
    """The mean of x x^T over the points: (B, N, D) -> (B, D, D)."""
    return points.transpose(1, 2) @ points / points.shape[1]


class ChannelCorrelation(nn.Module):
    """Inter-channel correlation (ICKD): which channels are active together.

    L = 1 / (B C) * sum_b ||N(F_s F_s^T) - N(F_t F_t^T)||_F^2,  F flattened to (C, HW), N divides rows by their L2 norm

    Liu, Huang, Tian, Liu, Wei, Wu, Wu 2021, https://arxiv.org/abs/2202.03680. As in the authors' code for CIFAR; theirs
    for ImageNet, and torchdistill, divide by B once more, which makes the term depend on the batch size. Deliberately
    different: a channel that is zero everywhere has a row of zeros, without gradient. Maps (B, C, H, W) of equal
    channels; sizes may differ. The matrices (C, C) are formed only where there are more positions
    than channels: else all that is needed of them, products of their rows, follows from matrices (HW, HW).
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: A tensor is no map, or the channels differ.
        """
        require_same_channels(student, teacher, loss="ChannelCorrelation")
        ours, theirs = full_precision(student).flatten(2), as_target(teacher).flatten(2)
        samples, channels, positions = ours.shape
        few = max(positions, theirs.shape[2]) <= channels
        total = self._by_positions(ours, theirs) if few else self._by_channels(ours, theirs)
        return total / (samples * channels)

    @staticmethod
    def _by_channels(ours: Tensor, theirs: Tensor) -> Tensor:
        rows = [directions(feature @ feature.transpose(1, 2), dim=2) for feature in (ours, theirs)]
        return (rows[0] - rows[1]).square().sum()

    @staticmethod
    def _by_positions(ours: Tensor, theirs: Tensor) -> Tensor:
        """The same from <a, a> + <b, b> - 2 <a, b> of rows a, b: in float64, since they may be nearly equal."""
        kind = ours.dtype
        if ours.device.type != "mps":  # which has no float64
            ours, theirs = ours.double(), theirs.double()
        own, wanted, common = (_row_products(x, y) for x, y in ((ours, ours), (theirs, theirs), (ours, theirs)))
        common = torch.where(own.detach() > SHORTEST**2, common, 0.0)  # as `directions` has it
        length, other = (square.clamp(min=SHORTEST**2).sqrt() for square in (own, wanted))
        total = own / (length * length) + wanted / (other * other) - 2 * common / (length * other)
        return total.sum().to(kind)


def _row_products(first: Tensor, second: Tensor) -> Tensor:
    """The product of row i of X X^T with row i of Y Y^T: (B, C, N) x (B, C, M) -> (B, C)."""
    return (first @ (first.transpose(1, 2) @ second) * second).sum(dim=2)


class AffinityDistance(nn.Module):
    """Affinity distillation (KTA): which positions of a channel are active together.

    L = 1 / (B HW) * sum_b sum_c ||s_bc s_bc^T - t_bc t_bc^T||_F,  s_bc, t_bc channels over positions, L2-normalised

    He, Shen, Tian, Gong, Sun, Yan 2019, https://arxiv.org/abs/1903.04688, as torchdistill has it, the only public code.
    The matrices (HW, HW) are never formed: their distance follows from the products of the vectors. Maps (B, C, H, W)
    of one shape. Where channels agree exactly the gradient is 0, not NaN.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The shapes differ, or are no maps.
        """
        require_same_shape(student, teacher, loss="AffinityDistance")
        require_maps(student, teacher, loss="AffinityDistance")
        ours = directions(full_precision(student).flatten(2), dim=2)
        theirs = directions(as_target(teacher).flatten(2), dim=2)
        # |s s^T - t t^T|^2 for t of length 1 or 0, without the difference of large numbers that would lose small ones.
        along = (ours * theirs).sum(dim=2, keepdim=True)
        length, wanted = ours.square().sum(dim=2), theirs.square().sum(dim=2)
        squares = (length - wanted).square() + 2 * wanted * (ours - along * theirs).square().sum(dim=2)
        differ = squares > 0
        distances = torch.where(differ, torch.where(differ, squares, 1.0).sqrt(), 0.0)
        return distances.sum() / (ours.shape[0] * ours.shape[2])


class WhitenedLogDistance(nn.Module):
    """Simple recipe distillation (SRD): the logarithm of a distance of embeddings, each normalised over the batch.

    L = 2 log(sum over B x D of |n(e_s) - n(e_t)|^exponent + eps'),  n(e) = (e - mean_d) / sqrt(var_d + eps)

    with mean and (biased) variance of each dimension over the batch, on both sides.

    Miles, Mikolajczyk 2024, https://arxiv.org/abs/2303.11098. The logarithm keeps large distances from ruling; with an
    exponent of 4 what is nearly right counts for little. Deliberately different: eps' is 1e-12, without which equal
    embeddings, or a batch of one, would give minus infinity. No running statistics are kept.

    `student` (B, D) comes from a linear layer (`adapters.LinearProjector`), `teacher` is (B, D) or (B, D, 1, 1).

    Args:
        exponent: 4 for networks of much different capacity, as in the published ImageNet run.
        eps: Added to the variance.
    """

    whole_batch = True  # by the normalisation, and by the logarithm of the sum

    def __init__(self, exponent: float = 4.0, *, eps: float = 1e-4):
        super().__init__()
        require_positive(exponent, argument="exponent")
        self.exponent, self.eps = exponent, eps

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The shapes differ.
        """
        student, teacher = full_precision(student).flatten(1), as_target(teacher).flatten(1)
        require_same_shape(student, teacher, loss="WhitenedLogDistance")
        difference = self._normalised(student) - self._normalised(teacher)
        return 2 * torch.log(difference.abs().pow(self.exponent).sum() + 1e-12)

    def _normalised(self, embedding: Tensor) -> Tensor:
        variance, mean = torch.var_mean(embedding, dim=0, correction=0)
        return (embedding - mean) / (variance + self.eps).sqrt()
