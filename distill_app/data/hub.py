"""Data sets in the format of Hugging Face: in a folder, in parquet files, or by their id on the hub. No torch.

The package `datasets` is imported when one is asked for; images stay on the disk and are read by their index.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from distill_app.data.absence import absence
from distill_app.data.listing import ordered_classes
from distill_app.data.names import class_name_notes
from distill_app.data.parts import Division, divided, part_names
from distill_app.data.tables import USUAL, column_of
from distill_app.errors import DataError
from distill_app.extras import install
from distill_app.words import some, unknown

LOOKED_AT = 256  # images of a part whose bytes tell one data set from another, or whose files have to be there


@dataclass
class HubListing:
    """The images of a data set that Hugging Face's package reads.

    Attributes:
        tables: Its parts, with the images undecoded.
        image: The column of the images.
        classes: Names, in the order of their labels.
        rows: Part of the data set and index in it, of each image.
        labels: Of each image.
        division: Which of them are for what.
    """

    tables: Mapping[str, Any]
    image: str
    classes: list[str]
    rows: list[tuple[str, int]]
    labels: list[int]
    division: Division

    @property
    def notes(self) -> list[str]:
        """What may be a mistake and keeps nobody from reading the images."""
        return list(class_name_notes(self.classes, of_table=True))

    def record(self) -> dict[str, Any]:
        """What a run keeps of how images fall into parts."""
        return self.division.record([f"{name}/{row}" for name, row in self.rows])


def hub_listing(
    path: str,
    *,
    subset: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    splits: Mapping[str, str | None] | None = None,
    classes: Sequence[str] | None = None,
    test_fraction: float | None = None,
    split_seed: int = 0,
) -> HubListing:
    """The images of a data set, their classes and their parts.

    Args:
        path: A folder that `save_to_disk` wrote, a parquet file or a folder of those, or an id on the hub.
        subset: Of a data set on the hub that has several.
        columns: image, label -> name of the column; None: the one of that type, or of a usual name.
        splits: Part -> its name in the data set, where that is no usual one.
        classes: Their order; None: as the data set has them, else sorted.
        test_fraction: Without a part for the test, the share of each class that is tested; None: 0.2.
        split_seed: What draws it.

    Raises:
        DataError: There is no such data set, column or part, or an image has no class; or the package is missing.
    """
    found = opened(path, subset)
    names = _names(found, splits)
    used = list(names.values())
    first = found[used[0]]
    image, label = _column(first, "image", columns, of=path), _column(first, "label", columns, of=path)
    words = _words({name: found[name] for name in used}, label, of=path)
    ordered = _classes(words, label, classes, of=path, titles=_titles(first, label))
    flat = [(name, row, word) for name, column in words.items() for row, word in enumerate(column)]
    part_of = {name: part for part, name in names.items()}
    division = divided(
        [part_of[name] for name, *_ in flat],
        names,
        labels=[word for *_, word in flat],
        images=[f"{name}/{row}" for name, row, _ in flat],
        test_fraction=test_fraction,
        seed=split_seed,
    )
    number = {name: place for place, name in enumerate(ordered)}
    tables = {name: _undecoded(found[name], image, of=path) for name in used}
    return HubListing(
        tables, image, ordered, [(name, row) for name, row, _ in flat], [number[word] for *_, word in flat], division
    )


def hub_classes(
    path: str,
    *,
    subset: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    splits: Mapping[str, str | None] | None = None,
    classes: Sequence[str] | None = None,
) -> list[str]:
    """The classes of a data set, in the order of their labels; arguments and errors are those of `hub_listing`."""
    found = opened(path, subset)
    used = list(_names(found, splits).values())
    label = _column(found[used[0]], "label", columns, of=path)
    words = _words({name: found[name] for name in used}, label, of=path)
    return _classes(words, label, classes, of=path, titles=_titles(found[used[0]], label))


def opened(path: str, subset: str | None = None) -> dict[str, Any]:
    """The parts of a data set by their names; what has no parts is called `all`.

    Raises:
        DataError: It is not there, cannot be read, or the package is missing.
    """
    try:
        import datasets
    except ImportError as error:
        needed = "dataset=huggingface needs the package datasets, which is not installed"
        raise DataError(f"path: {needed}: {install('datasets')}") from error
    place = Path(path)
    local = place.exists()
    if not local and (path.startswith(("/", ".", "~")) or path.count("/") > 1 or place.suffix):
        raise DataError(f"path: {absence(path, kind='data set')}")
    newest = max((file.stat().st_mtime_ns for file in place.glob("*")), default=0) if place.is_dir() else 0
    try:
        loaded = _loaded(path, subset, newest)
    except Exception as error:  # of many kinds, of several packages
        hint = "" if local else "; an id on the hub is OWNER/NAME, and nothing of that name lies here"
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"path: {path} cannot be read as a data set: {told}{hint}") from error
    return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"all": loaded}


@lru_cache(maxsize=4)
def _loaded(path: str, subset: str | None, newest: int) -> Any:
    import datasets

    shown, place = datasets.is_progress_bar_enabled(), Path(path)
    datasets.disable_progress_bars()
    try:
        if place.is_dir() and any(Path(place, name).is_file() for name in ("dataset_dict.json", "state.json")):
            return datasets.load_from_disk(path)
        if place.is_file():
            return datasets.load_dataset("parquet", data_files=path, split="train")
        return datasets.load_dataset(path, name=subset)
    finally:
        if shown:
            datasets.enable_progress_bars()


def _names(found: Mapping[str, Any], splits: Mapping[str, str | None] | None) -> dict[str, str]:
    """Part -> its name; a data set of one part without a usual name is one to share."""
    names = part_names(found, splits)
    if not names and len(found) == 1:
        return {"train": next(iter(found))}
    if "train" not in names:
        raise DataError(
            f"splits.train: none of {some(found)} is for training by its name; say which: dataset.splits.train=NAME"
        )
    return names


def _column(table: Any, role: str, columns: Mapping[str, str | None] | None, *, of: str) -> str:
    """The column of the images or of the labels: the one that is said, the one of that type, or by its name."""
    if odd := [each for each in columns or {} if each not in USUAL]:
        raise DataError(f"columns: {unknown('column', odd[0], USUAL)}")
    if (columns or {}).get("split"):
        raise DataError("columns.split: the parts are those of the data set itself; dataset.splits names them")
    kind = {"image": "Image", "label": "ClassLabel"}[role]
    fitting = [name for name, feature in table.features.items() if type(feature).__name__ == kind]
    if (columns or {}).get(role) is None and len(fitting) == 1:
        return str(fitting[0])
    return str(column_of(role, list(table.features), columns, of=of))


def _titles(table: Any, label: str) -> list[str]:
    """The names of the classes, where the data set itself has them in their order."""
    return list(getattr(table.features[label], "names", None) or ())


def _words(tables: Mapping[str, Any], label: str, *, of: str) -> dict[str, list[str]]:
    """Part -> the name of the class of each of its images."""
    words = {}
    for name, table in tables.items():
        titles, column = _titles(table, label), list(table.select_columns([label])[:][label])
        _refuse_several(column, f"columns.label: {of}: the column {label} of {name}")
        lacking = [row for row, value in enumerate(column) if _is_none(value)]
        if lacking:
            raise DataError(
                f"columns.label: {of}: {len(lacking)} of the {len(column)} images of {name} have no label, first that "
                f"of row {lacking[0]}; take another part, dataset.splits.{name}=NAME, or leave them out"
            )
        words[name] = [titles[value] if titles and isinstance(value, int) else _word(value) for value in column]
    return words


def _refuse_several(column: Sequence[Any], what: str) -> None:
    row = next((row for row, value in enumerate(column) if isinstance(value, list | tuple | dict | bytes)), None)
    if row is not None:
        raise DataError(
            f"{what} has {column[row]!r} in row {row}, and an image has one class, a name or a number; name another "
            f"column: dataset.columns.label=NAME"
        )


def _is_none(label: Any) -> bool:
    return label in (None, "") or (isinstance(label, int | float) and not label >= 0)  # so that NaN is none


def _word(label: Any) -> str:
    # A column with gaps is one of floats, whatever it held before.
    return str(int(label) if isinstance(label, float) and label.is_integer() else label)


def _classes(
    words: Mapping[str, Sequence[str]], label: str, classes: Sequence[str] | None, *, of: str, titles: Sequence[str]
) -> list[str]:
    found = {word for column in words.values() for word in column} | set(titles)
    order = list(titles) if titles and classes is None else classes
    return ordered_classes(found, order, of=f"column {label} of {of}", numeric=True)


def _undecoded(table: Any, image: str, *, of: str) -> Any:
    """A part with its images as bytes, or as paths, of files."""
    import datasets

    try:
        found = table.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    except Exception as error:  # pyarrow's
        kind = table.features[image]
        raise DataError(
            f"columns.image: {of}: the column {image} holds no images, but {kind}; say which does"
        ) from error
    for row in range(0, len(found), max(1, len(found) // LOOKED_AT)):
        stored = found[row][image] or {}
        if stored.get("bytes") is None and stored.get("path") is not None and not Path(stored["path"]).is_file():
            raise DataError(
                f"columns.image: {of}: the column {image} holds paths of files, and that of row {row} is not there: "
                f"{stored['path']}; name another column, or put the files there"
            )
    return found
