"""Tables and plots of runs, in what runs differ, and foreign files."""

import csv
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from distill_app.report.page import page
from distill_app.report.results import aggregate
from distill_app.report.tables import status_text
from distill_app.runs.collect import collect
from distill_app.runs.report import final_plot, results_of, summary_table
from distill_app.verbs import call

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


def _sweep(root: Path, points: dict[str, dict], *, choices: dict | None = None, typed: tuple[str, ...] = ()) -> None:
    """Runs with configs: point -> what differs from the first; the learning rate is that of every stage."""
    for name, point in points.items():
        folder = _run(root / name, seed=point.get("seed", 0), state=point.get("state", "done"))
        lr, decay = point.get("lr", 0.1), point.get("decay", 0.0)
        config = {
            "seed": point.get("seed", 0),
            "dataset": {"name": "digits"},
            "teacher": {"name": "resnet20"},
            "student": {"name": "resnet8"},
            "method": {"name": "kd", "stages": {"distill": {"lr": lr, "losses": {"kd": {"t": point.get("t", 4)}}}}},
            "stage": {"lr": lr, "optimizer": {"_target_": "torch.optim.SGD", "weight_decay": decay}},
            "cache": {"folder": f"cache/{name}"},
            "runtime": {"num_workers": len(name)},
        }
        (folder / "config_resolved.yaml").write_text(json.dumps(config))
        (folder / ".hydra").mkdir()
        (folder / ".hydra/overrides.yaml").write_text(json.dumps([f"{key}={name}" for key in typed]))
        chosen = {key: values[name] for key, values in (choices or {}).items()}
        (folder / ".hydra/hydra.yaml").write_text(json.dumps({"hydra": {"runtime": {"choices": chosen}}}))


def _columns(root: Path) -> dict[str, list]:
    results = [result for result in aggregate(collect(root)) if result.name == "student"]
    keys = dict.fromkeys(key for result in results for key in result.settings)
    return {key: [result.settings[key] for result in results] for key in keys}


def test_what_differs_is_a_column_and_what_follows_from_it_is_none(tmp_path):
    _sweep(tmp_path, {"a": {"lr": 0.1}, "b": {"lr": 0.02}, "c": {"lr": 10.0}, "d": {"lr": 0.02, "seed": 1}})
    assert _columns(tmp_path) == {"stage.lr": ["0.02", "0.1", "10"]}
    results = aggregate(collect(tmp_path))
    assert [result.n for result in results if result.name == "student"] == [2, 1, 1]


def test_runs_that_differ_in_nothing_have_no_further_column(tmp_path):
    _sweep(tmp_path, {"a": {"seed": 0}, "other place": {"seed": 1}})
    assert _columns(tmp_path) == {}
    assert call("report", [str(tmp_path)]) == 0


def test_keys_that_vary_together_are_shown_where_somebody_typed_them(tmp_path):
    points = {"a": {"lr": 0.1, "decay": 0.0}, "b": {"lr": 0.2, "decay": 0.5}}
    _sweep(tmp_path / "few", points)
    assert list(_columns(tmp_path / "few")) == ["stage.lr"]
    _sweep(tmp_path / "typed", points, typed=("stage.optimizer.weight_decay", "stage.lr", "seed"))
    assert set(_columns(tmp_path / "typed")) == {"stage.lr", "stage.optimizer.weight_decay"}


def test_a_group_that_was_chosen_stands_for_its_keys(tmp_path):
    points = {"a": {"lr": 0.1, "t": 1}, "b": {"lr": 0.2, "t": 2}, "c": {"lr": 0.2, "t": 2, "seed": 1}}
    _sweep(tmp_path, points, choices={"stage": {"a": "fast", "b": "slow", "c": "slow"}, "debug": dict.fromkeys("abc")})
    assert _columns(tmp_path) == {"stage": ["fast", "slow"]}


@pytest.mark.parametrize("group", ["tracker", "launcher"])
def test_a_group_that_is_no_setting_stands_for_no_key(tmp_path, group):
    _sweep(tmp_path, {"a": {"lr": 0.1}, "b": {"lr": 0.2}}, choices={group: {"a": "one", "b": "other"}})
    assert list(_columns(tmp_path)) == ["stage.lr"]


def test_columns_are_in_table_csv_and_picture(tmp_path, capsys, monkeypatch):
    from matplotlib.axes import Axes

    _sweep(tmp_path, {"a": {"lr": 0.1}, "b": {"lr": 0.2}})
    drawn: list[str] = []
    set_yticks = Axes.set_yticks

    def drawing(axis, ticks, labels=(), **how):
        drawn.extend(labels)
        return set_yticks(axis, ticks, labels, **how)

    monkeypatch.setattr(Axes, "set_yticks", drawing)
    assert call("report", [str(tmp_path)]) == 0
    assert "stage.lr" in capsys.readouterr().out.splitlines()[0]
    assert [row["stage.lr"] for row in csv.DictReader((tmp_path / "report.csv").open())] == ["", "0.1", "0.2"]
    assert drawn == ["teacher", "kd, stage.lr=0.1: student", "kd, stage.lr=0.2: student"]


def test_runs_that_did_not_finish_say_what_they_are(tmp_path):
    _sweep(tmp_path, {"a": {"lr": 0.1}, "b": {"lr": 0.2, "seed": 1, "state": "failed"}})
    refused = {"state": "refused", "reason": "stage.lr: must be above 0", "point": ["stage.lr=-1"]}
    (tmp_path / "c").mkdir()
    (tmp_path / "c/status.json").write_text(json.dumps(refused))
    lines = status_text(collect(tmp_path)).splitlines()
    assert lines[0] == "3 runs: 1 done, 1 failed, 1 refused"
    assert "- b (" in lines[1] and "seed=1" in lines[1] and "stage.lr=0.2" in lines[1] and "loss kd is nan" in lines[1]
    assert lines[2] == "- c (stage.lr=-1) refused: stage.lr: must be above 0"
    assert _columns(tmp_path) == {}


