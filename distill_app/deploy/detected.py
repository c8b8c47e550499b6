"""A detector as it is used after training: images of any sizes in, objects with class, score and box out."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill_app.deploy.preprocessing import Preprocessing


class Found(NamedTuple):
    """An object in an image.

    Attributes:
        label: What its class is called, or the number of the class, which count from 1.
        score: How sure the network is, up to 1.
        box: x1, y1, x2, y2 in pixels of the image.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]


class Detector(nn.Module):
    """What a network finds in images.

    Args:
        network: Called with a list of images, gives a dict of boxes, labels and scores for each.
        preprocessing: From an image to what it takes.
        task: Names classes by `name_of`, and draws what has scores from its `drawn_from` on.
        name: What it is called.

    Attributes:
        module: The bare network, for whoever wants to go on with it.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, *, task: Any, name: str = "student"):
        super().__init__()
        self.module, self.preprocessing, self.task, self.name = network, preprocessing, task, name
        self.eval()

    @torch.no_grad()
    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """float (3, H, W) each, as `preprocessing` makes them, -> all detections of each, on the host."""
        device = next((parameter.device for parameter in self.parameters()), torch.device("cpu"))
        answers = self.module([image.to(device) for image in images])
        return [{key: value.cpu() for key, value in answer.items()} for answer in answers]

    def predict(
        self, images: Iterable[Any], *, above: float = 0.5, top: int | None = None, batch_size: int = 4
    ) -> list[list[Found]]:
        """The objects in images.

        Args:
            images: Paths, Pillow images, tensors or arrays, as `preprocessing` takes them.
            above: Their least score.
            top: How many of each image at most; None: all.
            batch_size: Of images that go through the network together.

        Returns:
            For each image its objects, the surest first.
        """
        rest, found = iter(images), []
        while batch := [self.preprocessing(image) for image in islice(rest, batch_size)]:
            found += [self.objects(answer) for answer in self.kept(self(batch), above=above, top=top)]
        return found

    def kept(
        self, answers: Sequence[Mapping[str, Tensor]], *, above: float, top: int | None
    ) -> list[dict[str, Tensor]]:
        """The surest detections of each image, the surest first."""
        chosen = []
        for answer in answers:
            order = answer["scores"].argsort(descending=True, stable=True)
            order = order[answer["scores"][order] >= above][:top]
            chosen.append({key: value[order] for key, value in answer.items()})
        return chosen

    def objects(self, answer: Mapping[str, Tensor]) -> list[Found]:
        """The detections of an image in words."""
        rows = zip(answer["labels"].tolist(), answer["scores"].tolist(), answer["boxes"].tolist(), strict=True)
        return [Found(self.task.name_of(label), score, tuple(box)) for label, score, box in rows]

    def drawn(self, images: Sequence[Tensor], answers: Sequence[Mapping[str, Tensor]]) -> list[Tensor]:
        """Images with detections in them, all that are given, uint8 (3, H, W)."""
        self.task.drawn_from = 0.0
        return self.task.draw({"input": images}, answers)
