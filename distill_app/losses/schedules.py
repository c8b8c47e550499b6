"""Weights of loss terms as functions of time: callables of the epoch, a float that counts fractions of an epoch.

In a config: `weight: {_target_: distill_app.losses.LinearWarmup, value: 1.0, epochs: 20}`. Epochs count from the
start of the stage. Any other callable of one number serves as well.
"""

import math
from dataclasses import dataclass


def _require_duration(epochs: float) -> None:
    if not epochs > 0:
        raise ValueError(f"epochs={epochs} must be above 0; for a constant weight write the number")


@dataclass(frozen=True)
class LinearWarmup:
    """From `start` to `value` on a straight line, then `value`.

    Args:
        value: Weight after the warm-up.
        epochs: How long it takes.
        start: Weight at epoch 0.
    """

    value: float
    epochs: float
    start: float = 0.0

    def __post_init__(self) -> None:
        _require_duration(self.epochs)

    def __call__(self, epoch: float) -> float:
        return self.start + (self.value - self.start) * min(max(epoch / self.epochs, 0.0), 1.0)


@dataclass(frozen=True)
class CosineDecay:
    """From `value` to `final` on half a cosine, then `final`.

    Args:
        value: Weight at epoch 0.
        epochs: When it is over; ${stage.epochs} for the length of the recipe.
        final: Weight at the end.
        after: Epoch up to which the weight stays what it is at first.
    """

    value: float
    epochs: float
    final: float = 0.0
    after: float = 0.0

    def __post_init__(self) -> None:
        _require_duration(self.epochs)
        if not 0 <= self.after < self.epochs:
            raise ValueError(f"after={self.after} must lie between 0 and epochs={self.epochs}")

    def __call__(self, epoch: float) -> float:
        progress = min(max((epoch - self.after) / (self.epochs - self.after), 0.0), 1.0)
        return self.final + (self.value - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class ExponentialDecay:
    """`value` * `rate` ** epoch.

    Args:
        value: Weight at epoch 0.
        rate: Factor an epoch, above 0; 0.5 halves the weight every epoch.
    """

    value: float
    rate: float

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise ValueError(f"rate={self.rate} must be above 0")

    def __call__(self, epoch: float) -> float:
        return self.value * self.rate**epoch


@dataclass(frozen=True)
class SigmoidRampUp:
    """From nearly 0 to `value` on value * exp(-5 (1 - epoch / epochs)^2), then `value`.

    Of mean teacher (Tarvainen and Valpola 2017) and ONE (Lan et al. 2018); it begins at 0.7 % of the value.

    Args:
        value: Weight after the ramp.
        epochs: How long it takes.
    """

    value: float
    epochs: float

    def __post_init__(self) -> None:
        _require_duration(self.epochs)

    def __call__(self, epoch: float) -> float:
        return self.value * math.exp(-5.0 * (1 - min(max(epoch / self.epochs, 0.0), 1.0)) ** 2)
