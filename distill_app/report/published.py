"""What is published for a benchmark: top-1 of every pair of networks and method, each with source and recipe."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).with_name("figures")
LABELS = "ce"  # the method that learns from labels alone


@dataclass(frozen=True)
class Source:
    """A table that somebody published.

    Attributes:
        where: Repository with commit, or paper.
        table: Which table there.
        recipe: Key of how its networks were trained.
        epoch: Which epoch is reported: last, best, or not stated.
        runs: How many runs a value is the mean of, where that is said.
        note: What else to know.
    """

    where: str
    table: str
    recipe: str
    epoch: str
    runs: str = ""
    note: str = ""


@dataclass(frozen=True)
class Value:
    """A published top-1 in percent, with the keys of the sources that have it."""

    top1: float
    sources: tuple[str, ...]
    std: float | None = None

    def __str__(self) -> str:
        return f"{self.top1:.2f} %" + ("" if self.std is None else f" ({self.std:.2f})")


@dataclass(frozen=True)
class Row:
    """What is published of one method, or of a network alone, for one pair: several values where sources differ."""

    label: str
    values: tuple[Value, ...]
    method: str | None = None  # of this program, where there is one

    @property
    def text(self) -> str:
        """The values, without their sources: `76.23 % / 76.24 %`."""
        return " / ".join(map(str, self.values))


@dataclass(frozen=True)
class Pair:
    """A teacher and a student, by the names of their configs."""

    name: str
    teacher: str
    student: str
    core: bool  # of those that most papers report
    teacher_row: Row
    student_row: Row
    rows: tuple[Row, ...]

    def of(self, method: str) -> list[Row]:
        """The rows of a method of this program; of `ce` the student alone."""
        return [self.student_row] if method == LABELS else [row for row in self.rows if row.method == method]


@dataclass(frozen=True)
class Benchmark:
    """All that is published of one benchmark.

    Attributes:
        name: As papers call it.
        recipes: Key -> how networks were trained.
        exceptions: Label of a row -> its recipe, where that is not the one of its table.
        sources: Key -> where values come from.
        pairs: Name of the config -> pair.
    """

    name: str
    recipes: dict[str, str]
    exceptions: dict[str, str]
    sources: dict[str, Source]
    pairs: dict[str, Pair]

    def pair_of(self, teacher: Any, student: Any) -> Pair | None:
        """The pair of two networks, by the names of their configs."""
        return next((pair for pair in self.pairs.values() if (pair.teacher, pair.student) == (teacher, student)), None)

    def recipe_of(self, row: Row, source: str) -> str:
        """The key of the recipe of a value."""
        return self.exceptions.get(row.label, self.sources[source].recipe)


def benchmarks() -> list[str]:
    """The benchmarks of which figures are known."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def published(name: str) -> Benchmark:
    """The figures of a benchmark.

    Args:
        name: One of `benchmarks()`.
    """
    content = yaml.load((FOLDER / f"{name}.yaml").read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    methods = {label: method for method, labels in content["methods"].items() for label in labels}
    return Benchmark(
        content["name"],
        content["recipes"],
        content["exceptions"],
        {key: Source(**source) for key, source in content["sources"].items()},
        {key: _pair(key, pair, methods) for key, pair in content["pairs"].items()},
    )


def _pair(name: str, content: Mapping[str, Any], methods: Mapping[str, str]) -> Pair:
    return Pair(
        name,
        content["networks"]["teacher"],
        content["networks"]["student"],
        content["core"],
        Row("teacher", _values(content.get("teacher", []))),
        Row("student alone", _values(content.get("student", [])), LABELS),
        tuple(Row(label, _values(cells), methods.get(label)) for label, cells in content["methods"].items()),
    )


def _values(cells: list[Mapping[str, Any]]) -> tuple[Value, ...]:
    return tuple(Value(cell["top1"], tuple(cell["from"]), cell.get("std")) for cell in cells)


def pair_in(run: Mapping[str, Any]) -> tuple[Benchmark, Pair] | None:
    """The benchmark that a run belongs to, with its pair; None if it belongs to none, or has other networks.

    Args:
        run: `benchmark`, the name of one, `teacher` and `student`, as `distill_app.runs.collect` tells them.
    """
    if run.get("benchmark") not in benchmarks():
        return None
    found = published(str(run["benchmark"]))
    pair = found.pair_of(run.get("teacher"), run.get("student"))
    return None if pair is None else (found, pair)


def outline(config: Mapping[str, Any]) -> Iterator[str]:
    """What is published for a run, for the outline that `dry_run` prints; nothing where it is of no benchmark.

    Args:
        config: The resolved config.
    """
    name = config["benchmark"]["name"]
    if name is None:
        return
    run = {"benchmark": name, **{key: config[key]["name"] for key in ("teacher", "student")}}
    networks, method = f"{run['teacher']} to {run['student']}", config["method"]["name"]
    found = pair_in(run)
    yield f"\npublished, {name}, {networks}:"
    if found is None:
        yield "  nothing; `distill published` lists the pairs"
        return
    known, pair = found
    rows = pair.of(method)
    for row in [pair.teacher_row, *([] if method == LABELS else [pair.student_row]), *rows]:
        yield from (f"  {line}" for line in lines_of(row, known))
    if not rows:
        yield f"  {method}: nothing for this pair"
    yield f"  sources and recipes: distill published {pair.name}{f' {method}' if rows else ''}"


def lines_of(row: Row, known: Benchmark) -> Iterator[str]:
    """A row in words: a line for each value, with its sources and the epochs that they report."""
    for value in row.values:
        epochs = dict.fromkeys(known.sources[source].epoch for source in value.sources)
        told = ", ".join(epoch for epoch in epochs if epoch != "not stated")
        yield f"{row.label}: {value}, from {', '.join(value.sources)}; epoch: {told or 'not stated'}"