def test_runs_that_were_tested_on_other_images_are_told(tmp_path):
    _sweep(tmp_path, {"a": {"lr": 0.1}, "b": {"lr": 0.2}, "c": {"lr": 0.3}})
    for name, images in (("a", "x"), ("b", "x"), ("c", "x")):
        split = {"hash": {"train": "t", "test": images}}
        record = {"teacher": {}, "distill": {"dataset": "imagefolder", "root": "/d", "split": split}}
        (tmp_path / name / "data.json").write_text(json.dumps(record))
    assert status_text(collect(tmp_path)) == "3 runs: 3 done"
    (tmp_path / "b/data.json").write_text(json.dumps(record).replace('"x"', '"y"'))
    warning = status_text(collect(tmp_path)).splitlines()[1]
    assert warning.startswith(
        "- warning: imagefolder /d was tested on 2 different sets of images, whose figures do not"
    )
    assert warning.endswith(": a, c; b")
    assert warning.removeprefix("- warning: ") in page(runs=collect(tmp_path), found=[], title="t")
    (tmp_path / "b/data.json").write_text('{"distill": {"split": {"hash": 3}}}')
    assert status_text(collect(tmp_path)) == "3 runs: 3 done"


def test_a_run_whose_process_is_gone_does_not_run(tmp_path):
    _run(tmp_path / "a", seed=0, state="running")
    dead = {"state": "running", "pid": 2**22 + 1, "host": socket.gethostname()}
    (tmp_path / "a/status.json").write_text(json.dumps(dead))
    assert f"distill resume {tmp_path / 'a'}" in status_text(collect(tmp_path))
    assert collect(tmp_path)[0]["state"] == "died"
    (tmp_path / "a/status.json").write_text(json.dumps({**dead, "host": "far"}))
    assert collect(tmp_path)[0]["state"] == "running (unknown: other host, far)"


def test_a_config_of_somebody_elses_is_read_as_data(tmp_path):
    canary = tmp_path / "canary"
    for number, text in enumerate((f"!!python/object/apply:os.mkdir ['{canary}']", "a: [", "- 1", "a: ${oc.env:HOME}")):
        folder = _run(tmp_path / str(number), seed=0)
        (folder / "config_resolved.yaml").write_text(text)
        (folder / ".hydra").mkdir()
        (folder / ".hydra/overrides.yaml").write_text(text)
    assert call("report", [str(tmp_path)]) == 0 and not canary.exists()


_ODD = (
    '{"rows": [{"name": {}, "accuracy": NaN, "network": [1], "seconds": "x"}], "stages": {"a": 3, "b": {"seconds": '
    '"x", "trained": 7}}, "metrics": 7, "seed": [NaN], "method": {"a": 1}, "objective": "x", "settings": [3]}'
)


def _is_png(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_table_is_aligned_and_in_percent():
    assert results_of({"rows": _ROWS}).splitlines() == [
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
    results = {(result.base["method"], result.name): result for result in aggregate(runs)}
    assert list(results) == [(None, "teacher"), ("at", "student"), ("kd", "student")]
    assert results[None, "teacher"].n == 3
    student = results["kd", "student"].figures["accuracy"].spread
    assert student.n == results["kd", "student"].n == 3
    assert student.mean == pytest.approx(0.8) and student.std == pytest.approx(0.1)
    assert results["at", "student"].figures["accuracy"].spread.std is None


def test_report_prints_and_writes_table_csv_and_plot(tmp_path, capsys):
    _run(tmp_path / "a", seed=0, accuracy=0.7)
    _run(tmp_path / "b", seed=1, accuracy=0.9)
    _run(tmp_path / "c", seed=2, state="failed")
    _run(tmp_path / "d", seed=3, state="running")
    assert call("report", [str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "80.00 +- 14.14%" in out and "4 runs: 2 done, 1 failed, 1 running (unknown: no process named)" in out
    assert "- c failed: loss kd is nan" in out
    assert "| 80.00 +- 14.14%" in (tmp_path / "report.md").read_text()
    rows = list(csv.DictReader((tmp_path / "report.csv").open()))
    assert float(rows[1]["accuracy"]) == pytest.approx(0.8) and rows[1]["n"] == "2"
    assert _is_png(tmp_path / "report.png")
    assert call("report", [str(tmp_path), "--csv"]) == 0
    assert capsys.readouterr().out == (tmp_path / "report.csv").read_text()


def test_report_without_runs_says_so(tmp_path, capsys):
    assert call("report", [str(tmp_path)]) == 1
    assert call("report", [str(tmp_path / "missing")]) == 2
    err = capsys.readouterr().err
    assert "no summary.json" in err and "is no folder" in err


@pytest.mark.parametrize(
    "content", ["", _ODD, "[1]", '{"rows": 3}', '{"rows": [1, {"accuracy": "x", "name": "$y_$"}]}']
)
def test_foreign_files_do_not_break_the_report(tmp_path, content):
    run = tmp_path / "run"
    run.mkdir()
    (run / "summary.json").write_text(content)
    (run / "metrics.jsonl").write_text('{"kind": "epoch", "epoch": null}\n[]\n{"kind": "epoch"}\n')
    assert call("report", [str(tmp_path)]) == 0
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
        f"distill_app.{name}"
        for name in ("verbs.report", "runs.report", "launch.submitit", "runs.tracking", "runs.records")
    )
    code = f"import sys, {names}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
