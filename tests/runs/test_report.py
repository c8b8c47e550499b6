"""Reports: tables, aggregation over seeds, plots, and foreign files."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from distill_app.runs.report import aggregate, collect, final_plot, summary_table
from distill_app.verbs.report import main

_ROWS = [
    {"name": "teacher", "network": "resnet20", "stage": "teacher", "accuracy": 0.9, "parameters": 272474},
    {"name": "student", "network": "resnet8", "stage": "distill", "accuracy": 0.8123, "agreement": 0.85,
     "parameters": 78042, "seconds": 12.34},
]  # fmt: skip


def _run(folder: Path, *, seed: int, accuracy: float = 0.8, method: str = "kd", state: str = "done") -> Path:
    folder.mkdir(parents=True)
    rows = [_ROWS[0], {**_ROWS[1], "accuracy": accuracy}]
    about = {"method": method, "dataset": "digits", "seed": seed, "student": "resnet8", "teacher": "resnet20"}
    if state == "done":
        (folder / "summary.json").write_text(json.dumps({**about, "rows": rows}))
    status = {"state": state, "reason": "loss kd is nan" if state == "failed" else None}
    (folder / "status.json").write_text(json.dumps(status))
    epochs = [
        {"kind": "epoch", "stage": s, "epoch": e, "metrics": {"train_accuracy": 1.0, "val_accuracy": e / 10}}
        for s in ("teacher", "distill")
        for e in range(8)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in epochs) + '{"ki')
    return folder


def _is_png(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_table_is_aligned_and_in_percent():
    columns = ("name", "accuracy", "agreement", "parameters", "seconds")
    assert summary_table(_ROWS, columns).splitlines() == [
        "name     accuracy  agreement  parameters  seconds",
        "-------  --------  ---------  ----------  -------",
        "teacher    90.00%          -     272,474        -",
        "student    81.23%     85.00%      78,042     12.3",
    ]


def test_markdown_table_escapes_cells():
    lines = summary_table([{"name": "a|b\x1b[31m", "n": 3}], ("name", "n"), markdown=True).splitlines()
    assert lines == ["| name      |   n |", "| --------- | --: |", "| a\\|b?[31m |   3 |"]


def test_mean_and_deviation_over_seeds(tmp_path):
    for seed, accuracy in enumerate((0.7, 0.8, 0.9)):
        _run(tmp_path / f"2026/{seed}", seed=seed, accuracy=accuracy)
    _run(tmp_path / "sweep/deep/er", seed=0, method="at", accuracy=0.6)
    _run(tmp_path / "bad", seed=5, state="failed")
    runs = collect(tmp_path)
    assert len(runs) == 5
    records = {(r["method"], r["result"]): r for r in aggregate(runs)}
    assert list(records) == [("at", "teacher"), ("at", "student"), ("kd", "teacher"), ("kd", "student")]
    student = records["kd", "student"]
    assert student["n"] == student["seeds"] == 3
    assert student["accuracy"] == pytest.approx(0.8) and student["accuracy_std"] == pytest.approx(0.1)
    assert records["at", "student"]["accuracy_std"] is None


def test_report_prints_and_writes_table_csv_and_plot(tmp_path, capsys):
    _run(tmp_path / "a", seed=0, accuracy=0.7)
    _run(tmp_path / "b", seed=1, accuracy=0.9)
    _run(tmp_path / "c", seed=2, state="failed")
    _run(tmp_path / "d", seed=3, state="running")
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "80.00 +- 14.14%" in out and "4 runs: 2 done, 1 failed, 1 running" in out
    assert "- c failed: loss kd is nan" in out
    assert "| 80.00 +- 14.14%" in (tmp_path / "report.md").read_text()
    rows = list(csv.DictReader((tmp_path / "report.csv").open()))
    assert float(rows[1]["accuracy"]) == pytest.approx(0.8) and rows[1]["n"] == "2"
    assert _is_png(tmp_path / "report.png")
    assert main([str(tmp_path), "--csv"]) == 0
    assert capsys.readouterr().out == (tmp_path / "report.csv").read_text()


def test_report_without_runs_says_so(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert main([str(tmp_path / "missing")]) == 2
    err = capsys.readouterr().err
    assert "no summary.json" in err and "is no folder" in err


@pytest.mark.parametrize("content", ["", "[1]", '{"rows": 3}', '{"rows": [1, {"accuracy": "x", "name": "$y_$"}]}'])
def test_foreign_files_do_not_break_the_report(tmp_path, content):
    run = tmp_path / "run"
    run.mkdir()
    (run / "summary.json").write_text(content)
    (run / "metrics.jsonl").write_text('{"kind": "epoch", "epoch": null}\n[]\n{"kind": "epoch"}\n')
    assert main([str(tmp_path)]) == 0
    assert _is_png(final_plot(run))


def test_curves_of_a_run_show_validation_and_test(tmp_path, monkeypatch):
    from distill_app.runs import plots

    seen = {}
    draw = plots.curves
    monkeypatch.setattr(plots, "curves", lambda path, **what: (seen.update(what), draw(path, **what)))
    path = final_plot(_run(tmp_path / "r", seed=0))
    assert path == tmp_path / "r/curves.png" and _is_png(path)
    assert list(seen["curves"]) == ["teacher", "distill"]
    assert seen["curves"]["distill"][3] == (4, 0.3)
    assert seen["title"] == "kd, resnet20 to resnet8, digits, seed 0"


def test_report_does_not_import_torch():
    names = ", ".join(
        f"distill_app.{name}" for name in ("runs.report", "launch.submitit", "runs.tracking", "runs.records")
    )
    code = f"import sys, {names}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
