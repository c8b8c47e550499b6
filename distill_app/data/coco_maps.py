"""Maps of classes made of the objects of a file in COCO's format."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from distill_app.data.coco import CocoDetection
from distill_app.data.images import load_image
from distill_app.data.map_files import IGNORED
from distill_app.data.objects import ImageRecord
from distill_app.data.targets import mask_of
from distill_app.data.voc_maps import WITH_BACKGROUND
from distill_app.errors import DataError

# The ids of COCO's categories that are VOC's classes, in VOC's order, aeroplane to tvmonitor.
VOC_IN_COCO = (5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)


class CocoSegmentation(Dataset):
    """Images with maps of the classes of their objects; items are (image, map): a tv_tensors.Image and a uint8
    tv_tensors.Mask (H, W).

    As torchvision's reference training has them: 0 where there is no object of the categories, 255 where there are
    several. The file is read as by `CocoDetection`, whose refusals hold here too.

    Args:
        root: The folder of the images.
        annotations: The JSON file.
        categories: Ids, in the order of the classes from 1 on; `voc`: the 20 of Pascal VOC, under its names; None: all
            that the file declares, by ascending id.
        least: Images whose objects of the categories have no larger area than this, in pixels, are left out; 1000 for
            training in torchvision's, None: all stay, as for an evaluation.
        invalid: `raise`: a record that is wrong is an error; `skip`: it is left out, and counted in a note.

    Raises:
        ConfigError: Records that are wrong, a message each.
        DataError: No file of this format, or a category that it does not declare.
    """

    def __init__(
        self,
        root: str,
        annotations: str,
        *,
        categories: str | Sequence[int] | None = None,
        least: float | None = None,
        invalid: str = "raise",
    ):
        objects = CocoDetection(root, annotations, kinds=["segm"], keep_empty=True, invalid=invalid)
        declared = {number: objects.classes[label - 1] for number, label in objects.label_of.items()}
        if isinstance(categories, str) and categories != "voc":
            raise DataError(f"categories: ids, voc or null, not {categories!r}")
        chosen = VOC_IN_COCO if isinstance(categories, str) else tuple(categories or declared)
        if odd := [each for each in chosen if each not in declared]:
            raise DataError(f"categories: {annotations} declares no category {odd[0]} (it has {len(declared)})")
        self.classes = (
            list(WITH_BACKGROUND)
            if isinstance(categories, str)
            else ["background", *(declared[each] for each in chosen)]
        )
        self._class_of = {objects.label_of[each]: number for number, each in enumerate(chosen, start=1)}
        self._notes = objects.notes()
        self.records = [each for each in objects.records if least is None or self._area(each) > least]
        if not self.records:
            raise DataError(f"{annotations}: not one image has objects of these categories with an area above {least}")

    def _area(self, record: ImageRecord) -> float:
        return sum(each.area for each in record.objects if each.label in self._class_of)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        record = self.records[index]
        image = load_image(record.file)
        if tuple(image.shape[-2:]) != record.size:
            there, said = (" x ".join(map(str, size)) for size in (image.shape[-2:], record.size))
            raise ValueError(f"it has {there} pixels (height x width), and its record says {said}")
        return tv_tensors.Image(image), tv_tensors.Mask(self._map(record))

    def _map(self, record: ImageRecord) -> Tensor:
        found = torch.zeros(record.size, dtype=torch.uint8)
        taken = torch.zeros(record.size, dtype=torch.bool)
        for each in record.objects:
            if each.label not in self._class_of:
                continue
            inside = mask_of(each.shape, record.size, name=record.file).bool()
            found[inside] = self._class_of[each.label]
            found[inside & taken] = IGNORED
            taken |= inside
        return found

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
