"""What is wrong with the data of the stages: classes, labels, splits, budgets, and images that do not fit each other.

Data sets are built, their lists of labels are looked at, and a few images are read and augmented as in training.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import zip_longest
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.datasets import DatasetFolder
from torchvision.datasets.folder import default_loader, pil_loader

from distill_app.config.plan import StagePlan
from distill_app.data.images import is_deep
from distill_app.data.labels import class_names
from distill_app.data.opening import open_image
from distill_app.data.samples import Samples
from distill_app.data.source import DataSource
from distill_app.errors import ConfigError, CorruptImageError, DistillError

HEADERS = 128  # files whose headers are looked at, spread over a data set
EXAMPLES = 8  # images of a data set that are read
# Of own data, as many as take a second or two: their headers, and the images as far as this many pixels go.
_LOOKED_AT, _PIXELS = 2000, 50_000_000
_SHOWN = 3
_KEYED = re.compile(r"(dataset|method|prelude|stage|runtime)\b\S*:")


def data_errors(
    plans: Sequence[StagePlan], *, source: DataSource, task_of: Callable[[StagePlan], Any], told: Sequence[str] = ()
) -> Iterator[str]:
    """Yields what is wrong with the data of all stages, each thing once.

    Args:
        plans: The stages.
        source: Where their data sets are, or come to be, built.
        task_of: What the data of a stage are for.
        told: What is known to be wrong already. Data that an error is about are not looked at again.
    """
    seen = set(told)
    for plan in plans:
        if any(error.startswith(f"{plan.data_key}.") for error in told):
            continue
        try:
            task = task_of(plan)
        except ConfigError:  # told by whoever looks at targets
            continue
        for error in stage_data_errors(plan, source=source, task=task):
            if error not in seen:
                seen.add(error)
                yield error


def stage_data_errors(plan: StagePlan, *, source: DataSource, task: Any) -> Iterator[str]:
    """Yields what is wrong with the data of a stage.

    Args:
        plan: The stage.
        source: Where its data sets are, or come to be, built.
        task: What its data are for. Its `label_problems`, if it has them, judge the labels; with a `collate` of its
            own, images may have several sizes.
    """
    errors = [error for part in ("train", "test") for error in _dataset_errors(plan, part, source=source, task=task)]
    yield from errors
    if errors:
        return
    chosen = np.arange(len(source.dataset(plan, "train")))  # should there be no choosing
    try:
        chosen = source.training_set(plan).train
        source.order(plan)
    except (ConfigError, DistillError) as error:
        yield from _texts(error, key=f"{plan.data_key}.train")
    key, alike = plan.data_key, getattr(task, "collate", default_collate) is default_collate
    for part, transform, samples in (
        ("train", "train_transform", lambda: source.samples(plan, chosen)),
        ("test", "eval_transform", lambda: source.test_samples(plan)),
    ):
        dataset = source.dataset(plan, part)
        errors = [
            *_depth_errors(dataset, key=f"{key}.{part}"),
            *_unreadable(dataset, source=source, key=f"{key}.{part}"),
        ]
        yield from errors or _image_errors(samples, key=f"{key}.{part}", transform=f"{key}.{transform}", alike=alike)


def _dataset_errors(plan: StagePlan, part: str, *, source: DataSource, task: Any) -> Iterator[str]:
    key = f"{plan.data_key}.{part}"
    try:
        dataset = source.dataset(plan, part)
        if not len(dataset):
            yield f"{key}: {type(dataset).__name__} has no images"
            return
        yield from _class_errors(plan, part, source=source)
        names, label_problems = class_names(dataset), getattr(task, "label_problems", None)
        if label_problems is not None and (names is None or len(names) == plan.data.num_classes):
            yield from (f"{key}: {problem}" for problem in label_problems(dataset))
    except (ConfigError, DistillError) as error:
        yield from _texts(error, key=key)


def _class_errors(plan: StagePlan, part: str, *, source: DataSource) -> Iterator[str]:
    """Names of classes, where a data set has them: as many as there are classes, and in train and test the same."""
    dataset, key = source.dataset(plan, part), plan.data_key
    names, count = class_names(dataset), plan.data.num_classes
    train = None
    if part == "test":
        with suppress(ConfigError, DistillError):  # told of train itself
            train = class_names(source.dataset(plan, "train"))
    if names is None:
        return
    if train is not None and train != names:
        pairs = enumerate(zip_longest(train, names, fillvalue=None))
        label, (one, other) = next((label, pair) for label, pair in pairs if pair[0] != pair[1])
        yield (
            f"{key}.test: its classes are not those of {key}.train in their order, so labels would not mean the same: "
            f"label {label} is {one!r} in train and {other!r} in test"
        )
    elif train is None and len(names) != count:
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        yield (
            f"{key}.num_classes: {count} was given, and {type(dataset).__name__} of {key}.{part} has {len(names)} "
            f"classes ({shown}); set {key}.num_classes={len(names)}"
        )


def _image_errors(samples: Callable[[], Any], *, key: str, transform: str, alike: bool) -> Iterator[str]:
    """Examples that cannot be loaded, or do not make a batch."""
    try:
        loaded = _examples(samples())
    except (ConfigError, DistillError) as error:
        yield from _texts(error, key=key)
    except Exception as error:
        yield f"{transform}: fails on an image of {key}: {type(error).__name__}: {_line(error)}"
    else:
        yield from _size_errors(loaded, key=transform) if alike else ()


def _size_errors(samples: dict[int, Tensor], *, key: str) -> Iterator[str]:
    sizes: dict[tuple[int, ...], int] = {}
    for index, image in samples.items():
        sizes.setdefault(tuple(image.shape), index)
    if len(sizes) < 2:
        return
    shown = ", ".join(f"{'x'.join(map(str, shape))} (image {index})" for shape, index in list(sizes.items())[:_SHOWN])
    yield (
        f"{key}: images come out in several sizes, channels x height x width, and a batch needs one: {shown}; end the "
        f"transforms with one that gives one size, such as torchvision.transforms.v2.RandomResizedCrop or, for all of "
        f"the image, Resize of [height, width]"
    )


def _examples(samples: Any) -> dict[int, Tensor]:
    """Some samples of a split, of as many different sizes and kinds of files as its headers show."""
    positions = _spread(len(samples), HEADERS)
    kinds: dict[Any, int] = {}
    for position in positions:
        kinds.setdefault(_header(_file(_base(samples).dataset, int(samples.indices[position]))), position)
    chosen = sorted({*list(kinds.values())[:EXAMPLES], *_spread(len(samples), EXAMPLES)})
    loaded: dict[int, Any] = {}
    for position in chosen:
        try:
            found = samples.__getitems__([(position, 0)])
        except CorruptImageError:  # told, or passed over, in training: see runtime.corrupt_images
            continue
        loaded |= {int(sample["index"]): sample["input"] for sample in found}
    return loaded


def _base(samples: Any) -> Samples:
    while not isinstance(samples, Samples):
        samples = samples.samples
    return samples


def _spread(count: int, most: int) -> list[int]:
    return [int(place) for place in np.unique(np.linspace(0, count - 1, min(most, count)).astype(int))]


def _file(dataset: Any, index: int) -> str | None:
    """The file of an item of a data set of class folders."""
    return str(dataset.samples[index][0]) if isinstance(dataset, DatasetFolder) else None


def _header(path: str | None) -> Any:
    """Mode and size of an image file; None where it cannot be said."""
    if path is None:
        return None
    try:
        with open_image(path, header_only=True) as image:
            return image.mode, image.size, is_deep(image)
    except (OSError, ValueError, SyntaxError):
        return None


def _unreadable(dataset: Any, *, source: DataSource, key: str) -> Iterator[str]:
    """Own images that cannot be read; nobody has looked at them before."""
    if getattr(dataset, "division", None) is None or source.passes_over:
        return
    wrong: dict[int, str] = {}
    positions, pixels = _spread(len(dataset), _LOOKED_AT), 0
    for position in positions:
        try:
            if pixels < _PIXELS:
                pixels += dataset[position][0][0].numel()
            elif (file := _file(dataset, position)) is not None:
                open_image(file).close()
        except (OSError, ValueError, RuntimeError, SyntaxError) as error:
            wrong[position] = _line(error)
    if wrong:
        position, reason = next(iter(wrong.items()))
        file = _file(dataset, position)
        name = f"image {position}{f' ({file})' if file else ''}"
        yield (
            f"{key}: {len(wrong)} of the {len(positions)} images that were looked at cannot be read, first {name}: "
            f"{reason}; mend or remove them, or set runtime.corrupt_images=skip; `distill data check` looks at all"
        )


def _depth_errors(dataset: Any, *, key: str) -> Iterator[str]:
    """torchvision's own reader cuts whatever is above 255 off."""
    if not isinstance(dataset, DatasetFolder) or dataset.loader not in (default_loader, pil_loader):
        return
    for index in _spread(len(dataset), HEADERS):
        path = _file(dataset, index)
        header = _header(path)
        if header is not None and header[2]:
            yield (
                f"{key}: {path} has more than 8 bits a pixel (mode {header[0]}), of which the reader of "
                f"torchvision.datasets makes white all over; use distill_app.data.ImageFolder, which scales them"
            )
            return


def _texts(error: Exception, *, key: str) -> list[str]:
    """An error's messages; those that begin with no key of the config get one."""
    texts = error.errors if isinstance(error, ConfigError) else [str(error)]
    return [text if _KEYED.match(text) else f"{key}: {text}" for text in texts]


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
