"""Images of each class after the transforms, as training and test see them, in one picture."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from distill_app.config.build import Builder
from distill_app.config.plan import StagePlan
from distill_app.config.schema import AppConf
from distill_app.data.inspection import Seen, seen
from distill_app.data.labels import class_names
from distill_app.data.samples import finished_image
from distill_app.data.source import DataSource
from distill_app.data.split import share_held_out
from distill_app.data.training_set import own_validation
from distill_app.errors import CorruptImageError, DataError
from distill_app.tasks.build import task_of

_ANY = "images"  # a row of images that have no one class
_EACH, _SIDE, _GAP, _CLASSES = 5, 96, 4, 24  # images of a class for training, and for the test; pixels; rows


def source_of(app: AppConf) -> DataSource:
    """The data of an experiment, on the CPU."""
    device = torch.device("cpu")
    return DataSource(
        builder=Builder(app.runtime.allow), runtime=app.runtime, device=device, seed=app.seed, task_of=task_of
    )


def seen_items(app: AppConf, plan: StagePlan) -> tuple[Iterator[Seen], list[str], str, list[str]]:
    """The images of a data set that is not listed, with their parts, its classes, how it is divided, and its notes."""
    source = source_of(app)
    chosen, test = source.training_set(plan), source.dataset(plan, "test")
    task, count = source.task(plan), app.dataset.num_classes
    held = set(chosen.validation.tolist())

    def items() -> Iterator[Seen]:
        for name, dataset in (("train", chosen.dataset), ("test", test)):
            labels = task.labels(dataset)
            for index in range(len(dataset)):
                part = "validation" if name == "train" and index in held else name
                label = 0 if labels is None else int(labels[index])
                yield seen(partial(_picture, dataset, index), name=f"image {index}", part=part, label=label)

    own = own_validation(chosen.dataset) is not None
    fraction = 0.0 if own else share_held_out(app.dataset.validation_fraction)
    alike = task.labels(chosen.dataset) is None  # boxes, maps or several labels, which are of no one class
    share = f"; {fraction:g}{'' if alike else ' of each class'} for validation" if fraction else ""
    how, notes = f"its own training and test images{share}", source.notes(plan)
    if alike:
        return items(), [_ANY], how, notes
    return items(), class_names(chosen.dataset) or [str(label) for label in range(count)], how, notes


def _picture(dataset: Any, index: int) -> Image.Image:
    """An item of a data set as an image that Pillow holds."""
    item = dataset[index]
    image = item["input"] if isinstance(item, dict) else item[0]
    return (
        image if isinstance(image, Image.Image) else _of_tensor(finished_image({"input": image, "index": 0})["input"])
    )


def _of_tensor(image: torch.Tensor) -> Image.Image:
    pixels = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().to(torch.uint8)
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def draw(app: AppConf, plan: StagePlan, path: Path) -> Path:
    """Draws a row for each class: training images as the first epoch sees them, then test images as they are evaluated.

    Args:
        app: The experiment.
        plan: Its stage whose data are shown.
        path: Where the picture goes.

    Returns:
        The path.
    """
    source = source_of(app)
    chosen, test = source.training_set(plan), source.test_samples(plan)
    train, labels = source.samples(plan, chosen.train), source.task(plan).labels(test.dataset)
    names = class_names(chosen.dataset) or [str(label) for label in range(app.dataset.num_classes)]
    names = names if chosen.labels is not None and labels is not None else [_ANY]
    width = max(len(name) for name in names[:_CLASSES]) * 7 + 2 * _GAP
    step, head = _SIDE + _GAP, 20
    rows = min(len(names), _CLASSES)
    sheet = Image.new("RGB", (width + 2 * _EACH * step + 3 * _GAP, head + rows * step), "white")
    pen = ImageDraw.Draw(sheet)
    columns = ((width, "as training sees them"), (width + _EACH * step + 3 * _GAP, "as the test sees them"))
    for left, title in columns:
        pen.text((left, _GAP), title, fill="black")
    of_train = None if chosen.labels is None else chosen.labels[chosen.train]
    for row in range(rows):
        top = head + row * step
        pen.text((_GAP, top + _SIDE // 2), names[row], fill="black")
        for (left, _), samples, of in zip(columns, (train, test), (of_train, labels), strict=True):
            for number, image in enumerate(_loaded(samples, of, row)):
                sheet.paste(image, (left + number * step, top))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a link there is replaced, not followed
    sheet.save(path)
    return path


def _loaded(samples: Any, labels: np.ndarray | None, label: int) -> Iterator[Image.Image]:
    """The first images of a class, as large as they are shown; those that cannot be read are left out."""
    places = np.arange(len(samples)) if labels is None else np.flatnonzero(labels == label)
    for place in places[:_EACH]:
        try:
            (sample,) = samples.__getitems__([(int(place), 0)])
        except (CorruptImageError, DataError):
            continue
        image = sample["input"][0] if sample["input"].dim() == 4 else sample["input"]
        yield _of_tensor(image).convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
