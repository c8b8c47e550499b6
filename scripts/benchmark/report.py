"""What was measured against what was to be reached, as a table of docs/performance.md."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .timing import Spread, ratio, spread

BEGIN, END = "<!-- made by: make bench -->", "<!-- end -->"
# Of the table of methods, which may be measured on another machine than the rest.
OF_METHODS = ("<!-- made by: python -m scripts.benchmark --only methods -->", "<!-- end of methods -->")
NO_METHODS = "Not measured yet."
EMPTY_PAGE = f"# Performance\n\n{BEGIN}\n\n{END}\n\n{OF_METHODS[0]}\n\n{NO_METHODS}\n\n{OF_METHODS[1]}\n"
HEADER = (
    "| goal | workload | against torchdistill: goal | measured | against the limit: goal | measured | reached |\n"
    "|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Cell:
    """A figure and its bound: at least it (">=") or at most it ("<=").

    Args:
        figure: `a / b`, a ratio of two contenders round by round, or the name of a single value.
        sense: Of the bound.
        bound: None: there is no goal, the figure is for information.
        label: What the figure is, where the column's title does not say it.
        unit: Behind the figure.
        digits: Behind the point.
    """

    figure: str
    sense: str = ">="
    bound: float | None = None
    label: str = ""
    unit: str = ""
    digits: int = 2

    def goal(self) -> str:
        """The bound as text."""
        text = "" if self.bound is None else f"{self.sense} {self.bound:,.{self.digits}f}{self.unit}"
        return " ".join(part for part in (self.label + ":" if self.label and text else self.label, text) if part)

    def measured(self, found: Mapping[str, Any]) -> Spread | None:
        """The figure; None if it was not measured."""
        times, (first, _, second) = found["times"], self.figure.partition(" / ")
        if first in times and second in times:
            return ratio(times[first], times[second])
        if first in found["values"]:
            value = found["values"][first] / found["values"].get(second, 1.0)
            return Spread(value, value, value)
        return None

    def text(self, found: Mapping[str, Any]) -> str:
        """The figure as text."""
        measured = self.measured(found)
        if measured is None:
            return found["missing"].get("torchdistill", "not measured")
        middle, low, high = (f"{value:,.{self.digits}f}" for value in measured)
        return f"{middle}{self.unit}" + (f" ({low}-{high})" if low != high else "")

    def verdict(self, found: Mapping[str, Any]) -> str | None:
        """yes, no, or no within the spread; None without a goal."""
        if self.bound is None:
            return None
        measured = self.measured(found)
        if measured is None:
            return "not measured"
        # At the digits that are shown, so that 1.03 is not above 1.03.
        reached = [self._holds(round(value, self.digits)) for value in measured]
        if reached[0]:
            return "yes"
        return "no, within the spread" if any(reached) else "no"

    def _holds(self, value: float) -> bool:
        assert self.bound is not None
        return value >= self.bound if self.sense == ">=" else value <= self.bound


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    goal: str
    text: str
    workload: str
    rival: Cell | None = None
    limit: Cell | None = None

    def line(self, found: Mapping[str, Any]) -> str:
        """As Markdown."""
        cells = [self.goal, self.text.format(**found["size"])]
        for cell in (self.rival, self.limit):
            cells += [cell.goal(), cell.text(found)] if cell else ["", ""]
        verdicts = {cell.verdict(found) for cell in (self.rival, self.limit) if cell} - {None}
        order = ("no", "no, within the spread", "not measured", "yes")
        return "| " + " | ".join([*cells, next((word for word in order if word in verdicts), "")]) + " |"


NOT_MEASURED = {"times": {}, "values": {}, "missing": {"torchdistill": "not measured"}}
ROWS = (
    Row("1", "KD step, {image_size} px, batch {batch}, fp32, as it comes", "kd",
        Cell("torchdistill / ours", ">=", 1.00), Cell("ours / limit", "<=", 1.03)),
    Row("1", "the same, maps and batch norms as torchdistill has them", "kd",
        Cell("torchdistill / ours_plain", ">=", 1.00), Cell("ours_plain / limit_plain", "<=", 1.03)),
    Row("2", "hint step, {image_size} px, batch {batch}, full networks, nobody lists modules", "hint",
        Cell("torchdistill / ours_plain", ">=", 1.35), Cell("ours_plain / limit_plain", "<=", 1.03)),
    Row("2", "the same with channels_last and folded batch norms, as it comes", "hint",
        Cell("torchdistill / ours", ">=", 1.80), Cell("ours / limit", "<=", 1.03)),
    Row("3", "hint step, against networks pruned by hand", "hint",
        Cell("torchdistill_pruned / ours_plain", ">=", 1.00), Cell("ours_plain / limit_plain", "<=", 1.03)),
    Row("4", "KD step, bf16", "kd",
        Cell("torchdistill / ours_bf16", ">=", 2.20), Cell("ours_bf16 / limit_bf16", "<=", 1.05)),
    Row("4", "hint step, bf16", "hint",
        Cell("torchdistill / ours_bf16", ">=", 4.00), Cell("ours_bf16 / limit_bf16", "<=", 1.05)),
    Row("5", "cached epoch, {image_size} px, batch {batch}", "cache",
        Cell("ours_uncached / ours_cached", ">=", 1.55, "own uncached epoch"),
        Cell("ours_cached / limit_alone", "<=", 1.03, "student alone")),
    Row("", "the same, other comparisons", "cache",
        Cell("torchdistill_cached / ours_cached", label="its cached epoch"),
        Cell("ours_cached / ours_alone", label="own `method=ce`")),
    Row("", "torchdistill's cached epoch", "cache",
        Cell("torchdistill_uncached / torchdistill_cached", label="its uncached epoch")),
    Row("6", "cache bytes a sample, {classes} classes", "store",
        Cell("torchdistill_bytes / ours_bytes", ">=", 4.88), Cell("ours_bytes", "<=", 2010, unit=" B", digits=0)),
    Row("7", "cache rows written", "store",
        Cell("torchdistill_write / ours_write", ">=", 25, digits=1),
        Cell("ours_write / raw_write", "<=", 1.30, "raw memmap")),
    Row("7", "cache rows read", "store",
        Cell("torchdistill_read / ours_read", ">=", 100, digits=1),
        Cell("ours_read / raw_read", "<=", 1.30, "raw memmap")),
    Row("8", "CRD step, N {samples}, K {negatives}, {image_size} px, batch {batch}", "crd",
        Cell("torchdistill / ours", ">=", 1.60), Cell("ours / limit", "<=", 1.05)),
    Row("", "the same, against gathering every negative", "crd", None, Cell("gather / ours", label="gathering limit")),
    Row("9", "CRD set-up, N {samples}", "crd_setup", None, Cell("seconds", "<=", 2.0, unit=" s")),
    Row("9", "the same, memory beyond the banks", "crd_setup", None,
        Cell("extra_mb", "<=", 100, unit=" MB", digits=0)),
    Row("10", "fixed cost: KD step, {teacher} to {student}, {image_size} px, batch {batch}, as it comes", "fixed",
        Cell("torchdistill / ours", ">=", 1.03), Cell("ours / limit", "<=", 1.05)),
    Row("10", "the same, maps and batch norms as torchdistill has them", "fixed",
        Cell("torchdistill / ours_plain", ">=", 1.03), Cell("ours_plain / limit_plain", "<=", 1.05)),
    Row("", "the same as it comes, {teacher} to {student}", "fixed_tiniest",
        Cell("torchdistill / ours"), Cell("ours / limit")),
    Row("", "input: {image_size} px, batch {batch}, crop and flip", "data",
        Cell("pil / ours", label="Pillow, v1 transforms"), Cell("ours_plain / ours", label="own, one by one")),
    Row("", "a checkpoint, of 20 steps of {student}, {image_size} px, batch {batch}; on another machine", "saving",
        None, Cell("saving / ours", "<=", 0.01, "the 20 steps", digits=4)),
    Row("12", "KD steps, {teacher} to {student}, {image_size} px, batch {batch} in all: CPU time of one process and "
        "of the slower of two; on another machine", "ranks", None, Cell("one / two", ">=", 1.80, "one process")),
    Row("14", "a study of four methods, its teacher and baseline once, answers from the cache; on another machine",
        "study", None, Cell("study / singles", "<=", 0.50, "its runs one by one")),
    Row("", "GHND step of a detector, {teacher}, {image_size} px, batch {batch}; on another machine", "split",
        Cell("whole / ours", ">=", 3.00, "own step of the whole student"),
        Cell("ours / limit", "<=", 1.05, "two bodies cut off by hand")),
    Row("", "the same, {teacher}, {image_size} px, batch {batch}; on another machine", "split_tiny",
        Cell("whole / ours", label="own step of the whole student"),
        Cell("ours / limit", label="two bodies cut off by hand")),
    Row("11", "filling the cache: its first epoch", "cache",
        Cell("ours_filling / ours_uncached", "<=", 1.02, "own uncached epoch")),
)  # fmt: skip


# Seconds of an epoch on ImageNet, ResNet-18 as the student, three RTX 2080 Ti: Tables 2 and 3 of the paper, by teacher.
PAPER_SECONDS = {
    "resnet34": {"no cache": 801, "first": 859, "second": 651, "original": 934, "minimal": 786},
    "resnet50": {"no cache": 1030, "first": 1079, "second": 649, "original": 1175, "minimal": 929},
    "resnet101": {"no cache": 1348, "first": 1402, "second": 656, "original": 1468, "minimal": 936},
    "resnet152": {"no cache": 1944, "first": 1966, "second": 917, "original": 1779, "minimal": 1022},
}


@dataclass(frozen=True)
class Comparison:
    """What a table of the torchdistill paper compares, and the same with its code and with ours.

    Args:
        text: Number of the table, and what is compared.
        there: The two cells of the paper, of which the first is divided by the second.
        rival: The figure with torchdistill; None: it is not measured here.
        own: The figure with ours.
        workload: That has both; over other teachers than its own it is called `workload_teacher`.
    """

    text: str
    there: tuple[str, str]
    rival: Cell | None
    own: Cell
    workload: str

    def line(self, teacher: str, found: Mapping[str, Any] | None) -> str:
        """As Markdown.

        Args:
            teacher: Of the paper.
            found: The results over it; None if it was not measured here.
        """
        above, below = (PAPER_SECONDS[teacher][cell] for cell in self.there)
        rival = self.rival.text(found) if self.rival and found else "-"
        own = self.own.text(found) if found else "-"
        return f"| {self.text} | {teacher} | {above:,} s / {below:,} s = {above / below:.2f} | {rival} | {own} |"


PAPER = (
    Comparison("2: epochs with stored teacher outputs, times as fast as without", ("no cache", "second"),
        Cell("torchdistill_uncached / torchdistill_cached"), Cell("ours_uncached / ours_cached"), "cache"),
    Comparison("2: the epoch that stores them, times as long as without", ("first", "no cache"),
        None, Cell("ours_filling / ours_uncached"), "cache"),
    Comparison("3: hint stage on networks cut down, by hand in torchdistill and by itself in ours, "
        "times as fast as torchdistill on full networks", ("original", "minimal"),
        Cell("torchdistill / torchdistill_pruned"), Cell("torchdistill / ours_plain"), "hint"),
)  # fmt: skip


def paper_table(workloads: Mapping[str, Mapping[str, Any]]) -> str:
    """The comparisons of the paper for all its teachers, beside those that there are results of."""
    lines = ["| table of the paper | teacher | there | torchdistill here | ours here |", "|---|---|---|---|---|"]
    for row in PAPER:
        for teacher in PAPER_SECONDS:
            of = [workloads[name] for name in (row.workload, f"{row.workload}_{teacher}") if name in workloads]
            lines.append(row.line(teacher, next((found for found in of if found["size"]["teacher"] == teacher), None)))
    return "\n".join(lines)


def table(workloads: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows of all workloads that there are results of; the others say so."""
    unknown = {name: "?" for row in ROWS for name in re.findall(r"{(\w+)}", row.text)}
    nothing = {**NOT_MEASURED, "size": unknown}
    return "\n".join([HEADER, *(row.line(workloads.get(row.workload, nothing)) for row in ROWS)])


def seconds_table(workloads: Mapping[str, Mapping[str, Any]]) -> str:
    """The median CPU time of every contender."""
    lines = ["| workload | rounds | median CPU time |", "|---|---|---|"]
    for name, found in workloads.items():
        medians = {contender: spread(times).median for contender, times in found["times"].items()}
        texts = [f"{contender} {_duration(seconds)}" for contender, seconds in sorted(medians.items())]
        lines.append(f"| {name} | {found['rounds']} | {', '.join(texts)} |")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def placed(page: str, text: str, *, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """The page with a generated part replaced.

    Args:
        page: The page.
        text: What stands there from now on.
        marks: The lines before and behind it.

    Raises:
        ValueError: The page has no place for it.
    """
    before, begin, rest = page.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"the page needs the lines {marks[0]} and {marks[1]}, between which the tables go")
    return f"{before}{marks[0]}\n\n{text}\n\n{marks[1]}{after}"
