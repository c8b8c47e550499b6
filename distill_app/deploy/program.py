"""A network as one function of one input, as files of programs hold it."""

import torch
from torch import Tensor, nn

from distill_app.networks.answers import Answers
from distill_app.networks.network import Network
from distill_app.tasks.base import Task


class Program(nn.Module):
    """A network whose output is its answer, whatever else it returns.

    Args:
        network: The network.
        answer: The tap that answers, None: whatever it returns.
    """

    def __init__(self, network: Network, answer: str | None):
        super().__init__()
        self.module = network.module
        self._answers = [Answers(network, answer)]  # in a list: its parameters have one name

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) -> the answer."""
        answer: Tensor = self._answers[0](images)
        return answer


def program_of(network: Network, task: Task, example: Tensor) -> nn.Module:
    """The bare network where it returns its answer and nothing else, as most do; else one that does.

    Args:
        network: In eval mode.
        task: Says which tap answers.
        example: Of its input.
    """
    program = Program(network, task.answer)
    with torch.no_grad():
        answer, returned = program(example), network.module(example)
    return network.module if isinstance(returned, Tensor) and torch.equal(returned, answer) else program
