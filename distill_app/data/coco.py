"""Data sets in COCO's format: a folder of images and a JSON file of objects, which may come from anybody."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_app.data.images import MAX_PIXELS
from distill_app.data.names import is_text
from distill_app.data.object_images import ObjectImages
from distill_app.data.objects import MOST_ID, Faults, ImageRecord, ObjectRecord
from distill_app.errors import DataError

LABELS = ("contiguous", "ids")
_MOST_CORNERS = 100_000  # numbers of an object's polygons
_LARGEST = 1e12  # number that is read, such as an area


class CocoDetection(ObjectImages):
    """Images with objects as a file in COCO's format describes them; items are (image, target).

    Images without objects are left out, unless `keep_empty`. Every record is looked at when the file is read: paths
    outside of the root, images that are not there, categories that nobody declares, boxes without an area or outside of
    their image, masks of other sizes. With keypoints, images without a labelled one are left out too.

    Args:
        root: The folder of the images.
        annotations: The JSON file.
        kinds: Of bbox, segm and keypoints, which targets have.
        labels: `contiguous`: 1, 2, ... by ascending id of the category; `ids`: the ids themselves, with which
            torchvision's networks for COCO were trained.
        keep_empty: Whether images without objects stay, which an evaluation needs: what is found there is wrong.
        invalid: `raise`: a record that is wrong is an error; `skip`: it is left out, and counted in a note.
        unlabelled: Folder and JSON file of further images, such as unlabeled2017 and image_info_unlabeled2017.json;
            whatever the file says of objects is not read. A stage sees them if it says so.

    Attributes:
        label_of: Id of a category -> its label.

    Raises:
        ConfigError: Records that are wrong, a message each.
        DataError: No file of this format.
    """

    def __init__(
        self,
        root: str,
        annotations: str,
        *,
        kinds: Sequence[str] = ("bbox",),
        labels: str = "contiguous",
        keep_empty: bool = False,
        invalid: str = "raise",
        unlabelled: Sequence[str] | None = None,
    ):
        if labels not in LABELS:
            raise ValueError(f"labels: {labels!r} is not one of {', '.join(LABELS)}")
        content, faults = _read(annotations), Faults(invalid)
        ids = _categories(content, annotations)
        known = sorted(ids)
        if labels == "ids":
            if known[0] < 1 or known[-1] > MOST_ID:
                raise DataError(f"{annotations}: labels=ids takes ids from 1 to {MOST_ID}; set labels=contiguous")
            classes, label_of = (
                [ids.get(label, f"({label})") for label in range(1, known[-1] + 1)],
                {k: k for k in known},
            )
        else:
            classes, label_of = [ids[each] for each in known], {each: n for n, each in enumerate(known, start=1)}
        images = _images(content, root, faults)
        wanted = "keypoints" in kinds
        points = _keypoint_count(content) if wanted else 0
        _add_objects(content, images, label_of, kinds=kinds, points=points, faults=faults)
        chosen = [image for image in images.values() if keep_empty or _has_objects(image, keypoints=wanted)]
        more = [] if unlabelled is None else _unlabelled(unlabelled, faults)
        notes = faults.settle(source=annotations)
        if not chosen:
            raise DataError(f"{annotations}: not one of {len(images)} images has an object")
        super().__init__(chosen, classes=classes, kinds=kinds, keypoints=points, notes=notes, unlabelled=more)
        self.label_of = label_of


def _has_objects(image: ImageRecord, *, keypoints: bool) -> bool:
    """Crowds alone teach nothing; nor do persons without a labelled keypoint."""
    single = [each for each in image.objects if not each.crowd]
    return any(any(each.points[2::3]) for each in single if each.points) if keypoints else bool(single)


def _unlabelled(source: Sequence[str], faults: Faults) -> list[ImageRecord]:
    if isinstance(source, str) or len(source) != 2:
        raise ValueError(f"unlabelled: {source!r} is no folder and file; write [FOLDER, FILE.json]")
    root, file = source
    return list(_images(_read(file, parts=("images",)), root, faults).values())


def _read(path: str, *, parts: Sequence[str] = ("images", "annotations", "categories")) -> Mapping[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not text.strip():
        raise DataError(f"{path} is empty")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {str(error).splitlines()[0]}") from error
    missing = [part for part in parts if not isinstance(content, dict) or not isinstance(content.get(part), list)]
    if missing:
        raise DataError(f"{path} is not in COCO's format: it has no list of {missing[0]}")
    found: Mapping[str, Any] = content
    return found


def _categories(content: Mapping[str, Any], path: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for each in content["categories"]:
        number = each.get("id") if isinstance(each, dict) else None
        if type(number) is not int or number in found:
            raise DataError(f"{path}: category {_short(each)} has no id of its own")
        found[number] = str(each.get("name", number))
        if not is_text(found[number]):
            raise DataError(f"{path}: category {number} has a name that is no text in UTF-8: {found[number]!a}")
    if not found:
        raise DataError(f"{path} declares no categories")
    return found


def _images(content: Mapping[str, Any], root: str, faults: Faults) -> dict[Any, ImageRecord]:
    found: dict[Any, ImageRecord] = {}
    for each in content["images"]:
        problem = _image_problem(each, root, found)
        if problem is None:
            file = os.path.join(root, each["file_name"])
            found[each["id"]] = ImageRecord(file, (each["height"], each["width"]))
        else:
            faults.add(problem)
    return found


def _image_problem(each: Any, root: str, found: Mapping[Any, ImageRecord]) -> str | None:
    if (
        not isinstance(each, dict)
        or not isinstance(each.get("id"), int | str)
        or not isinstance(each.get("file_name"), str)
    ):
        return f"image {_short(each)} has no id and file_name"
    name = f"image {each['id']} ({_short(each['file_name'])})"
    if each["id"] in found:
        return f"{name} has the id of another one"
    if not is_text(each["file_name"]):
        return f"{name} has a name that is no text in UTF-8, so that nothing can record it; rename the file, too"
    if not _inside(each["file_name"]):
        return f"{name} lies outside of {root}"
    sides: list[Any] = [each.get(side) for side in ("height", "width")]
    if not all(type(side) is int and side > 0 for side in sides) or math.prod(sides) > MAX_PIXELS:
        return f"{name} has no height and width in pixels, or too many of them: {_short(sides)}"
    if not os.path.isfile(os.path.join(root, each["file_name"])):
        return f"{name} is not there: {os.path.join(root, each['file_name'])}"
    return None


def _inside(name: str) -> bool:
    """Whether a relative path stays in its folder, by its letters; links in there are the user's own."""
    parts = re.split(r"[\\/]", name)
    return bool(name) and not os.path.isabs(name) and ".." not in parts and ":" not in parts[0] and "\0" not in name


