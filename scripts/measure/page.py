"""The page of results over methods: the tables of `distill report`, and how the numbers came about."""

import json
import math
import re
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from distill_app.config.plan import AVERAGE
from distill_app.report import picture
from distill_app.report.comparison import Compared, compared
from distill_app.report.results import Result, aggregate
from distill_app.report.tables import row_of
from distill_app.runs.collect import collect
from distill_app.runs.report import summary_table

from .measuring import BOTTLENECK, DATA, SPLIT, Bundled, methods_for

HEAD = """# Results on {dataset}

Every method with the same student, teacher, data and budget, measured by `{command}`: {what} on test images in
percent, mean and standard deviation over {seeds} seeds, differences seed by seed with the p-value of the two-sided
paired t-test, as `distill report` makes them. Each p stands for one comparison; of {count} methods one in twenty would
be below 0.05 by chance.

- Data: `{data}`, {labels} training images for the student, all of them for the teacher.
- Teacher: {teacher}. Student: {student}.{networks}
- Budget: {budget} epochs of training the student, over all stages of a method together.{cached}
- Settings: of every method, the student alone too, {trials} points of its space were tried (Optuna, TPE; the first one
  is the method's file), judged by the last epoch on validation images with {judging}. The space is the rate, the
  strength of all that is not labels, the temperature and the share of the first stages, as far as a method has them
  ([knobs.py](../scripts/measure/knobs.py)); one that has more of them has fewer points for each. All points and the
  chosen ones: [searched.json](searched.json).
- `as published` is what the first point reached on validation images, `chosen` the best of all, with the same
  seeds: how much of a method's place is due to its settings. `best epoch` is the test figure of the epoch that was
  best on validation images, all other figures are those of the last.
- `cost` is the time of training against that of the student alone. Runs shared the machine with others, so it is a
  rough one; what a step costs beside KD, in one interleaved run, stands in [performance.md](performance.md).{missing}

![{what} of all methods]({stem}.png)
"""

CACHED = """ The teacher answers once to each of {views} views of an image, and is read from the cache after that; a
student without a teacher sees a new view in each epoch."""

MISSING = """
- Not measured: {names}."""

LOST = """
- Chosen settings that diverged with a seed of the table, so that there is no mean to show: {names}."""

CUT = """
## A bottleneck inside the teacher's architecture

`hnd` and `ghnd` are for a network that is cut in two: the head, up to a bottleneck, runs on a weak device, the rest
elsewhere. Their student is the teacher's architecture with a bottleneck of 3 channels ({cut}). They start from the
teacher's weights and train the head alone; {others} train the whole network from scratch, within the same number of
epochs and on the same labels.
"""


def write(
    dataset: str, place: Path, teacher: Mapping[str, Any], record: Mapping[str, Any], *, docs: Path, gains: Path
) -> None:
    """Writes `results.md` (of other data sets than digits `results_NAME.md`), its picture, its numbers and the gains.

    Args:
        dataset: The data set.
        place: Its runs.
        teacher: The summary of the teacher.
        record: Method -> what was searched, as `searched.json` has it.
        docs: Where to write.
        gains: The file with the gains of all data sets, which `distill list methods` shows; this one's are replaced.
    """
    stem = "results" if dataset == "digits" else f"results_{dataset}"
    of = DATA[dataset]
    diverged = {name: entry["diverged"] for name, entry in record.items() if "diverged" in entry}
    whole, cut = _parted({name: entry for name, entry in record.items() if name not in diverged})
    found = _students(place, whole, metric=of.metric)
    runs = [member[0] for each in found for member in each.result.members]
    identity = json.loads((Path(runs[0]["folder"]) / "data.json").read_text(encoding="utf-8"))
    student = _usual(found)
    summary = {**teacher["rows"][0], "name": teacher["student"]}
    judging = next(iter(whole.values()))
    left = [f"`{name}`" for name in sorted({*methods_for(dataset)} - {*record, *SPLIT})]
    lost = [f"`{name}` (seed {', '.join(map(str, seeds))})" for name, seeds in diverged.items()]
    text = HEAD.format(
        dataset=dataset,
        data=student.base["dataset"],
        networks=f" {of.networks}." if of.networks else "",
        what=of.metric,
        command=f"python -m scripts.measure.methods --dataset {dataset}",
        stem=stem,
        seeds=student.n,
        count=len(whole) - 1,
        labels=next(iter(identity.values()))["train"],
        budget=judging["budget"],
        trials=len(judging["trials"]),
        judging=f"seed{'s' * (len(judging['judging']) > 1)} {' and '.join(map(str, judging['judging']))}",
        missing="".join(
            what.format(names=", ".join(names)) for what, names in ((MISSING, left), (LOST, lost)) if names
        ),
        cached=CACHED.format(views=of.views) if of.views else "",
        teacher=f"`{summary['name']}` ({summary['parameters']:,} parameters, {100 * summary[of.metric]:.2f} %)",
        student=f"`{student.base['student']}` ({student.parameters:,} parameters)",
    )
    parts = [wrapped(text), table(found, whole, of)]
    if "ghnd" in cut and (split := _students(place / BOTTLENECK, cut, metric=of.metric)):
        ghnd = next(each.result for each in split if each.result.base["method"] == "ghnd")
        others = " and ".join([f"labels (`{of.alone}`)", *(["`kd`"] if "kd" in cut else [])])
        where = crossing(Path(ghnd.members[0][0]["folder"]))
        parts += ["", wrapped(CUT.format(cut=where, others=others)), table(split, cut, of)]
    page = "\n".join([*parts, ""])
    (docs / f"{stem}.md").write_text(page, encoding="utf-8")
    picture.draw(docs / f"{stem}.png", found=found)
    numbers = [_numbers(each, whole, of.metric) for each in found]
    (docs / f"{stem}.json").write_text(json.dumps({"teacher": summary, "methods": numbers}, indent=1) + "\n")
    known = yaml.safe_load(gains.read_text(encoding="utf-8")) if gains.is_file() else {}
    students = [n for n in numbers if "minus_alone" in n and "average_of_weights" not in n]
    known[dataset] = {n["method"]: round(100 * n["minus_alone"]["mean"], 2) for n in students}
    gains.write_text(f"# points over the student alone: docs/results*.md\n{yaml.safe_dump(known)}", encoding="utf-8")
    print(page)


