"""Tracking: what is written, what is shown, and what two equal runs have in common."""

import json
import sys
from pathlib import Path

import pytest

from distill_app.runs.journal import Journal
from distill_app.runs.metrics import Metric
from distill_app.runs.tracking import Tracker


def _train(folder: Path, *, images_per_second: float = 100.0, start: int = 0, **options) -> None:
    with Tracker(folder, **options) as tracker:
        shown = [Metric("accuracy", percent=True)]
        tracker.start_stage("distill", epochs=3, steps_per_epoch=2, first_epoch=start, metrics=shown)
        for epoch in range(start, 3):
            for step in range(2):
                tracker.advance(1)
                tracker.step(
                    epoch=epoch,
                    step=step,
                    losses={"ce": 1.0 / (epoch + 1), "kd": 0.5},
                    total=1.0,
                    lr=0.1,
                    images_per_second=images_per_second,
                    data_wait=0.25,
                    batch_size=8,
                )
            metrics = {"val_accuracy": 0.5 + epoch / 10, "seconds": images_per_second}
            tracker.epoch(stage="distill", epoch=epoch, metrics=metrics)
        tracker.final([{"name": "student", "stage": "distill", "accuracy": 0.7, "seconds": 3.0}])


def _without_clock(folder: Path) -> list[str]:
    records = Journal.read(folder / "metrics.jsonl").records
    return [json.dumps({k: v for k, v in record.items() if k != "timing"}) for record in records]


def test_records_are_equal_but_for_the_clock(tmp_path):
    _train(tmp_path / "a", images_per_second=100.0)
    _train(tmp_path / "b", images_per_second=200.0)
    assert _without_clock(tmp_path / "a") == _without_clock(tmp_path / "b")
    records = Journal.read(tmp_path / "a/metrics.jsonl").records
    assert [r["kind"] for r in records] == ["step", "step", "epoch"] * 3 + ["test"]
    first = records[0]
    assert (first["stage"], first["epoch"], first["step"]) == ("distill", 0, 0)
    assert first["losses"] == {"ce": 1.0, "kd": 0.5} and first["timing"]["images_per_second"] == 100.0
    assert records[2]["metrics"] == {"val_accuracy": 0.5} and records[2]["timing"]["seconds"] == 100.0
    assert "seconds" not in records[-1]


