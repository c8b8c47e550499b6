"""The targets of images with objects: how they are made of records, and what has to be true of them.

A target is a dict whose tensors have one row for each of an image's N objects, as `tasks.Detection` describes it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import clamp_bounding_boxes, convert_bounding_box_format

from distill_app.data.looks import some_items
from distill_app.data.objects import ImageRecord
from distill_app.errors import DataError

_NEEDED = {"bbox": ("boxes", "labels"), "segm": ("masks",), "keypoints": ("keypoints", "visibility")}


def target_of(
    record: ImageRecord, *, kinds: Sequence[str], name: str, keypoints: int = 0, known: bool = True
) -> dict[str, Any]:
    """The target of an image; where nothing is known of it, one without objects that says `unlabelled`.

    Args:
        record: The image.
        kinds: Of bbox, segm and keypoints, which the target has.
        name: Of the image, for messages.
        keypoints: How many each object of the data set has, which images without objects cannot say.
        known: Whether its objects are.

    Raises:
        ValueError: A mask that cannot be made.
    """
    objects = record.objects
    corners = torch.tensor([each.box for each in objects], dtype=torch.float32).view(-1, 4)
    boxes = tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=record.size)
    area = torch.tensor([each.area for each in objects], dtype=torch.float64)
    target: dict[str, Any] = {
        "boxes": boxes,
        "labels": torch.tensor([each.label for each in objects], dtype=torch.int64),
        "area": area,
        "filled": area / _areas(boxes),
        "iscrowd": torch.tensor([int(each.crowd) for each in objects], dtype=torch.int64),
        "size": record.size,
    }
    if "segm" in kinds:
        masks = [mask_of(each.shape, record.size, name=name) for each in objects]
        empty = torch.zeros(0, *record.size, dtype=torch.uint8)
        target["masks"] = tv_tensors.Mask(torch.stack(masks) if masks else empty)
    if "keypoints" in kinds:
        points = torch.tensor([list(each.points or ()) for each in objects], dtype=torch.float32)
        points = points.view(len(objects), keypoints, 3)
        target["keypoints"] = tv_tensors.KeyPoints(points[..., :2].clone(), canvas_size=record.size)
        target["visibility"] = points[..., 2].long()
    return target if known else {**target, "unlabelled": True}


def mask_of(shape: Any, size: tuple[int, int], *, name: str) -> Tensor:
    """A mask uint8 (H, W) from run lengths or polygons.

    Raises:
        ValueError: Run lengths that do not fit the image.
    """
    from pycocotools import mask

    height, width = size
    if isinstance(shape, Tensor):
        return shape
    if isinstance(shape, Mapping):
        plain = isinstance(shape["counts"], list)
        runs = mask.frPyObjects(shape, height, width) if plain else shape
    else:
        runs = mask.merge(mask.frPyObjects(shape, height, width))
    try:
        return torch.from_numpy(mask.decode(runs))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} has a mask that cannot be decoded: {error}") from error


def checked_target(
    target: Any, image: Tensor, *, num_classes: int, name: str, pad_to: int | None = None
) -> dict[str, Any]:
    """A target behind the transforms: boxes as corners, areas in pixels of the image, hidden keypoints marked.

    Boxes may lie out of the image by a little, as their annotators drew them: they are judged so.

    Args:
        target: As a data set and its transforms give it.
        image: (3, H, W).
        num_classes: How many classes there are, without the background.
        name: Of the item, for messages.
        pad_to: The largest side in pixels; None: any.

    Raises:
        DataError: No target, boxes that transforms leave where they were, tensors that are not one row for each box,
            labels that there are not, or an image that is too large.
    """
    height, width = image.shape[-2:]
    if pad_to is not None and max(height, width) > pad_to:
        raise DataError(
            f"dataset.task.pad_to: {name} is {height} x {width} px behind the transforms, larger than {pad_to}; raise "
            f"it, or make images smaller by a transform"
        )
    if not isinstance(target, Mapping) or "boxes" not in target or "labels" not in target:
        raise DataError(f"dataset: the target of {name} is no dict with boxes and labels")
    boxes = target["boxes"]
    if not isinstance(boxes, tv_tensors.BoundingBoxes):
        raise DataError(
            f"dataset: the boxes of {name} are a {type(boxes).__name__}, which transforms leave where they were; make "
            f"them torchvision.tv_tensors.BoundingBoxes (masks a tv_tensors.Mask, keypoints tv_tensors.KeyPoints)"
        )
    if tuple(boxes.canvas_size) != (height, width):
        raise DataError(
            f"dataset: the transforms leave {name} with {height} x {width} px, and its boxes in {boxes.canvas_size}: "
            f"one of them has changed the image alone"
        )
    checked = dict(target)
    filled = checked.pop("filled", None)
    wrong = [key for key, value in checked.items() if isinstance(value, Tensor) and len(value) != len(boxes)]
    if wrong:
        raise DataError(f"dataset: {wrong[0]!r} of {name} has {len(target[wrong[0]])} rows for {len(boxes)} boxes")
    if problem := _label_problem(target["labels"], num_classes=num_classes):
        raise DataError(f"dataset: {problem} ({name})")
    checked["boxes"] = convert_bounding_box_format(boxes, new_format="XYXY")
    _complete(checked, (height, width), filled=filled)
    return checked


def _complete(target: dict[str, Any], size: tuple[int, int], *, filled: Tensor | None) -> None:
    boxes, masks = target["boxes"], target.get("masks")
    changed = tuple(target.get("size", size)) != size
    if "area" not in target or changed:
        # Transforms that leave out boxes by themselves may know nothing of what else has a row for each.
        share: Any = filled if filled is not None and len(filled) == len(boxes) else 1.0
        area = _areas(boxes) * share if masks is None else masks.as_subclass(Tensor).flatten(1).sum(dim=1)
        target["area"] = area.double()
    target.setdefault("iscrowd", torch.zeros(len(boxes), dtype=torch.int64))
    target["size"] = size
    if "keypoints" in target:
        points = target["keypoints"].as_subclass(Tensor)
        inside = ((points >= 0) & (points <= points.new_tensor([size[1], size[0]]))).all(dim=2)
        target["visibility"] = target["visibility"] * inside


def _areas(boxes: tv_tensors.BoundingBoxes) -> Tensor:
    """Of corners, as far as they lie in the image: float64 (N,), 0 nowhere."""
    corners = clamp_bounding_boxes(boxes).as_subclass(Tensor).double()
    return (corners[:, 2:] - corners[:, :2]).prod(dim=1).clamp(min=1e-9)


def without_empty_boxes(target: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The target without objects whose box has no width or no height in the image, and how many these were.

    Transforms that crop leave such boxes, and networks cannot learn from them. All rows of such an object leave.
    """
    corners = clamp_bounding_boxes(target["boxes"]).as_subclass(Tensor)
    kept = (corners[:, 2:] > corners[:, :2]).all(dim=1)
    count = int((~kept).sum())
    if not count:
        return dict(target), 0
    return {key: _rows(value, kept) if isinstance(value, Tensor) else value for key, value in target.items()}, count


