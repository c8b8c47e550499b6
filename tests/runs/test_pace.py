"""How far a run is, and what is left of it."""

import json
from pathlib import Path

from omegaconf import OmegaConf

from distill_app.runs.claim import write_config
from distill_app.runs.pace import Pace, pace_of

CONFIG = {
    "prelude": {"schedule": ["teacher"], "stages": {"teacher": {"epochs": 3}}},
    "method": {"schedule": ["hint", "distill"], "stages": {"distill": {"epochs": 5}, "hint": {"epochs": 2}}},
}


def records(folder: Path, *lines: dict) -> None:
    write_config(folder, OmegaConf.create(CONFIG))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def epoch(stage: str, number: int, time: float, accuracy: float = 0.5) -> dict:
    metrics = {"loss_total": 1.0, "validation_accuracy": accuracy, "validation_loss": 2.0}
    return {"kind": "epoch", "stage": stage, "epoch": number, "metrics": metrics, "timing": {"time": time}}


def test_the_pace_of_the_last_epochs_tells_what_is_left_of_all_stages(tmp_path):
    # 10 s an epoch, and once an hour in a queue.
    hint = [epoch("hint", 0, 100.0), epoch("hint", 1, 110.0)]
    distill = [epoch("distill", number, time, 0.6) for number, time in enumerate((120.0, 130.0, 3730.0, 3740.0))]
    records(tmp_path, *hint)
    assert pace_of(tmp_path) == Pace("hint", 2, 2, "accuracy", 0.5, 50.0)
    records(tmp_path, *hint, *distill, {"kind": "step", "stage": "distill", "epoch": 4, "step": 9})
    assert pace_of(tmp_path) == Pace("distill", 4, 5, "accuracy", 0.6, 10.0)


def test_nothing_is_claimed_where_nothing_is_known(tmp_path):
    assert pace_of(tmp_path) == Pace()
    records(tmp_path, {"kind": "step", "stage": "teacher", "epoch": 0, "step": 1})
    assert pace_of(tmp_path) == Pace("teacher", 0, 3)
    records(tmp_path, epoch("teacher", 0, 100.0))
    assert pace_of(tmp_path).seconds_left is None
    (tmp_path / "config_resolved.yaml").write_text("method: [")
    (tmp_path / "metrics.jsonl").write_bytes(b'{"kind": 1}\n[]\n\xff\n{"kind": "epoch", "stage": "x", "epoch": null')
    assert pace_of(tmp_path) == Pace()


def test_of_a_long_file_only_the_end_is_read(tmp_path):
    padding = [{"kind": "step", "stage": "hint", "epoch": 0, "step": n, "x": "x" * 1000} for n in range(500)]
    records(tmp_path, epoch("hint", 0, 1.0), *padding, epoch("distill", 0, 2.0, 0.7))
    assert pace_of(tmp_path) == Pace("distill", 1, 5, "accuracy", 0.7, None)
