"""Data sets of image files with objects in them."""

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset
from torchvision import tv_tensors

from distill_app.data.images import load_image
from distill_app.data.objects import ImageRecord
from distill_app.data.targets import target_of


class ObjectImages(Dataset):
    """A data set of image files with objects; items are (image, target).

    Args:
        images: The records.
        classes: Names of the labels from 1 on.
        kinds: Of bbox, segm and keypoints, which targets have.
        keypoints: How many an object has; None: as many as any of the records has.
        notes: What may be a mistake, for the log.
        unlabelled: Records of images of which nothing is known, which come after the others. A stage sees them if it
            says so.
    """

    def __init__(
        self,
        images: Sequence[ImageRecord],
        *,
        classes: Sequence[str],
        kinds: Sequence[str] = ("bbox",),
        keypoints: int | None = None,
        notes: Sequence[str] = (),
        unlabelled: Sequence[ImageRecord] = (),
    ):
        self.records, self.classes, self.kinds, self._notes = list(images), list(classes), tuple(kinds), list(notes)
        self.keypoints = _most_keypoints(self.records) if keypoints is None else keypoints
        self.unlabelled = range(len(self.records), len(self.records) + len(unlabelled))
        self.records += unlabelled

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        record = self.records[index]
        image = load_image(record.file)
        if tuple(image.shape[-2:]) != record.size:
            there, said = (" x ".join(map(str, size)) for size in (image.shape[-2:], record.size))
            raise ValueError(f"it has {there} pixels (height x width), and its record says {said}")
        known = index not in self.unlabelled
        target = target_of(record, kinds=self.kinds, name=record.file, keypoints=self.keypoints, known=known)
        return tv_tensors.Image(image), target

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of every image, without reading it."""
        return [record.size for record in self.records]

    @property
    def files(self) -> list[str]:
        """The file of every image."""
        return [record.file for record in self.records]

    def notes(self) -> list[str]:
        """What may be a mistake and lets a run go on."""
        return self._notes


def _most_keypoints(records: Sequence[ImageRecord]) -> int:
    return max((len(each.points or ()) for record in records for each in record.objects), default=0) // 3
