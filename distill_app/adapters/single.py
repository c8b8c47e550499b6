"""Adapters without a shape to meet: one view of each image, one number that is learnt."""

import math

import torch
from torch import Tensor, nn


class SelectView(nn.Module):
    """One view of every image, from rows grouped by image; it has no parameters.

    With it, losses that know nothing of views (cross-entropy, KD) read the upright images alone.

    Args:
        views: Rows an image.
        view: Which of them; 0 is the upright one.

    Raises:
        ValueError: There is no such view.
    """

    def __init__(self, *, views: int = 4, view: int = 0):
        super().__init__()
        if not 0 <= view < views:
            raise ValueError(f"view={view} does not exist; with views={views} it lies in 0..{views - 1}")
        self.views, self.view = views, view

    def forward(self, rows: Tensor) -> Tensor:
        """(B * views, ...) -> (B, ...)."""
        return rows[self.view :: self.views]


class LearnableTemperature(nn.Module):
    """CTKD's global temperature: one number that is learnt, whatever it is given to read.

    T = start + width x sigmoid(theta)

    Li et al. 2023, https://arxiv.org/abs/2211.16231.

    Args:
        start: Lower bound of the temperature.
        width: How far above it T may come.
        initial: theta at the start; 1 gives 15.62, as in the authors' code.

    Raises:
        ValueError: Temperatures of 0 or below would be possible, or `initial` is no number.
    """

    def __init__(self, *, start: float = 1.0, width: float = 20.0, initial: float = 1.0):
        super().__init__()
        if not (0 < start < math.inf and 0 < width < math.inf):
            raise ValueError(f"start={start} and width={width} must be above 0")
        if not math.isfinite(initial):
            raise ValueError(f"initial={initial} must be a finite number")
        self.start, self.width = start, width
        self.theta = nn.Parameter(torch.tensor([float(initial)]))

    def forward(self, source: Tensor) -> Tensor:
        """Anything -> the temperature, (1,)."""
        return self.start + self.width * self.theta.sigmoid()
