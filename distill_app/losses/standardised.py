"""Losses over logits whose spread is taken out, sample by sample, before they are compared."""

from torch import Tensor, nn

from distill_app.losses.logits import softened_kl
from distill_app.losses.numerics import as_target, full_precision, require_logits, require_positive

# Logits that differ by less than this say nothing: they are not blown up to a spread of one, which would give a network
# whose head starts at zero gradients of a million.
SMALLEST_STD = 1e-3


def require_spread(logits: Tensor) -> None:
    """Refuses logits of which nothing is left once their own spread is taken out.

    Two logits lie one spread apart, whatever they are: divided by it they are constants, without gradient.

    Raises:
        ValueError: They are of one or two classes.
    """
    if logits.shape[1] < 3:
        raise ValueError(
            f"logits divided by their own spread are constants where there are fewer than three classes, got "
            f"{logits.shape[1]}: compare the logits themselves, as method=kd does, and leave out standardize"
        )


def centred(logits: Tensor) -> Tensor:
    """Logits less their mean over classes: (B, C) -> (B, C). Their softmax is the same."""
    return logits - logits.mean(dim=1, keepdim=True)


def deviation(logits: Tensor) -> Tensor:
    """Standard deviation over classes, unbiased, at least 0.001: (B, C) -> (B, 1).

    Raises:
        ValueError: There are one or two classes.
    """
    require_spread(logits)
    variance = logits.var(dim=1, keepdim=True)
    # The root of a variance of zero has no finite gradient, hence the bound below it.
    return variance.clamp_min(SMALLEST_STD**2).sqrt()


def standardised(logits: Tensor) -> Tensor:
    """(z - mean) / (1e-7 + standard deviation) over classes: (B, C) -> (B, C); it raises what that does."""
    return centred(logits) / (1e-7 + deviation(logits))


class StandardizedKL(nn.Module):
    """Logit standardisation: KD on the z-scores of logits.

    L = T^2 / B * sum_b KL(softmax(n(z_t) / T) || softmax(n(z_s) / T)),  n(z) = (z - mean z) / (1e-7 + std z)

    Sun, Ren, Li, Wang, Cao 2024, https://arxiv.org/abs/2403.01427. The student has to match the shape of the teacher's
    logits and is free in their mean and scale. The standard deviation is that over classes, unbiased, and the gradient
    flows through it. Deliberately different: it is at least 0.001, where the authors' code divides exactly equal logits
    by 1e-7, with gradients to match. T^2 is always there; one public framework drops it when the cross-entropy is off.

    Logits are (B, C) of at least three classes; the cross-entropy beside it reads them as they are.

    Args:
        temperature: Of both sides, in standard deviations; 2 in the paper.
    """

    def __init__(self, temperature: float = 2.0):
        super().__init__()
        require_positive(temperature, argument="temperature")
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape, or have one or two classes.
        """
        require_logits(student, teacher, loss="StandardizedKL")
        student, teacher = standardised(full_precision(student)), standardised(as_target(teacher))
        return softened_kl(student, teacher, self.temperature).mean()


class SpreadTemperatureKL(nn.Module):
    """NormKD: KD whose temperature is the spread of the logits, for each sample and each network by itself.

    L = 1 / B * sum_b T_t^2 KL(softmax(z_t / T_t) || softmax(z_s / T_s)),  T = scale x std(z) over classes

    Chi, Zheng, Li, Yang, Wu, Lin, Cai 2023, https://arxiv.org/abs/2308.00520. The factor is the square of the teacher's
    temperature alone, and the gradient flows through the student's, as in the authors' code. Deliberately different:
    the standard deviation is at least 0.001, where the authors' code gives NaN for a network whose logits are equal.

    Logits are (B, C) of at least three classes.

    Args:
        scale: Temperature in standard deviations, the alpha of the paper: 2 on CIFAR-100, 1 on ImageNet.
    """

    def __init__(self, scale: float = 2.0):
        super().__init__()
        require_positive(scale, argument="scale")
        self.scale = scale

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape, or have one or two classes.
        """
        require_logits(student, teacher, loss="SpreadTemperatureKL")
        student, teacher = full_precision(student), as_target(teacher)
        ours, theirs = self.scale * deviation(student), self.scale * deviation(teacher)
        each = softened_kl(centred(student) / ours, centred(teacher) / theirs, 1.0)
        return (theirs.squeeze(1) ** 2 * each).mean()
