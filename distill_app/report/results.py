"""Results over seeds: runs that differ in nothing but the seed are one result, and a number is known by how many."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill_app.report.published import Row, pair_in
from distill_app.report.statistics import Spread, spread
from distill_app.runs.collect import BASE, differing
from distill_app.runs.metrics import ABOUT, Metric, joined
from distill_app.runs.naming import short_names

TEACHER, ALONE, DISTILLED, OTHER = "teacher", "alone", "distilled", "other"
LABELS = "labels"  # the kind of methods that learn from labels alone
_SHARED = (TEACHER, ALONE)  # what several settings may have in common: a prelude knows nothing of the method
Member = tuple[Mapping[str, Any], Mapping[str, Any]]  # a run, and its row


@dataclass(frozen=True)
class Figure:
    """A metric of a result.

    Attributes:
        metric: What it is and how it is shown.
        by_seed: Seed -> value; of several runs with one seed their mean.
        spread: Over the seeds; None where no run has the figure.
    """

    metric: Metric
    by_seed: dict[str, float]
    spread: Spread | None


@dataclass
class Result:
    """One network of runs that differ in nothing but the seed.

    Attributes:
        base: The entries of `BASE`; None for one on which the result does not depend.
        settings: Key -> value as text, of the keys in which finished runs differ; None as in `base`.
        name: Of the network, as tables have it.
        role: `teacher`, `alone` (the student on labels alone), `distilled` (the student), or `other` (an assistant).
        members: The runs, each with its row.
        figures: Metric name -> figure, of the metrics that have a place in tables, the leading one first.
    """

    base: dict[str, str | None]
    settings: dict[str, str | None]
    name: str
    role: str
    members: list[Member]
    figures: dict[str, Figure] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """How many independent runs there are: seeds, or one for a network that none of them trained."""
        return len({_unit(run, row) for run, row in self.members})

    @property
    def leading(self) -> Figure | None:
        """The figure that decides."""
        return next(iter(self.figures.values()), None)

    @property
    def parameters(self) -> Any:
        """How many parameters the network has."""
        return self.members[-1][1].get("parameters")

    @property
    def cut(self) -> Mapping[str, Any]:
        """What crosses the cut of the network, and what is computed on either side; empty without a cut."""
        found = self.members[-1][1].get("cut")
        return found if isinstance(found, Mapping) else {}

    @property
    def objective(self) -> float | None:
        """The mean of what the last stage reached on the split that judges epochs; None where a run does not say."""
        values = [number(run.get("objective")) for run, _ in self.members]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None

    @property
    def published(self) -> list[Row]:
        """What is published for it, where its runs are of a benchmark; top-1 in percent."""
        run = self.members[0][0]
        found = pair_in(run)
        if found is None:
            return []
        _, pair = found
        alone = {TEACHER: [pair.teacher_row], ALONE: [pair.student_row], OTHER: []}
        rows = alone[self.role] if self.role in alone else pair.of(str(run.get("method")))
        return [row for row in rows if row.values]

    @property
    def title(self) -> str:
        """The result in a line: its method, the settings in which runs differ, the network."""
        return f"{self.setting}: {self.name}" if self.setting else self.name

    @property
    def setting(self) -> str:
        """Its method and the settings in which runs differ; empty where it depends on none."""
        names = short_names(self.settings)
        settings = [f"{names[key]}={value}" for key, value in self.settings.items() if value is not None]
        method = self.base["method"]
        named = method is not None and (
            self.role in (DISTILLED, OTHER) or of_labels(self.members[0][0])
        )  # a prelude's are of no method
        return ", ".join([*([str(method)] if named else []), *settings])


def aggregate(runs: Iterable[Mapping[str, Any]]) -> list[Result]:
    """The results of finished runs, one for each data set, model pair, method, settings that differ, and network.

    A teacher or a student alone that came out the same, figure for figure, whatever a key was set to, is one result
    that does not depend on the key.
    """
    done = [run for run in runs if run["state"] == "done"]
    columns = list(differing(done))
    groups: dict[tuple[str | None, ...], list[Member]] = {}
    for run in done:
        settings = [(run.get("varied") or {}).get(key) for key in columns]
        for row in run["rows"]:
            key = (*(_text(run.get(k)) for k in BASE), *settings, str(row.get("name")))
            groups.setdefault(key, []).append((run, row))
    merged = _merged(groups, width=len(BASE) + len(columns))

    def place(key: tuple[str | None, ...]) -> tuple[Any, ...]:
        # By run, not by result: behind the teacher, results stay in the order of the run (alone, distilled).
        return (*map(_order, key[:-1]), role_of(*merged[key][0]) != TEACHER)

    return [_result(key, merged[key], columns) for key in sorted(merged, key=place)]


def _result(key: Sequence[str | None], members: list[Member], columns: Sequence[str]) -> Result:
    base, settings = dict(zip(BASE, key, strict=False)), dict(zip(columns, key[len(BASE) :], strict=False))
    found = Result(base, settings, str(key[-1]), role_of(*members[0]), members)
    for metric in joined(run["metrics"] for run, _ in members):
        if metric.table:
            found.figures[metric.name] = _figure(metric, members)
    return found


def _figure(metric: Metric, members: Iterable[Member]) -> Figure:
    values: dict[str, list[float]] = {}
    units: dict[str, list[float]] = {}
    for run, row in members:
        value = number(row.get(metric.name))
        if value is not None:
            values.setdefault(_seed(run), []).append(value)
            units.setdefault(_unit(run, row), []).append(value)
    by_seed = {seed: sum(found) / len(found) for seed, found in values.items()}
    return Figure(metric, by_seed, spread([sum(found) / len(found) for found in units.values()]))


def of_labels(run: Mapping[str, Any]) -> bool:
    """Whether its method learns from labels alone; runs of before methods had a kind have `ce` for that."""
    return run.get("kind") == LABELS or (run.get("kind") is None and run.get("method") == "ce")


def role_of(run: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What a network is in the comparison: the teacher, the student on labels alone or as it learnt, or another one."""
    network, name = row.get("network"), row.get("name")
    if "teacher" in (network, name):
        return TEACHER
    if network == "baseline" or name == "student alone" or (of_labels(run) and network == "student"):
        return ALONE
    return DISTILLED if any(str(each).startswith("student") for each in (network, name)) else OTHER