def _parted(record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was searched by method: on the student, and on the teacher's architecture with a bottleneck."""
    whole = {name: entry for name, entry in record.items() if not name.startswith(BOTTLENECK)}
    return whole, {name.removeprefix(BOTTLENECK): record[name] for name in record.keys() - whole.keys()}


def _students(place: Path, record: Mapping[str, Any], *, metric: str) -> list[Compared]:
    """The tested students of all methods, best first; settings are no columns, since `searched.json` has them."""
    runs = [run for name in record for run in collect(place / name)]
    results = [result for result in aggregate(runs) if result.role in ("alone", "distilled")]
    found = compared([replace(result, settings={}) for result in results])
    return sorted(found, key=lambda each: -_mean(each, metric))


def _usual(found: Sequence[Compared]) -> Result:
    """A result whose network is the student as it is; some methods deploy more than that, none less."""
    return min((each.result for each in found), key=lambda result: result.parameters or math.inf)


def _mean(each: Compared, metric: str) -> float:
    spread = each.result.figures[metric].spread
    return float("-inf") if spread is None else spread.mean


def table(found: Sequence[Compared], record: Mapping[str, Any], of: Bundled) -> str:
    """The table of results, with what the search of settings found."""
    whole = of.alone == "ce"  # classes of images: there is KD to compare with, and whose answers agree
    pairs = ("vs alone", "vs kd", "best epoch", "agreement") if whole else ("vs alone", "best epoch")
    columns = ("method", of.metric, *pairs, "as published", "chosen", "cost")
    usual = _usual(found).parameters
    rows = [{**row_of(each), **_searched(each, record), "method": _named(each, usual)} for each in found]
    return summary_table(rows, columns, markdown=True)


def _named(each: Compared, usual: int | None) -> str:
    """The method, and how large its network is where that is not the student's size."""
    size = "" if each.result.parameters == usual else f", {each.result.parameters:,} parameters"
    name = f"`{each.result.base['method']}`{size}"
    if _is_average(each):
        return f"{name}, average of weights"
    return f"student alone ({name})" if each.result.role == "alone" else name


def _is_average(each: Compared) -> bool:
    """Whether it is the average of a student's weights, which is tested beside the student."""
    return str(each.result.members[-1][1].get("network")).endswith(AVERAGE)


def _searched(each: Compared, record: Mapping[str, Any]) -> dict[str, str]:
    entry = record[each.result.base["method"]]
    first, values = entry["trials"][0]["value"], list(entry["best"].values())
    return {
        "as published": "diverged" if first is None else f"{100 * first:.1f}",
        "chosen": f"{100 * max(trial['value'] or 0.0 for trial in entry['trials']):.1f}",
        "best epoch": f"{100 * statistics.mean(values):.2f}",
    }


def _numbers(each: Compared, record: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """A result for programs to read; shares as fractions."""
    numbers: dict[str, Any] = {"method": each.result.base["method"], "parameters": each.result.parameters}
    if _is_average(each):
        numbers["average_of_weights"] = True
    for name, figure in each.result.figures.items():
        numbers[name] = figure.by_seed
    for name, against in (("minus_alone", each.alone), ("minus_kd", each.kd)):
        if against is not None and (pair := against.by_metric.get(metric)) is not None:
            numbers[name] = {"mean": pair.mean, "p": pair.p}
    best = record[numbers["method"]]["best"]
    return {**numbers, "best_epoch": best, "seconds": each.seconds, "cost": each.cost}


def crossing(folder: Path) -> str:
    """What crosses the cut of a bottleneck, as the log of a run tells it."""
    lines = (folder / "train.log").read_text(encoding="utf-8").splitlines()
    return next(text.split(" INFO ", 1)[1].strip() for text in lines if "cut at " in text)


def wrapped(text: str) -> str:
    """Paragraphs and list entries in lines of 120 characters."""
    entries = re.split(r"\n\n|\n(?=- )", text.strip())
    lines = [textwrap.fill(" ".join(e.split()), 120, subsequent_indent="  " * e.startswith("- ")) for e in entries]
    parts = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        parts.append(line if line.startswith("- ") and after.startswith("- ") else f"{line}\n")
    return "\n".join(parts)