def _add_objects(
    content: Mapping[str, Any],
    images: Mapping[Any, ImageRecord],
    label_of: Mapping[int, int],
    *,
    kinds: Sequence[str],
    points: int,
    faults: Faults,
) -> None:
    declared = {each.get("id") for each in content["images"] if isinstance(each, dict) and _hashable(each.get("id"))}
    for number, each in enumerate(content["annotations"]):
        if not isinstance(each, dict) or not _hashable(each.get("image_id")):
            faults.add(f"annotation {number} of the list is {_short(each)}")
            continue
        image, name = images.get(each.get("image_id")), f"annotation {each.get('id', f'{number} of the list')}"
        if image is None:
            # Those of an image that is left out go with it.
            if each.get("image_id") not in declared:
                faults.add(f"{name} is of an image {_short(each.get('image_id'))}, which is not declared")
            continue
        name = f"{name} of {os.path.basename(image.file)}"
        problem = next(_object_problems(each, image.size, label_of, kinds=kinds, points=points), None)
        if problem is not None:
            faults.add(f"{name} {problem}")
            continue
        image.objects.append(_object(each, image.size, label_of, kinds=kinds))


def _object(
    each: Mapping[str, Any], size: tuple[int, int], label_of: Mapping[int, int], *, kinds: Sequence[str]
) -> ObjectRecord:
    x, y, width, height = map(float, each["bbox"])
    return ObjectRecord(
        label_of[each["category_id"]],
        (x, y, x + width, y + height),
        area=float(each.get("area", width * height)),
        crowd=bool(each.get("iscrowd", 0)),
        shape=each["segmentation"] if "segm" in kinds else None,
        points=each["keypoints"] if "keypoints" in kinds else None,
    )