def student_row(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of what a run's method trained: of the student as it learnt, else of the student alone; empty without."""
    by_role: dict[str, Mapping[str, Any]] = {role_of(run, row): row for row in run["rows"]}
    return next((by_role[role] for role in (DISTILLED, ALONE, OTHER) if role in by_role), {})


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _seed(run: Mapping[str, Any]) -> str:
    seed = run.get("seed")
    return str(run["path"]) if seed is None else str(seed)  # of a run that does not say, nothing is known to be shared


def _unit(run: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What counts as one: a seed; but a network that no run trained is the same in all of them."""
    stages = run["stages"].values()
    trained = any("teacher" in str(stage.get("trained")) for stage in stages)
    frozen = role_of(run, row) == TEACHER and bool(stages) and not trained
    return f"untrained: {_figures(row)}" if frozen else _seed(run)


def _merged(groups: dict[tuple[str | None, ...], list[Member]], *, width: int) -> dict[Any, list[Member]]:
    """The groups, those joined that differ in a key on which what they hold does not depend."""
    for position in range(1, width):  # behind the data set
        alike: dict[Any, list[Any]] = {}
        for key, members in groups.items():
            shared = role_of(*members[0]) in _SHARED
            rest = (*key[:position], None, *key[position + 1 :])
            alike.setdefault(rest if shared else key, []).append(key)
        joint: dict[Any, list[Member]] = {}
        for rest, keys in alike.items():
            if len(keys) > 1 and _same([groups[key] for key in keys]):
                joint[rest] = [member for key in keys for member in groups[key]]
            else:
                joint.update({key: groups[key] for key in keys})
        groups = joint
    return groups


def _same(parts: Sequence[Sequence[Member]]) -> bool:
    """Whether the same came out in all parts for each seed, and a seed of the first is in every other one."""
    known: dict[str, Any] = {}
    for part in parts:
        for run, row in part:
            if known.setdefault(_seed(run), _figures(row)) != _figures(row):
                return False
    first = {_seed(run) for run, _ in parts[0]}
    return all(first & {_seed(run) for run, _ in part} for part in parts)


def _figures(row: Mapping[str, Any]) -> str:
    return repr({key: value for key, value in row.items() if key not in ABOUT or key == "parameters"})


def _order(value: str | None) -> tuple[bool, float, str]:
    """Numbers by size, before words."""
    try:
        return (False, float(value or ""), "")
    except ValueError:
        return (value is not None, 0.0, str(value or ""))


def number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None
