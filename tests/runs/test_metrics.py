"""How figures are described in a run's files, and shown by whoever reads them."""

import json
import math

import pytest

from distill_app.report.comparison import compared
from distill_app.report.results import aggregate
from distill_app.report.tables import results_csv, results_table
from distill_app.runs.collect import collect
from distill_app.runs.metrics import Metric, joined, metrics_of
from distill_app.runs.report import final_plot, results_of
from distill_app.verbs import call

MSE = Metric("mse", direction="min", decimals=3, unit="px^2")
HITS = Metric("hits", percent=True)


@pytest.mark.parametrize(
    ("metric", "value", "deviation", "text"),
    [
        (HITS, 0.8123, None, "81.23%"),
        (HITS, 0.8, 0.1414, "80.00 +- 14.14%"),
        (Metric("hits", percent=True, decimals=0), 0.5, None, "50%"),
        (MSE, 1.23456, None, "1.235 px^2"),
        (MSE, 1.23456, 0.5, "1.235 +- 0.500 px^2"),
        (Metric("loss"), 0.000123456, None, "0.0001235"),
    ],
)
def test_a_figure_is_shown_as_its_metric_says(metric, value, deviation, text):
    assert metric.text(value, deviation=deviation) == text


def test_better_is_what_the_direction_says_and_what_is_no_number_is_worst():
    assert HITS.better(0.2, 0.1) and not HITS.better(0.1, 0.1) and not HITS.better(0.1, 0.2)
    assert MSE.better(0.1, 0.2) and not MSE.better(0.2, 0.1)
    assert MSE.better(math.nan, None) and MSE.better(5.0, math.nan) and not MSE.better(math.nan, 5.0)


def test_another_direction_is_refused():
    with pytest.raises(ValueError, match="direction is max or min, not 'down'"):
        Metric("mse", direction="down")


def test_a_description_is_read_as_it_was_written():
    metrics = [MSE, HITS, Metric("curve", table=False)]
    assert metrics_of(json.loads(json.dumps({"metrics": [metric.described() for metric in metrics]}))) == metrics


@pytest.mark.parametrize("entries", [[3], [{"name": 3}], [{}], ["mse"], [{"name": ""}]])
def test_a_description_of_nothing_is_left_out(entries):
    assert metrics_of({"metrics": entries, "rows": [{"mse": 1.0}]}) == []


def test_a_description_from_elsewhere_cannot_break_a_table():
    (metric,) = metrics_of({"metrics": [{"name": "a", "direction": 3, "percent": 1, "decimals": 1e9, "unit": [2]}]})
    assert metric == Metric("a")
    (metric,) = metrics_of({"metrics": [{"name": "a", "decimals": 10**9}]})
    assert metric.text(1.0) == "1.000000000000"


def test_runs_of_older_versions_describe_themselves_by_their_rows():
    rows = [{"name": "t", "accuracy": 0.9, "loss": 0.3, "parameters": 3}, {"name": "s", "accuracy": 1, "seconds": 0.5}]
    assert metrics_of({"rows": rows}) == [
        Metric("accuracy", percent=True),
        Metric("loss", direction="min", table=False),
    ]
    assert metrics_of({"rows": [{"error": 3.5}]}) == [Metric("error")]


def test_one_name_is_described_once():
    assert joined([[MSE, HITS], [Metric("mse"), Metric("other")]]) == [MSE, HITS, Metric("other")]


def write(folder, seed: int, metrics: list[Metric], **figures: float | None) -> None:
    folder.mkdir(parents=True)
    rows = [{"name": "student", "network": "student", "stage": "distill", **figures, "parameters": 10}]
    about = {"method": "kd", "dataset": "d", "student": "a", "teacher": "b", "seed": seed}
    described = {"metrics": [metric.described() for metric in metrics], "rows": rows}
    (folder / "summary.json").write_text(json.dumps(about | described))
    (folder / "status.json").write_text('{"state": "done"}')
    leading = metrics[0].name
    epochs = [{"kind": "epoch", "stage": "distill", "epoch": e, "metrics": {f"test_{leading}": 3 - e}} for e in (0, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in epochs))


def test_runs_of_several_tasks_stand_in_one_report(tmp_path, capsys):
    write(tmp_path / "a", 0, [MSE], mse=1.0)
    write(tmp_path / "b", 1, [MSE], mse=2.0)
    write(tmp_path / "c", 0, [HITS, MSE], hits=0.5, mse=None)
    assert call("report", [str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "mse" in out and "hits" in out
    results = aggregate(collect(tmp_path))
    assert {name: figure.spread.mean for name, figure in results[0].figures.items()} == {"mse": 1.5, "hits": 0.5}
    assert "mse,mse_std" in results_csv(compared(results))


def test_the_table_of_a_run_leaves_a_dash_where_there_is_no_figure(tmp_path):
    write(tmp_path / "a", 0, [HITS, MSE], hits=None, mse=2.0)
    lines = results_of(json.loads((tmp_path / "a/summary.json").read_text())).splitlines()
    assert lines[0].split() == ["name", "hits", "mse", "parameters", "seconds"]
    assert lines[2].split() == ["student", "-", "2.000", "px^2", "10", "-"]


def test_a_mean_has_the_unit_of_its_metric(tmp_path):
    for seed, value in enumerate((1.0, 2.0)):
        write(tmp_path / str(seed), seed, [MSE], mse=value)
    assert "1.500 +- 0.707 px^2" in results_table(compared(aggregate(collect(tmp_path))))


def test_curves_and_axes_are_those_of_the_leading_metric(tmp_path, monkeypatch):
    from distill_app.runs import plots

    seen = {}
    draw = plots.curves
    monkeypatch.setattr(plots, "curves", lambda path, **what: (seen.update(what), draw(path, **what)))
    write(tmp_path / "a", 0, [MSE, HITS], mse=1.0, hits=0.5)
    final_plot(tmp_path / "a")
    assert seen["curves"] == {"distill": [(1, 3.0), (2, 2.0)]} and seen["metric"].axis == "Mse (px^2)"