def _rows(value: Tensor, kept: Tensor) -> Tensor:
    rows = value.as_subclass(Tensor)[kept]
    return tv_tensors.wrap(rows, like=value) if isinstance(value, tv_tensors.TVTensor) else rows


def groups_by_aspect(dataset: Any, *, count: int) -> np.ndarray | None:
    """A group for every image by its width over its height, int64 (N,): like images fill up a batch with less padding.

    Bounds are at 2^-1 to 2^1 in equal steps of the exponent, as torchvision's reference training has them.

    Args:
        dataset: With `sizes`; None comes back for others.
        count: Groups on either side of a square; 0: none.
    """
    sizes = getattr(dataset, "sizes", None)
    if not count or sizes is None or not len(sizes):
        return None
    ratios = np.array([width / height for height, width in sizes])
    return np.digitize(ratios, 2.0 ** np.linspace(-1, 1, 2 * count + 1)).astype(np.int64)


def dataset_problems(dataset: Any, *, num_classes: int, kinds: Sequence[str]) -> list[str]:
    """What is wrong with the targets of some items, a message each, without the config key."""
    for index, _, target in some_items(dataset):
        if problem := _target_problem(target, num_classes=num_classes, kinds=kinds):
            return [f"item {index}: {problem}"]
    return []


def _target_problem(target: Any, *, num_classes: int, kinds: Sequence[str]) -> str | None:
    if not isinstance(target, Mapping):
        return f"a target is a {type(target).__name__}, and a dict of boxes, labels and more is needed"
    if absent := [key for kind in kinds for key in _NEEDED[kind] if key not in target]:
        return f"a target has no {absent[0]} ({', '.join(map(str, target))}); see dataset.task.kinds"
    if not isinstance(target["boxes"], tv_tensors.BoundingBoxes):
        return "boxes are no torchvision.tv_tensors.BoundingBoxes, so that transforms would leave them where they were"
    return _label_problem(target["labels"], num_classes=num_classes)


def _label_problem(labels: Tensor, *, num_classes: int) -> str | None:
    if len(labels) and not (int(labels.min()) >= 1 and int(labels.max()) <= num_classes):
        return (
            f"labels go from {int(labels.min())} to {int(labels.max())}, and num_classes={num_classes} means 1 to "
            f"{num_classes}: 0 is the background"
        )
    return None
