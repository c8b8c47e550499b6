"""Samplers and collate functions of a user's own, where config can import them."""

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler


class Drawn(Sampler):
    """Positions from the random numbers of torch, numpy and Python, and what it was built with."""

    built: list[dict] = []

    def __init__(self, dataset, *, seed, epoch, labels, num_samples, count=24):
        self.dataset, self.count = dataset, count
        Drawn.built.append({"seed": seed, "epoch": epoch, "labels": labels, "num_samples": num_samples})

    def __iter__(self) -> Iterator[int]:
        for _ in range(self.count // 3):
            yield int(torch.randint(len(self.dataset), ()))
            yield int(np.random.randint(len(self.dataset)))
            yield random.randrange(len(self.dataset))


class ByLength:
    """Batches of 1, 2, 3, ... samples."""

    def __init__(self, sampler, *, drop_last=False):
        self.sampler = list(sampler)

    def __iter__(self) -> Iterator[list[int]]:
        start = 0
        for size in range(1, 13):
            yield self.sampler[start : start + size]
            start += size


class Shrinking(Sampler):
    def __init__(self, *, epoch):
        self.count = 20 - epoch

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))


class Strange(Sampler):
    def __init__(self, value):
        self.value = value

    def __iter__(self) -> Iterator:
        return iter([0, self.value])


def halved(samples, divisor=2):
    """A collate function with a setting."""
    return {
        "input": torch.stack([sample["input"] for sample in samples]) // divisor,
        "target": torch.tensor([sample["target"] for sample in samples]),
    }


class Shift:
    """Objects that collate."""

    def __init__(self, by: int):
        self.by = by

    def __call__(self, samples):
        return halved(samples, 1) | {"shift": self.by}
