"""Images in files that a table names, with a class each: CSV files. No torch, and no image is opened."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from distill_app.data.absence import absence
from distill_app.data.listing import Listing, ordered_classes
from distill_app.data.names import number_of, refuse_unwritable
from distill_app.data.parts import divided, part_names
from distill_app.errors import DataError
from distill_app.words import some, unknown

# Column -> what it is usually called, in any case.
USUAL = {
    "image": ("image", "path", "file", "filename", "file_name", "filepath", "file_path", "image_path", "img"),
    "label": ("label", "labels", "class", "class_name", "target", "category", "fine_label"),
    "split": ("split", "part", "subset", "set"),
}
_DELIMITERS = (",", ";", "\t", "|")


def table_listing(
    file: str,
    *,
    root: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    splits: Mapping[str, str | None] | None = None,
    classes: Sequence[str] | None = None,
    test_fraction: float | None = None,
    split_seed: int = 0,
) -> Listing:
    """The images that a CSV file names: a row each, with its path, its class and, if need be, its part.

    The first row names the columns; commas, semicolons, tabs and bars may be between them. Classes that are numbers
    are put in their order.

    Args:
        file: UTF-8.
        root: What paths are relative to; None: the folder of the file.
        columns: image, label and split -> name of the column; None: one of its usual names.
        splits: Part -> what the column of parts calls it, where that is no usual name.
        classes: Their order; None: sorted.
        test_fraction: Without a column of parts, the share of each class that is tested; None: 0.2.
        split_seed: What draws it.

    Raises:
        DataError: There is no such file or column, a row says too little, or an image is not there.
        OSError: A file that cannot be read.
    """
    rows, header = _rows(file)
    chosen = {role: column_of(role, header, columns, of=file) for role in USUAL}
    place = Path(root or Path(file).parent)
    paths, labels, parts = (_values(rows, chosen[role], file=file) for role in USUAL)
    lines, files = list(rows), [str(place / path) for path in paths]
    _refuse_none(lines, labels, column=chosen["label"], file=file)
    refuse_unwritable(files)
    _refuse_missing(lines, files, file=file, place=place)
    _refuse_twice(lines, files, file=file)
    names = _part_names(lines, parts, splits, column=chosen["split"], file=file)
    part_of = {name: part for part, name in names.items()}
    division = divided(
        [part_of[value] for value in parts] if parts else None,
        names,
        labels=labels,
        images=paths,
        test_fraction=test_fraction,
        seed=split_seed,
    )
    ordered = ordered_classes(labels, classes, of=f"column {chosen['label']} of {file}", numeric=True)
    return Listing(str(place), ordered, list(zip(files, labels, strict=True)), division)


def table_classes(
    file: str, *, columns: Mapping[str, str | None] | None = None, classes: Sequence[str] | None = None
) -> list[str]:
    """The classes that a CSV file names; nothing else of it is looked at.

    Raises:
        DataError, OSError: As `table_listing`.
    """
    rows, header = _rows(file)
    column = column_of("label", header, columns, of=file)
    found = _values(rows, column, file=file)
    return ordered_classes(found, classes, of=f"column {column} of {file}", numeric=True)


def column_of(role: str, header: Sequence[str], columns: Mapping[str, str | None] | None, *, of: str) -> str | None:
    """The column of a table that holds the image, the label or the part; None where parts are not said.

    Args:
        role: image, label or split.
        header: The columns that there are.
        columns: Role -> name, where the config says it.
        of: The table, for messages.

    Raises:
        DataError: There is none, or several that could be meant.
    """
    if odd := [each for each in columns or {} if each not in USUAL]:
        raise DataError(f"columns: {unknown('column', odd[0], USUAL)}")
    if (said := (columns or {}).get(role)) is not None:
        if said in header:
            return said
        raise DataError(f"columns.{role}: {of}: {unknown('column', said, header)}")
    fitting = [name for name in header if name.lower() in USUAL[role]]
    if len(fitting) == 1 or (role == "split" and not fitting):
        return fitting[0] if fitting else None
    why = f"{' and '.join(fitting)} could all be meant" if fitting else f"it has {some(header, limit=9)}"
    raise DataError(f"columns.{role}: {of}: {why}; say which is the {role}: dataset.columns.{role}=NAME")


def _rows(file: str) -> tuple[dict[int, dict[str, str]], list[str]]:
    """Line -> row, and the names of the columns."""
    if not os.path.isfile(file):
        raise DataError(f"file: {absence(file, kind='file')}")
    try:
        with open(file, encoding="utf-8-sig", newline="") as text:
            first = text.readline()
            text.seek(0)
            reader = csv.DictReader(text, delimiter=max(_DELIMITERS, key=first.count), skipinitialspace=True)
            rows = dict((reader.line_num, row) for row in reader if any(row.values()))  # noqa: C402  the key moves on
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"file: {file} is no CSV file in UTF-8: {error}") from error
    if not rows:
        raise DataError(f"file: {file} has no rows under its first line, which names the columns")
    return rows, [name for name in reader.fieldnames or () if name]


def _values(rows: Mapping[int, Mapping[str, str]], column: str | None, *, file: str) -> list[str]:
    """What stands in a column; nothing where there is no such column."""
    if column is None:
        return []
    values = {line: (row.get(column) or "").strip() for line, row in rows.items()}
    if empty := [line for line, value in values.items() if not value]:
        raise DataError(
            f"file: {file}, line {empty[0]} has nothing in the column {column}; complete the line, or remove it"
        )
    return list(values.values())


def _refuse_none(lines: Sequence[int], labels: Sequence[str], *, column: str | None, file: str) -> None:
    """Refuses negative numbers among numbers, which say that an image has no label."""
    found = [number_of(label) for label in labels]
    none = [line for line, number in zip(lines, found, strict=True) if number is not None and number < 0]
    if none and None not in found:
        raise DataError(
            f"columns.label: {file}: {len(none)} of the {len(labels)} images have a negative number in the column "
            f"{column}, which stands for no label, first that of line {none[0]}; leave them out, or call that class "
            f"otherwise"
        )


def _refuse_missing(lines: Sequence[int], files: Sequence[str], *, file: str, place: Path) -> None:
    missing = [(line, path) for line, path in zip(lines, files, strict=True) if not os.path.isfile(path)]
    if missing:
        line, path = missing[0]
        raise DataError(
            f"file: {len(missing)} of the {len(files)} images of {file} are not there, first that of line {line}, "
            f"{path}; paths are relative to {place}, or to dataset.root=DIR"
        )


def _refuse_twice(lines: Sequence[int], files: Sequence[str], *, file: str) -> None:
    before: dict[str, int] = {}
    for line, path in zip(lines, files, strict=True):
        if (first := before.setdefault(os.path.normpath(path), line)) != line:
            raise DataError(
                f"file: {file}, lines {first} and {line} name one image, {path}; remove one of them: an image has one "
                f"class, and is for training or for the test"
            )


def _part_names(
    lines: Sequence[int],
    values: Sequence[str],
    splits: Mapping[str, str | None] | None,
    *,
    column: str | None,
    file: str,
) -> dict[str, str]:
    names = part_names(dict.fromkeys(values), splits)
    odd = [(line, value) for line, value in zip(lines, values, strict=False) if value not in names.values()]
    if odd:
        line, value = odd[0]
        raise DataError(
            f"columns.split: {file}, line {line} has {value!r} in the column {column}, which is neither train, "
            f"validation nor test; say what it is: dataset.splits.test={value}"
        )
    return names