def _object_problems(
    each: Mapping[str, Any],
    size: tuple[int, int],
    label_of: Mapping[int, int],
    *,
    kinds: Sequence[str],
    points: int,
) -> Iterator[str]:
    category = each.get("category_id")
    if type(category) is not int or category not in label_of:
        yield f"is of a category {_short(category)}, which is not declared"
    box: Any = each.get("bbox")
    if not _numbers(box, 4):
        yield f"has no bbox of four numbers: {_short(box)}"
        return
    x, y, width, height = box
    if width <= 0 or height <= 0:
        yield f"has a box without an area: {_short(box)}"
    elif max(map(abs, box)) > 2 * max(size):
        yield f"has a box that is much larger than the image, {size[1]} x {size[0]} px: {_short(box)}"
    elif x + width <= 0 or y + height <= 0 or x >= size[1] or y >= size[0]:
        yield f"has a box outside of the image, {size[1]} x {size[0]} px: {_short(box)}"
    area = each.get("area", 1.0)
    if not _numbers([area], 1) or area < 0:
        yield f"has an area of {_short(area)}"
    if type(crowd := each.get("iscrowd", 0)) not in (int, bool) or crowd not in (0, 1):
        yield f"has iscrowd={_short(crowd)}, and 0 or 1 is needed"
    if "segm" in kinds and (problem := _shape_problem(each.get("segmentation"), size)):
        yield problem
    if "keypoints" in kinds:
        given: Any = each.get("keypoints")
        if not _numbers(given, 3 * points) or any(value not in (0, 1, 2) for value in given[2::3]):
            yield f"has no {points} keypoints of x, y and 0, 1 or 2: {_short(given)}"


def _shape_problem(shape: Any, size: tuple[int, int]) -> str | None:
    """Polygons or run lengths that are none, or would take more memory than the image."""
    if isinstance(shape, list) and shape and sum(len(part) for part in shape if isinstance(part, list)) < _MOST_CORNERS:
        high = 2.0 * max(size)
        for polygon in shape:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not _numbers(polygon):
                return f"has a polygon that is none: {_short(polygon)}"
            if not -high <= min(polygon) <= max(polygon) <= high:
                return f"has a polygon outside of the image: {_short(polygon)}"
        return None
    if not isinstance(shape, dict):
        return f"has no mask: {_short(shape)}"
    sides = shape.get("size")
    if sides != list(size) or not all(type(side) is int for side in sides):
        return f"has a mask of {_short(sides)} in an image of {list(size)} (height, width)"
    runs = shape.get("counts")
    lengths: Any = _run_lengths(runs) if isinstance(runs, str) else runs
    fits = isinstance(lengths, list) and all(type(run) is int and run >= 0 for run in lengths)
    return None if fits and sum(lengths) == math.prod(size) else f"has run lengths that do not fill it: {_short(runs)}"


def _run_lengths(text: str) -> list[int] | None:
    """The run lengths that COCO packs into text: 5 bits a sign, then differences to the last but one."""
    lengths: list[int] = []
    value, shift = 0, 0
    for sign in text:
        bits = ord(sign) - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value, shift = 0, 0
    return None if shift else lengths


def _keypoint_count(content: Mapping[str, Any]) -> int:
    """How many keypoints an object has: as the categories say, else as most annotations have."""
    named = [each["keypoints"] for each in content["categories"] if isinstance(each.get("keypoints"), list)]
    if named:
        return max(len(names) for names in named)
    given = (each.get("keypoints") for each in content["annotations"] if isinstance(each, dict))
    return next((len(each) // 3 for each in given if isinstance(each, list) and each), 0)


def _numbers(values: Any, count: int | None = None) -> bool:
    """Whether these are numbers that one can count with, and as many."""
    if not isinstance(values, list) or (count is not None and len(values) != count):
        return False
    return all(type(value) in (int, float) and abs(value) <= _LARGEST for value in values)


def _hashable(value: Any) -> bool:
    return isinstance(value, int | str)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
