"""Results as tables: for a terminal, Markdown, CSV and LaTeX. All have the same columns."""

import csv
import io
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from distill_app.report.comparison import Against, Compared
from distill_app.report.published import Row
from distill_app.report.results import Figure
from distill_app.report.statistics import Paired, p_text
from distill_app.runs.collect import BASE, differing
from distill_app.runs.metrics import Metric, joined
from distill_app.runs.naming import short_names
from distill_app.runs.report import cell_text, head_text, summary_table
from distill_app.words import some

_REFERENCES = {"vs alone": "the student alone", "vs kd": "tuned KD"}


def results_table(found: Sequence[Compared], *, markdown: bool = False) -> str:
    """The results as an aligned table: mean +- standard deviation, and differences with the p-values of paired tests.

    What all results share stands below it, and so do keys that are cut short above columns.
    """
    columns, rows = columns_of(found), [row_of(each) for each in found]
    heads = short_names(columns)
    if markdown:
        heads = {key: markdown_text(head) for key, head in heads.items()}
        rows = [{key: markdown_text(v) if isinstance(v, str) else v for key, v in row.items()} for row in rows]
    table = summary_table(rows, columns, markdown=markdown, heads=heads)
    return "\n".join([table, *([""] if markdown else []), *_notes(found, columns, markdown=markdown)])


_MARKS = re.compile(r"[\\`*<>\[\]]|(?<![^\W_])_|_(?![^\W_])")  # an underscore within a word is none


def markdown_text(text: str) -> str:
    """A text that Markdown shows as it is: names come from files of others."""
    return _MARKS.sub(r"\\\g<0>", text)


def columns_of(found: Sequence[Compared]) -> list[str]:
    """The columns: what results differ in, and what there is of figures."""
    rows = [row_of(each) for each in found]
    base = [key for key in BASE if len({row.get(key) for row in rows}) > 1]
    figures = [metric.name for metric in metrics_in(found)]
    numbers = ["n", "runs", *figures, "published", *_REFERENCES, "seconds", "cost"]
    shown = [column for column in numbers if any(row.get(column) is not None for row in rows)]
    if all(row.get("n") == row.get("runs") for row in rows):
        shown.remove("runs") if "runs" in shown else None
    return [*base, *settings_of(found), "result", *shown]


def row_of(each: Compared) -> dict[str, Any]:
    """A result as text by column."""
    result = each.result
    figures = {name: figure_text(figure) for name, figure in result.figures.items() if figure.spread is not None}
    return {
        **result.base,
        **result.settings,
        "result": result.name,
        "n": result.n,
        "runs": len(result.members),
        **figures,
        "published": published_text(each.result.published),
        "vs alone": against_text(each.alone, result.leading),
        "vs kd": against_text(each.kd, result.leading),
        "seconds": each.seconds,
        "cost": None if each.cost is None else f"{each.cost:.2f}x",
    }


def metrics_in(found: Iterable[Compared]) -> list[Metric]:
    """The metrics of which results have figures, each once."""
    figures = (each.result.figures.values() for each in found)
    return joined([figure.metric for figure in of_one if figure.spread is not None] for of_one in figures)


def settings_of(found: Iterable[Compared]) -> list[str]:
    """The keys in which runs differ."""
    return list(dict.fromkeys(key for each in found for key in each.result.settings))


def figure_text(figure: Figure) -> str:
    """Mean, and standard deviation where there are several runs."""
    assert figure.spread is not None
    return figure.metric.text(figure.spread.mean, deviation=figure.spread.std)


def published_text(rows: Sequence[Row]) -> str | None:
    """The published values, those of rows of several names with their names; each value once, whoever has it."""
    texts = [row.text if len(rows) == 1 else f"{row.label} {row.text}" for row in rows]
    return "; ".join(texts) or None


def against_text(against: Against | None, leading: Figure | None) -> str | None:
    """The difference of the leading figure with its p-value: `+1.67 (p 0.012)`."""
    pair = None if against is None or leading is None else against.by_metric.get(leading.metric.name)
    if pair is None or leading is None:
        return None
    text = leading.metric.difference(pair.mean)
    return f"{text} (p {p_text(pair.p)})" if pair.p is not None else text


def _notes(found: Sequence[Compared], columns: Sequence[str], *, markdown: bool) -> list[str]:
    """What all results share, and what the columns mean."""
    rows = [each.result.base for each in found]
    shared = [f"{key} {cell_text(key, rows[0][key])}" for key in BASE if key not in columns and rows and rows[0][key]]
    lines = [f"all: {', '.join(shared)}"] if shared else []
    names = short_names(columns).items()
    lines += [cell_text("", f"{short}: {key}") for key, short in names if short != key]
    for column, name in _REFERENCES.items():
        if column in columns:
            lines.append(f"{column}: difference to {name} by seed, with p of the two-sided paired t-test")
    if "published" in columns:
        told = "top-1 in papers, each after its own recipe, whatever ours was; several where sources differ"
        lines.append(f"published: {told}: distill published PAIR")
    if "vs kd" in columns:
        lines.append(f"tuned KD: {'; '.join(tuned_texts(found))}")
    return [f"- {markdown_text(line)}" for line in lines] if markdown else lines


