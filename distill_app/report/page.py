"""`report.html`: one file with everything in it, that loads nothing and works without a network."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from distill_app import __version__
from distill_app.report import sheets
from distill_app.report.comparison import Compared, seconds_in_all
from distill_app.report.curves import Curves
from distill_app.report.depth import depth_of, depth_sheet, networks_sheet
from distill_app.report.pictures import pictures_of
from distill_app.report.results import DISTILLED, Result
from distill_app.report.tables import metrics_in, settings_of, states_text, tested_apart, tuned_texts
from distill_app.runs.files import finite, now, write_text
from distill_app.runs.naming import short_names

_FOLDER = resources.files("distill_app.report") / "assets"
_SCRIPTS = ("tables.js", "charts.js", "sections.js", "depth.js")


def write_page(path: Path, *, runs: Sequence[Mapping[str, Any]], found: Sequence[Compared], title: str) -> None:
    """Writes the page of some runs."""
    write_text(path, page(runs=runs, found=found, title=title))


def page(*, runs: Sequence[Mapping[str, Any]], found: Sequence[Compared], title: str) -> str:
    """The page as text. What names and files of others say is text in it, never markup."""
    from jinja2 import Environment

    depth = depth_of(runs)
    style, script = _read("page.css"), _script()
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # stages are in their order
    template = environment.from_string(_read("page.html"))
    return template.render(
        title=title,
        made=now(),
        version=__version__,
        style=style,
        script=script,
        # Nothing may be loaded, and no script may run but this one, whatever came in by names of others.
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_digest(script)}'",
        states=states_text(runs),
        training=sheets.duration(seconds_in_all(runs)),
        results=sheets.results_sheet(found),
        costs=sheets.costs_sheet(found, runs),
        runs=sheets.runs_sheet(runs, found),
        failed=sheets.failed_sheet(runs),
        warnings=list(tested_apart(runs)),
        commands=sheets.commands_of(runs),
        facts=sheets.facts_of(runs, found),
        depth=depth_sheet(depth),
        networks=networks_sheet(depth),
        pictures=pictures_of(runs),
        tuned=tuned_texts(found),
        comparisons=sum(len([against for against in (each.alone, each.kd) if against]) for each in found),
        data=finite({**_data(runs, found), "depth": depth}),
    )


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _script() -> str:
    """The page's script; its parts are of one scope."""
    parts = "\n".join(_read(name) for name in _SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(runs: Sequence[Mapping[str, Any]], found: Sequence[Compared]) -> dict[str, Any]:
    """What the charts are drawn from."""
    curves = Curves(runs)
    keys = keys_of(runs, found)
    return {
        "metrics": [{**metric.described(), "axis": metric.axis} for metric in metrics_in(found)],
        "keys": [{"key": key, "label": label} for key, label in keys.items()],
        "results": [_result(each, keys) for each in found],
        "runs": [_run(run, keys, indices) for run, indices in zip(runs, curves.of_runs, strict=True)],
        "curves": curves.all,
    }


def keys_of(runs: Sequence[Mapping[str, Any]], found: Sequence[Compared]) -> dict[str, str]:
    """What was swept: the names and settings in which runs differ, each with its short name."""
    base = [
        key
        for key in ("dataset", "teacher", "student", "method")
        if len({str(run.get(key)) for run in runs if run.get(key) is not None}) > 1
    ]
    return {**{key: key for key in base}, **short_names(settings_of(found))}


def _result(each: Compared, keys: Mapping[str, str]) -> dict[str, Any]:
    result: Result = each.result
    known = {**result.base, **result.settings}
    figures = {
        name: {"mean": figure.spread.mean, "std": figure.spread.std, "n": figure.spread.n, "seeds": figure.by_seed}
        for name, figure in result.figures.items()
        if figure.spread is not None
    }
    pairs = {} if each.alone is None else {name: vars(pair) for name, pair in each.alone.by_metric.items()}
    return {
        "role": result.role,
        "name": result.name,
        "title": result.title,
        "setting": result.setting,
        "sweeps": result.role == DISTILLED,
        "values": {key: known.get(key) for key in keys},
        "figures": figures,
        "alone": pairs,
    }


def _run(run: Mapping[str, Any], keys: Mapping[str, str], curves: Mapping[str, Any]) -> dict[str, Any]:
    known = {**(run.get("varied") or {}), **{key: run.get(key) for key in ("dataset", "teacher", "student", "method")}}
    values = {key: known.get(key) for key in keys}
    return {"path": run["path"], "state": run["state"], "seed": run.get("seed"), "values": values, "curves": curves}
