"""Pascal VOC's objects: a folder of images, one of XML files, and lists of names."""

import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from distill_app.data.images import MAX_PIXELS
from distill_app.data.object_images import ObjectImages
from distill_app.data.objects import Faults, ImageRecord, ObjectRecord
from distill_app.errors import DataError

_NAMES = """
aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep sofa
train tvmonitor
"""
CLASSES = _NAMES.split()
_LARGEST = 1 << 20  # bytes of an XML file


class VocDetection(ObjectImages):
    """The images of a year of Pascal VOC with their objects; items are (image, target).

    Everingham et al. 2010, http://host.robots.ox.ac.uk/pascal/VOC. VOC counts pixels from 1 and includes the last one.
    Objects that are marked as difficult are treated as crowds: none of them is learnt, and none missed.

    Args:
        root: The folder with `ImageSets`, `JPEGImages` and `Annotations`, usually `VOCdevkit/VOC2012`.
        split: The list of images: train, val, trainval or test.
        keep_empty: Whether images without objects that count stay.
        invalid: `raise`: a record that is wrong is an error; `skip`: it is left out, and counted in a note.

    Raises:
        ConfigError: Records that are wrong, a message each.
        DataError: No such list.
    """

    def __init__(self, root: str, split: str, *, keep_empty: bool = False, invalid: str = "raise"):
        listed, faults = Path(root, "ImageSets", "Main", f"{split}.txt"), Faults(invalid)
        try:
            names = listed.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{listed} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        images = [image for name in names if (image := _image(root, name, faults)) is not None]
        chosen = [image for image in images if keep_empty or any(not each.crowd for each in image.objects)]
        notes = faults.settle(source=str(listed))
        if not chosen:
            raise DataError(f"{listed}: not one of {len(names)} images has an object")
        super().__init__(chosen, classes=CLASSES, notes=notes)


def _image(root: str, name: str, faults: Faults) -> ImageRecord | None:
    if not re.fullmatch(r"[\w-]+", name):
        faults.add(f"image {name!r} is no name of a file in JPEGImages")
        return None
    file = os.path.join(root, "JPEGImages", f"{name}.jpg")
    if not os.path.isfile(file):
        faults.add(f"image {name} is not there: {file}")
        return None
    try:
        tree = _parsed(Path(root, "Annotations", f"{name}.xml"))
        size = (_number(tree, "size/height"), _number(tree, "size/width"))
        if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
            raise ValueError(f"it has {size[0]} x {size[1]} pixels")
    except (OSError, ValueError, ElementTree.ParseError) as error:
        faults.add(f"image {name} has no annotation that can be read: {error}")
        return None
    record = ImageRecord(file, (int(size[0]), int(size[1])))
    for number, part in enumerate(tree.findall("object")):
        try:
            record.objects.append(_object(part, record.size))
        except ValueError as error:
            faults.add(f"object {number} of image {name} {error}")
    return record


def _parsed(path: Path) -> Any:
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path} is larger than {_LARGEST} bytes")
    text = path.read_text(encoding="utf-8")
    if "<!" in text.replace("<!--", ""):  # entities could make gigabytes of it
        raise ValueError(f"{path} declares a document type")
    return ElementTree.fromstring(text)


def _object(part: Any, size: tuple[int, int]) -> ObjectRecord:
    name = part.findtext("name")
    if name not in CLASSES:
        raise ValueError(f"is a {name!r}, which is no class of VOC")
    x1, y1, x2, y2 = (_number(part, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
    box = (x1 - 1, y1 - 1, x2, y2)
    if not (0 <= box[0] < box[2] <= size[1] and 0 <= box[1] < box[3] <= size[0]):
        raise ValueError(f"has a box {[x1, y1, x2, y2]} that is empty or outside of {size[1]} x {size[0]} px")
    difficult = (part.findtext("difficult") or "0").strip() == "1"
    area = (box[2] - box[0]) * (box[3] - box[1])
    return ObjectRecord(CLASSES.index(name) + 1, box, area=area, crowd=difficult)


def _number(tree: Any, path: str) -> float:
    text = (tree.findtext(path) or "").strip()
    if not re.fullmatch(r"-?\d{1,6}(\.\d{1,20})?", text):
        raise ValueError(f"has {text!r} for {path}")
    return float(text)
