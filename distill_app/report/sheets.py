"""The tables of the page: cells with what they show and what they are sorted by."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill_app.report.comparison import Against, Compared
from distill_app.report.results import number, student_row
from distill_app.report.statistics import p_text
from distill_app.report.tables import (
    figure_text,
    leading_pair,
    metrics_in,
    published_text,
    settings_of,
    shortened,
    what_of,
)
from distill_app.runs.collect import BASE
from distill_app.runs.metrics import Metric, joined
from distill_app.runs.naming import short_names
from distill_app.runs.report import head_text

_SIGNIFICANT = 0.05
# Of networks with a cut: column, what it tells when pointed at, and where a row of results has it.
_CUT = (
    ("bytes over the cut", "of one test image, in float32", "float32"),
    ("in 8 bits", "with scale and lowest value", "eight_bit"),
    ("head FLOPs", "before the cut, of one test image", "head_flops"),
    ("tail FLOPs", "behind the cut, of one test image", "tail_flops"),
)
MINUS, PLUS_MINUS = "\u2212", "\u00b1"


@dataclass(frozen=True)
class Cell:
    """A cell: its text, the number it is sorted by, what it tells when pointed at, its class, and a line below."""

    text: str
    value: float | None = None
    title: str = ""
    kind: str = ""
    note: str = ""


@dataclass(frozen=True)
class Column:
    """A column: what stands above it, its key in full, and whether it can be chosen from."""

    head: str
    title: str = ""
    numeric: bool = False
    choices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sheet:
    """A table of the page."""

    columns: list[Column]
    rows: list[list[Cell]]


def results_sheet(found: Sequence[Compared]) -> Sheet:
    """What came out: settings, figures, and differences to the student alone and to tuned KD."""
    metrics = metrics_in(found)
    rows = [each.result.base | each.result.settings for each in found]
    keys = [*_differing(rows, BASE), *settings_of(found)]
    columns = [Column("result"), *_key_columns(keys, rows), Column("n", "independent runs (seeds)", numeric=True)]
    columns += [Column(_head(metric.name), numeric=True) for metric in metrics]
    printed = any(each.result.published for each in found)
    columns += [Column("published", "top-1 in papers, several values where sources differ", numeric=True)] * printed
    compared = [name for name in ("alone", "kd") if any(getattr(each, name) for each in found)]
    for name in compared:
        reference = {"alone": "student alone", "kd": "tuned KD"}[name]
        columns.append(Column(f"vs {reference}", "mean difference, pairs by seed; 95 % interval", numeric=True))
        columns.append(Column("p", f"two-sided paired t-test against {reference}", numeric=True))
    sheet = []
    for each, row in zip(found, rows, strict=True):
        cells = [Cell(each.result.name, kind=f"role {each.result.role}"), *(_text(row.get(key)) for key in keys)]
        cells.append(Cell(str(each.result.n), each.result.n, title=_runs_text(len(each.result.members))))
        cells += [_figure(each, metric) for metric in metrics]
        cells += [_published(each)] * printed
        for name in compared:
            cells += _difference(each, getattr(each, name))
        sheet.append(cells)
    return Sheet(columns, sheet)


def costs_sheet(found: Sequence[Compared], runs: Sequence[Mapping[str, Any]]) -> Sheet:
    """What it took: parameters, time of training, and that against the student alone."""
    rows = [each.result.base | each.result.settings for each in found]
    keys = [*_differing(rows, BASE), *settings_of(found)]
    heads = [
        ("parameters", ""),
        ("training", "mean over runs, of all stages of the method"),
        ("cost", "student alone = 1"),
    ]
    columns = [Column("result"), *_key_columns(keys, rows), *(Column(*head, numeric=True) for head in heads)]
    cut = any(each.result.cut for each in found)
    columns += [Column(head, title, numeric=True) for head, title, _ in _CUT if cut]
    columns.append(Column("on"))
    devices = {run["path"]: run.get("device") for run in runs}
    sheet = []
    for each, row in zip(found, rows, strict=True):
        parameters = number(each.result.parameters)
        cells = [Cell(each.result.name, kind=f"role {each.result.role}"), *(_text(row.get(key)) for key in keys)]
        cells.append(Cell("-") if parameters is None else Cell(f"{parameters:,.0f}", parameters))
        cells.append(Cell("-") if each.seconds is None else Cell(duration(each.seconds), each.seconds))
        cells.append(Cell("-") if each.cost is None else Cell(f"{each.cost:.2f}\u00d7", each.cost))
        cells += [_of_cut(each.result.cut.get(key)) for _, _, key in _CUT if cut]
        on = dict.fromkeys(str(devices[run["path"]]) for run, _ in each.result.members if devices.get(run["path"]))
        cells.append(_text(", ".join(on) or None))
        sheet.append(cells)
    return Sheet(columns, sheet)


def _of_cut(value: Any) -> Cell:
    known = number(value)
    return Cell("-") if known is None else Cell(f"{known:,.0f}", known)


def runs_sheet(runs: Sequence[Mapping[str, Any]], found: Sequence[Compared]) -> Sheet:
    """Every run: what it is, what became of it, and what its student reached."""
    rows = [{**{key: run.get(key) for key in BASE}, **(run.get("varied") or {})} for run in runs]
    keys = _differing(rows, [*BASE, *settings_of(found)])
    metrics = [metric for metric in joined(run["metrics"] for run in runs) if metric.table]
    columns = [Column("run"), *_key_columns(keys, rows), Column("seed", numeric=True)]
    columns += [Column("state", choices=_choices(run["state"] for run in runs))]
    columns += [Column(_head(metric.name), "of the student, on the test set", numeric=True) for metric in metrics]
    columns += [Column("training", "all stages", numeric=True), Column("commit"), Column("host")]
    sheet = []
    for run, row in zip(runs, rows, strict=True):
        last = student_row(run)
        seconds = [value for stage in run["stages"].values() if (value := number(stage.get("seconds"))) is not None]
        cells = [Cell(run["path"]), *(_text(row.get(key)) for key in keys), _text(run.get("seed"))]
        cells.append(Cell(run["state"], kind=f"state {str(run['state']).split()[0]}", title=str(run["reason"] or "")))
        cells += [_plain_figure(metric, last.get(metric.name)) for metric in metrics]
        cells.append(Cell(duration(sum(seconds)), sum(seconds)) if seconds else Cell("-"))
        cells += [_text(run.get("commit")), _text(run.get("host"))]
        sheet.append(cells)
    return Sheet(columns, sheet)


def failed_sheet(runs: Sequence[Mapping[str, Any]]) -> Sheet:
    """The runs that did not finish: what they are, why, and what to type."""
    columns = [Column("run"), Column("what"), Column("state"), Column("reason"), Column("to go on")]
    rows = []
    for run in runs:
        if run["state"] == "done":
            continue
        fresh = run["state"] == "refused" or not run["command"]
        remedy = run["point_command"] if fresh else f"distill resume {run['folder']}"
        state = Cell(run["state"], kind=f"state {str(run['state']).split()[0]}")
        reason = str(run["reason"] or "-")
        told = Cell(shortened(reason), title=reason if shortened(reason) != reason else "")
        texts = [_text(what_of(run, runs) or None), state, told, Cell(remedy, kind="code")]
        rows.append([Cell(run["path"]), *texts])
    return Sheet(columns, rows)


def commands_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """What was typed -> the runs that came of it; those of which nobody knows under an empty text."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        found.setdefault(str(run.get("command") or ""), []).append(run)
    return found