def test_interrupted_and_rewound_run_equals_the_uninterrupted(tmp_path):
    _train(tmp_path / "whole")
    _train(tmp_path / "resumed")
    path = tmp_path / "resumed/metrics.jsonl"
    path.write_text(path.read_text()[: len(path.read_text()) * 3 // 5])
    assert not path.read_text().endswith("\n")
    with Tracker(tmp_path / "resumed") as tracker:
        tracker.rewind(lambda record: record["epoch"] < 1)
    _train(tmp_path / "resumed", start=1)
    assert _without_clock(tmp_path / "resumed") == _without_clock(tmp_path / "whole")


def test_partial_last_line_is_not_glued_to_the_next_record(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "step", "epoch": 0}\n{"kind": "st')
    with Tracker(tmp_path) as tracker:
        tracker.final([{"name": "student"}])
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["step", "test"]


def test_records_reach_the_disk_as_they_are_made(tmp_path):
    tracker = Tracker(tmp_path)
    tracker.epoch(stage="s", epoch=0, metrics={"loss": 1.0})
    assert len(Journal.read(tmp_path / "metrics.jsonl").records) == 1
    tracker.close()
    tracker.close()


def test_values_that_are_not_finite_are_null_and_noted(tmp_path):
    with Tracker(tmp_path) as tracker:
        tracker.start_stage("s", epochs=1, steps_per_epoch=1)
        losses = {"kd": float("nan"), "ce": 1.0}
        values = {
            "total": float("-inf"),
            "lr": 0.1,
            "images_per_second": float("inf"),
            "data_wait": 0.25,
            "batch_size": 1,
        }
        tracker.step(epoch=0, step=0, losses=losses, **values)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    record = json.loads(line, parse_constant=pytest.fail)
    assert record["losses"] == {"kd": None, "ce": 1.0} and record["total"] is None
    assert record["nonfinite"] == {"losses.kd": "nan", "total": "-inf"}


def test_plain_lines_without_a_terminal(tmp_path, capsys):
    _train(tmp_path)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "stage distill: 3 epochs of 2 steps"
    assert [line.split("  ")[0] for line in lines[1:]] == [f"distill epoch {i}/3" for i in (1, 2, 3)]
    assert "val_accuracy 50.00%" in lines[1] and err == "" and "\r" not in out
    log = (tmp_path / "train.log").read_text().splitlines()
    assert len(log) == 1 + 3 + 6
    assert all(line[:2] == "20" and " INFO " in line for line in log)
    assert "epoch 1 step 2/2: loss 1 ce 1 kd 0.5 lr 0.1 100 images/s, data wait 25%" in log[2]


def test_without_a_terminal_a_long_epoch_speaks_now_and_then(tmp_path, capsys):
    for line_every, lines in ((0.0, 6), (3600.0, 0)):
        _train(tmp_path / str(lines), line_every=line_every)
        said = [line for line in capsys.readouterr().out.splitlines() if "left of the stage" in line]
        assert len(said) == lines
        if lines:
            assert (
                said[3].startswith("distill epoch 2/3 step 2/2  loss 1 ce 0.5 kd 0.5 lr 0.1 ") and "0 s left" in said[3]
            )
    _train(tmp_path / "resumed", start=2, line_every=0.0)
    assert "distill epoch 3/3 step 1/2" in capsys.readouterr().out


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path, capsys):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "train.log").symlink_to(full)
    _train(tmp_path)
    assert "distill epoch 3/3" in capsys.readouterr().out
    assert len(Journal.read(tmp_path / "metrics.jsonl").records) == 10


def test_a_note_is_in_the_log_alone(tmp_path, capsys):
    with Tracker(tmp_path) as tracker:
        tracker.note("a\nb", level="ERROR")
    tracker.note("too late")
    assert [line.split(" ", 2)[2] for line in (tmp_path / "train.log").read_text().splitlines()] == [
        "ERROR a",
        "ERROR b",
    ]
    assert capsys.readouterr() == ("", "")


def test_without_any_stderr_there_is_no_bar(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    _train(tmp_path)
    assert (tmp_path / "metrics.jsonl").is_file()


def test_warning_goes_to_stderr_and_the_log(tmp_path, capsys):
    with Tracker(tmp_path) as tracker:
        tracker.warning("checkpoint damaged\nusing the previous one")
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("warning: checkpoint damaged\n")
    assert [line.split(" ", 2)[2] for line in (tmp_path / "train.log").read_text().splitlines()] == [
        "WARNING warning: checkpoint damaged",
        "WARNING using the previous one",
    ]


def test_other_ranks_write_and_say_nothing(tmp_path, capsys):
    folder = tmp_path / "run"
    _train(folder, enabled=False)
    with Tracker(folder, enabled=False) as tracker:
        tracker.rewind(lambda record: False)
        tracker.warning("x")
    assert not folder.exists() and capsys.readouterr() == ("", "")


def test_a_damaged_line_is_told_with_its_number_and_left_out(tmp_path, capsys):
    _train(tmp_path)
    file = tmp_path / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    lines[3] = bytes(len(lines[3]) - 1) + b"\n"
    file.write_bytes(b"".join(lines))
    with Tracker(tmp_path) as tracker:
        tracker.rewind(lambda record: True)
    assert len(Journal.read(file).records) == len(lines) - 1
    for text in (capsys.readouterr().err, (tmp_path / "train.log").read_text()):
        assert f"{file}: damaged: line 4; what is lost stays out" in text


def test_records_that_are_gone_without_a_trace_are_counted(tmp_path, capsys):
    _train(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    with Tracker(tmp_path) as tracker:
        tracker.rewind(lambda record: True, expected=10)
    assert "0 records are there, 10 were written" in capsys.readouterr().err
