"""Losses of a curriculum: how hard it is to match the teacher is itself learnt."""

import torch.nn.functional as F
from torch import Tensor, nn

from distill_app.losses.numerics import as_target, full_precision, require_choice, require_logits


class CurriculumKL(nn.Module):
    """Curriculum temperature (CTKD): KD at a temperature that is learnt, by one of the two that it teaches.

    L = T^2 / B * sum_b KL(softmax(z_t / T) || softmax(z_s / T))

    Li, Li, Yang, Zhao, Song, Luo, Li, Yang 2023, https://arxiv.org/abs/2211.16231. The student makes L small and the
    temperature makes it large, more and more so. The authors reverse the temperature's gradient in the backward pass,
    by a factor that falls from 0 to -1 on half a cosine. Here these are two terms of the same value: one whose gradient
    reaches the student alone, with a positive weight, and one whose gradient reaches the temperature alone, with a
    schedule from 0 to the negative of that weight. The gradients are those of the authors' code. T is differentiated in
    the factor T^2 as well.

    Logits are (B, C); the temperature is that of `distill_app.adapters.LearnableTemperature`.

    Args:
        learns: "student" or "temperature": whom the gradient reaches.
    """

    def __init__(self, *, learns: str = "student"):
        super().__init__()
        require_choice(learns, ("student", "temperature"), argument="learns")
        self.learns = learns

    def forward(self, student: Tensor, teacher: Tensor, temperature: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The logits differ in shape, or the temperature is not one number.
        """
        require_logits(student, teacher, loss="CurriculumKL")
        if temperature.numel() != 1:
            raise ValueError(
                f"CurriculumKL needs one temperature, got {tuple(temperature.shape)}: read an adapter "
                "distill_app.adapters.LearnableTemperature"
            )
        student, teacher = full_precision(student), as_target(teacher)
        heat = full_precision(temperature).reshape(())
        if self.learns == "student":
            heat = heat.detach()
        else:
            student = student.detach()
        ours, theirs = F.log_softmax(student / heat, dim=1), F.log_softmax(teacher / heat, dim=1)
        # F.kl_div has no finite gradient with respect to probabilities of 0, and T changes the teacher's.
        return (theirs.exp() * (theirs - ours)).sum(dim=1).mean() * heat**2
