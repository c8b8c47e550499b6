"""A network as it is used after training: in eval mode, with its preprocessing, its classes and its words."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill_app.deploy.preprocessing import Preprocessing
from distill_app.errors import SettingError
from distill_app.losses.pixels import resized_logits

SOFTMAX, PIXELS, OBJECTS = "softmax", "pixels", "objects"  # what a task says that its `scores` are


class Guess(NamedTuple):
    """A class of an image, and how probable the network finds it."""

    label: str
    probability: float  # of a segmenter, the share of pixels


class Deployed(nn.Module):
    """What a network answers to images.

    Args:
        network: Called with float (batch, channels, height, width), returns its answer.
        preprocessing: From an image to what it takes.
        classes: Their names; None: their numbers stand for them.
        scores: `softmax` (one class for each image), `sigmoid` (several), `pixels` (one for each pixel), or None where
            answers are no classes.
        name: What it is called.

    Attributes:
        module: The bare network, for whoever wants to go on with it.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        *,
        classes: Sequence[str] | None,
        scores: str | None,
        name: str = "student",
    ):
        super().__init__()
        self.network, self.preprocessing = network, preprocessing
        self.classes, self.scores, self.name = list(classes) if classes else None, scores, name
        self.module = getattr(network, "module", network)
        self.eval()

    def forward(self, images: Tensor) -> Any:
        """(batch, channels, height, width), as `preprocessing` makes it, -> the answer of the network."""
        return self.network(images)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, classes).

        Raises:
            SettingError: Its answers are no classes, or those of pixels.
        """
        self.require_classes()
        if self.scores == PIXELS:
            raise SettingError(f"{self.name} tells the class of every pixel: its answers are maps (maps_of)")
        logits = self(images.to(self.device)).float()
        return (logits.softmax(dim=1) if self.scores == SOFTMAX else logits.sigmoid()).cpu()

    def require_classes(self) -> None:
        """Refuses a network that tells no classes.

        Raises:
            SettingError: It tells something else.
        """
        if self.scores is None:
            raise SettingError(f"the answers of {self.name} are not those of a classifier: there are no probabilities")

    def predict(self, images: Iterable[Any], *, top: int = 1, batch_size: int = 32) -> list[list[Guess]]:
        """The likeliest classes of images.

        Args:
            images: Paths, Pillow images, tensors or arrays, as `preprocessing` takes them.
            top: How many classes of each.
            batch_size: Of images that go through the network together.

        Returns:
            For each image its classes, the likeliest first.
        """
        found = []
        for batch in _batches(images, batch_size):
            found += self.guesses_of([self.preprocessing(image) for image in batch], top=top)
        return found

    def guesses_of(self, images: Sequence[Tensor], *, top: int = 1) -> list[list[Guess]]:
        """The same of images that are prepared; those of one size go through the network together."""
        found: dict[int, list[Guess]] = {}
        for shape in dict.fromkeys(image.shape for image in images):
            numbers = [number for number, image in enumerate(images) if image.shape == shape]
            guesses = self._guesses(torch.stack([images[number] for number in numbers]), top=top)
            found.update(zip(numbers, guesses, strict=True))
        return [found[number] for number in range(len(images))]

    @torch.no_grad()
    def maps_of(self, images: Sequence[Tensor]) -> list[Tensor]:
        """The class of every pixel, of images that are prepared: uint8 (height, width) for each.

        Raises:
            SettingError: The network does not tell classes of pixels.
        """
        if self.scores != PIXELS:
            raise SettingError(f"{self.name} does not tell classes of pixels: there are no maps")
        found = []
        for image in images:  # one by one: padding would change what networks say
            logits = resized_logits(self(image.unsqueeze(0).to(self.device)).float(), (image.shape[1], image.shape[2]))
            found.append(logits.argmax(dim=1)[0].to(torch.uint8).cpu())
        return found

    def shares_of(self, classes: Tensor, *, top: int = 1) -> list[Guess]:
        """The classes that most pixels of a map have, with their shares of them."""
        counts = torch.bincount(classes.flatten().long())
        values, numbers = counts.topk(min(top, int((counts > 0).sum())))
        pairs = zip(numbers.tolist(), values.tolist(), strict=True)
        return [Guess(self.label(number), value / classes.numel()) for number, value in pairs]

    def _guesses(self, batch: Tensor, *, top: int) -> list[list[Guess]]:
        if self.scores == PIXELS:
            return [self.shares_of(each, top=top) for each in self.maps_of(list(batch))]
        probabilities = self.probabilities(batch)
        values, classes = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
        pairs = zip(values.tolist(), classes.tolist(), strict=True)
        return [[Guess(self.label(c), v) for v, c in zip(*line, strict=True)] for line in pairs]

    def label(self, number: int) -> str:
        """The name of a class, or its number."""
        return self.classes[number] if self.classes and number < len(self.classes) else str(number)


def _batches(images: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(images)
    while batch := list(islice(rest, size)):
        yield batch