def facts_of(runs: Sequence[Mapping[str, Any]], found: Sequence[Compared]) -> list[tuple[str, str]]:
    """What all runs have in common, or have of several."""
    names = {"dataset": "data", "teacher": "teacher", "student": "student", "method": "method"}
    names |= {"device": "device", "commit": "code", "torch": "torch"}
    facts = []
    for key, name in names.items():
        values = list(dict.fromkeys(str(run[key]) for run in runs if run.get(key) is not None))
        if values:
            more = f" and {len(values) - 4} more" if len(values) > 4 else ""
            facts.append((name, ", ".join(values[:4]) + more))
    if swept := short_names(settings_of(found)):
        facts.append(("swept", ", ".join(swept.values())))
    return facts


def _differing(rows: Sequence[Mapping[str, Any]], keys: Iterable[str]) -> list[str]:
    return [key for key in keys if len({str(row.get(key)) for row in rows if row.get(key) is not None}) > 1]


def _key_columns(keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    names = short_names(keys)
    columns = []
    for key in keys:
        values = [row.get(key) for row in rows if row.get(key) is not None]
        numeric = all(_value(value) is not None for value in values)
        columns.append(Column(head_text(names[key]), key, numeric=numeric, choices=_choices(values)))
    return columns


def _choices(values: Iterable[Any]) -> list[str]:
    found = sorted({str(value) for value in values}, key=lambda text: (_value(text) is None, _value(text) or 0.0, text))
    return found if 1 < len(found) <= 40 else []


def _value(value: Any) -> float | None:
    """The number that a text is."""
    try:
        return number(float(value))
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> Cell:
    return Cell("-") if value is None else Cell(str(value), _value(value))


def _head(name: str) -> str:
    return name.replace("_", " ")


def _signed(text: str) -> str:
    return text.replace("-", MINUS)


def _figure(each: Compared, metric: Metric) -> Cell:
    figure = each.result.figures.get(metric.name)
    if figure is None or figure.spread is None:
        return Cell("-")
    found, text = figure.spread, figure_text(figure).replace("+-", PLUS_MINUS)
    seeds = ", ".join(f"{seed}: {metric.text(value)}" for seed, value in figure.by_seed.items())
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f"95 % interval of the mean: {metric.text(found.low)} to {metric.text(found.high)}; "
    return Cell(_signed(text), metric.scaled(found.mean), title=f"{interval}by seed: {seeds}")


def _published(each: Compared) -> Cell:
    rows = each.result.published
    values = [value for row in rows for value in row.values]
    if not values:
        return Cell("-")
    sources = "; ".join(f"{row.label} {value}: {', '.join(value.sources)}" for row in rows for value in row.values)
    return Cell(published_text(rows) or "-", values[0].top1, title=sources)


def _plain_figure(metric: Metric, value: Any) -> Cell:
    known = number(value)
    return Cell("-") if known is None else Cell(metric.text(known), metric.scaled(known))


def _difference(each: Compared, against: Against | None) -> list[Cell]:
    leading = each.result.leading
    pair = leading_pair(leading, against)
    if pair is None or leading is None or against is None:
        return [Cell("-"), Cell("-")]
    metric = leading.metric
    better = metric.better(pair.mean, 0.0)
    kind = "" if pair.p is None or pair.p >= _SIGNIFICANT else "better" if better else "worse"
    title, note = f"{pair.n} pairs with: {against.reference.title}", ""
    if pair.low is not None and pair.high is not None:
        note = _signed(f"{metric.difference(pair.low)} to {metric.difference(pair.high)}")
    text = _signed(metric.difference(pair.mean))
    shown = Cell(text, metric.scaled(pair.mean), title=title, kind=kind, note=note)
    return [shown, Cell(p_text(pair.p), pair.p)]


def _runs_text(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def duration(seconds: float) -> str:
    """A time as one would say it."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