def tuned_texts(found: Iterable[Compared]) -> list[str]:
    """Which KD others are held against."""
    references = {id(each.kd.reference): each.kd.reference for each in found if each.kd is not None}
    several = len(references) > 1
    return [
        f"{cell_text('', reference.title)}" + (f" ({reference.base['student']})" if several else "")
        for reference in references.values()
    ]


def results_csv(found: Sequence[Compared]) -> str:
    """The results as CSV, keys in full, shares as fractions; differences are those of the leading metric."""
    columns = [*BASE, *settings_of(found), "result", "n", "runs"]
    for metric in metrics_in(found):
        columns += [metric.name, *(f"{metric.name}_{part}" for part in ("std", "low", "high"))]
    columns += ["published"] if any(each.result.published for each in found) else []
    for reference in ("alone", "kd"):
        columns += [f"minus_{reference}{part}" for part in ("", "_low", "_high", "_p", "_n")]
    columns += ["parameters", "seconds", "cost"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_numbers(each) for each in found)
    return text.getvalue()


def _numbers(each: Compared) -> dict[str, Any]:
    result = each.result
    row: dict[str, Any] = {**result.base, **result.settings, "result": result.name, "n": result.n}
    row |= {"runs": len(result.members), "parameters": result.parameters}
    row |= {"seconds": each.seconds, "cost": each.cost, "published": published_text(result.published)}
    for name, figure in result.figures.items():
        if (found := figure.spread) is not None:
            row |= {name: found.mean, f"{name}_std": found.std, f"{name}_low": found.low, f"{name}_high": found.high}
    for reference, against in (("alone", each.alone), ("kd", each.kd)):
        if (pair := leading_pair(result.leading, against)) is not None:
            parts = {"": pair.mean, "_low": pair.low, "_high": pair.high, "_p": pair.p, "_n": pair.n}
            row |= {f"minus_{reference}{part}": value for part, value in parts.items()}
    return row


def leading_pair(leading: Figure | None, against: Against | None) -> Paired | None:
    """The differences of the leading metric."""
    return None if leading is None or against is None else against.by_metric.get(leading.metric.name)


def results_tex(found: Sequence[Compared]) -> str:
    r"""The results as a table of LaTeX, for `\usepackage{booktabs}`; with what the columns mean as comments."""
    columns = columns_of(found)
    heads, right = short_names(columns), {"n", "runs", "seconds", "cost"}
    lines = [f"% {line}" for line in _notes(found, columns, markdown=False)]
    lines += [r"\begin{tabular}{" + "".join("r" if column in right else "l" for column in columns) + "}", r"\toprule"]
    lines += [" & ".join(_tex(cell_text("", head_text(heads[key]))) for key in columns) + r" \\", r"\midrule"]
    for each in found:
        row = row_of(each)
        lines.append(" & ".join(_tex(cell_text(column, row.get(column))) for column in columns) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


_MINUS = re.compile(r"(?<![\w.)-])-(?=[\d.])")  # before a number, and not in 1e-5 or a name
_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#",
    "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$",
    "|": r"\textbar{}", "[": "{[}",  # not the argument of the line's end before it
}  # fmt: skip


def _tex(text: str) -> str:
    escaped = _MINUS.sub("$-$", "".join(_TEX.get(sign, sign) for sign in text))
    return escaped.replace(" +- ", r" $\pm$ ").replace("(p ", r"($p$ ") if text != "-" else "--"


def status_text(runs: Sequence[Mapping[str, Any]]) -> str:
    """How many runs are in which state; which did not finish, what they are, and why; and other test images."""
    lines = [f"{len(runs)} run{'s' * (len(runs) != 1)}: {states_text(runs)}"]
    for run in runs:
        if run["state"] != "done":
            reason = f": {shortened(cell_text('reason', run['reason']))}" if run["reason"] else ""
            what = f" ({cell_text('what', what_of(run, runs))})" if what_of(run, runs) else ""
            lines.append(f"- {cell_text('path', run['path'])}{what} {cell_text('state', run['state'])}{reason}")
    return "\n".join([*lines, *(f"- warning: {text}" for text in tested_apart(runs))])


def shortened(reason: str) -> str:
    """The beginning of a long reason; all of it stands in the run's status.json."""
    return textwrap.shorten(reason, 300, placeholder=" ...")


def tested_apart(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Of each data set on whose images runs were not tested alike, since files came or went: which these are."""
    tested: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        if run["state"] == "done" and run.get("tested"):
            dataset, images = run["tested"]
            tested.setdefault(dataset, {}).setdefault(images, []).append(run["path"])
    for dataset, groups in tested.items():
        if len(groups) > 1:
            told = "; ".join(some((cell_text("path", path) for path in paths), limit=2) for paths in groups.values())
            yield (
                f"{cell_text('dataset', dataset)} was tested on {len(groups)} different sets of images, "
                f"whose figures do not compare (`split` in data.json): {told}"
            )


def states_text(runs: Sequence[Mapping[str, Any]]) -> str:
    """How many runs are in which state: `57 done, 3 failed`."""
    states = [run["state"] for run in runs]
    return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))


def what_of(run: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    """A run in a few words: the point of its sweep, else what makes it differ from the others."""
    if run.get("point"):
        return " ".join(run["point"])
    differ = [key for key in ("method", "seed") if len({str(each.get(key)) for each in runs}) > 1]
    values = {**{key: run.get(key) for key in differ}, **{key: run["varied"][key] for key in differing(runs)}}
    return " ".join(f"{key}={value}" for key, value in values.items() if value is not None)
