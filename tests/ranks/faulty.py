"""A loss of a user's own that fails on one rank."""

import os
import signal
import time

import torch
from torch import Tensor, nn


class Faulty(nn.Module):
    """Zero, until its n-th call in training.

    Args:
        how: raise, kill, hang, nan.
        rank: On which it happens.
        call: When.
    """

    def __init__(self, how: str, rank: int = 1, call: int = 12):
        super().__init__()
        self.how, self.rank, self.call, self.seen = how, rank, call, 0

    def forward(self, input: Tensor) -> Tensor:
        zero = input.float().sum() * 0.0
        self.seen += self.training and torch.is_grad_enabled()
        if self.seen == self.call and int(os.environ.get("RANK", "0")) == self.rank:
            if self.how == "raise":
                raise ValueError("no such luck")
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "hang":
                time.sleep(1000)
            if self.how == "nan":
                return zero + float("nan")
        return zero


class Signalled(torch.optim.lr_scheduler.LRScheduler):
    """A constant rate; at the end of an epoch one rank gets SIGTERM, the others get none.

    Args:
        optimizer: Of the student.
        rank: Which one.
        epoch: Of which epoch.
        saving: Instead of this, the first rank gets it while it saves for the n-th time, which it does alone.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, rank: int = 0, epoch: int = 2, saving: int | None = None):
        self.rank, self.epoch, self.saving, self.saved = rank, epoch if saving is None else -1, saving, 0
        super().__init__(optimizer)

    def state_dict(self) -> dict:
        self.saved += 1
        if self.saved == self.saving:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().state_dict()

    def get_lr(self) -> list[float]:
        if self.last_epoch == self.epoch and int(os.environ.get("RANK", "0")) == self.rank:
            os.kill(os.getpid(), signal.SIGTERM)
        return [group["lr"] for group in self.optimizer.param_groups]
