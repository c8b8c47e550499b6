"""Image classification: how a batch meets a network, and how networks are evaluated and compared."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill_app.errors import SettingError
from distill_app.networks.hooks import TappedModel
from distill_app.networks.modes import evaluating
from distill_app.networks.taps import tensors_in
from distill_app.tasks.labels import class_label_problems

Batch = dict[str, Any]


class Classification:
    """Images in, logits out.

    Args:
        normalize: `mean` and `std` per channel, of images scaled to [0, 1].
        num_classes: How many classes there are.
    """

    metric = "accuracy"

    def __init__(self, *, normalize: Any, num_classes: int):
        self.mean = torch.tensor(normalize.mean).view(1, -1, 1, 1)
        self.std = torch.tensor(normalize.std).view(1, -1, 1, 1)
        self.num_classes = num_classes

    def prepare(self, batch: Batch, *, device: torch.device) -> Batch:
        """Moves a batch to the device; uint8 images become floats in [0, 1], and all images are normalised there.

        Whatever a wrapper added as uint8 (B, 3, H, W) under a key of its own is an image too. An input of several
        images per sample, (B, V, 3, H, W), becomes (B * V, 3, H, W), rows grouped by sample; labels and indices stay
        one per sample.
        """
        prepared = {
            key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }
        if prepared["input"].dim() == 5:
            prepared["input"] = prepared["input"].flatten(0, 1)
        for key, value in prepared.items():
            if key == "input" or (isinstance(value, Tensor) and value.dtype == torch.uint8 and value.dim() >= 4):
                prepared[key] = self._normalized(value)
        return prepared

    def _normalized(self, images: Tensor) -> Tensor:
        if self.mean.device != images.device:
            self.mean, self.std = self.mean.to(images.device), self.std.to(images.device)
        scaled = images.float().div_(255.0) if images.dtype == torch.uint8 else images
        return (scaled - self.mean) / self.std

    def label_problems(self, dataset: Any) -> list[str]:
        """What is wrong with the labels of a data set, a message each, without its config key."""
        if self.example(image_size=1)["target"].dim() != 1:  # a task of its own kind, with labels of its own
            return []
        return class_label_problems(dataset, num_classes=self.num_classes)

    def call(self, network: TappedModel, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The taps of a network on the batch's images."""
        return network(batch["input"])

    def example(self, *, image_size: int, count: int = 2) -> Batch:
        """A batch of noise in the shape of real ones, before `prepare`."""
        return {
            "input": torch.randint(0, 256, (count, 3, image_size, image_size), dtype=torch.uint8),
            "target": torch.arange(count) % self.num_classes,
            "index": torch.arange(count),
        }

    @torch.no_grad()
    def evaluate(
        self,
        network: nn.Module,
        batches: Iterable[Batch],
        *,
        device: torch.device,
        reference: nn.Module | None = None,
    ) -> dict[str, float]:
        """Accuracy and cross-entropy over a data set, every sample counted once.

        Args:
            network: The bare network; runs in eval mode, its modes are given back.
            batches: Unprepared batches.
            device: Where to run.
            reference: A second network, to compare answers with.

        Returns:
            accuracy, top5 (from 10 classes on) and loss; with a reference agreement, the share of equal answers.
            Shares lie in [0, 1], the loss is in nats.
        """
        sums: dict[str, Tensor] = {}
        count = 0
        with evaluating(network), evaluating(reference or network):
            for batch in batches:
                batch = self.prepare(batch, device=device)
                logits = logits_of(network(batch["input"]))
                other = logits_of(reference(batch["input"])) if reference is not None else None
                for name, value in _sums(logits, batch["target"], other).items():
                    sums[name] = sums.get(name, torch.zeros((), device=device, dtype=torch.float64)) + value
                count += len(batch["target"])
        return {name: float(value) / max(count, 1) for name, value in sums.items()}


def logits_of(output: Any) -> Tensor:
    """The logits in what a classifier returns: a tensor, or the first tensor of a tuple or a mapping."""
    tensors = tensors_in(output)
    if not tensors:
        raise SettingError(f"a classifier must return logits, got {type(output).__name__}")
    return tensors[0]


def _sums(logits: Tensor, target: Tensor, other: Tensor | None) -> dict[str, Tensor]:
    answers = logits.argmax(dim=1)
    sums = {"accuracy": (answers == target).sum()}
    if logits.shape[1] >= 10:
        top = logits.topk(5, dim=1).indices
        sums["top5"] = (top == target.unsqueeze(1)).any(dim=1).sum()
    sums["loss"] = functional.cross_entropy(logits.float(), target, reduction="sum").double()
    if other is not None:
        sums["agreement"] = (answers == other.argmax(dim=1)).sum()
    return sums
