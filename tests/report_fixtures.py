"""Folders as runs leave them, written by hand: what a report reads, in any number and within milliseconds."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_app.runs.journal import sealed_line
from distill_app.runs.metrics import Metric

ACCURACY = Metric("accuracy", percent=True)
METRICS = (ACCURACY, Metric("loss", direction="min", table=False), Metric("agreement", percent=True))
IMAGE = (  # two pixels wide
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAIAAAADCAIAAAA2iEnWAAAAFElEQVR4nGPk5ORkYGBgYmBgQFAAAlUAIWbSfWMAAAAASUVORK5CYII="
)
KD = "method.stages.distill.losses.kd"


def row(name: str, network: str, stage: str, accuracy: float, **more: Any) -> dict[str, Any]:
    """A row of results."""
    # Not the same for two networks, as no loss ever is.
    figures = {"accuracy": accuracy, "loss": 2.0 - accuracy + 1e-9 * (hash((name, accuracy)) % 97)}
    return {"name": name, "network": network, "stage": stage, **figures, "parameters": 1586, "seconds": 2.0, **more}


def rows(*, alone: float | None, student: float, method: str = "kd", teacher: float | None = 0.98) -> list[dict]:
    """The rows of a run of the default prelude."""
    found = [] if teacher is None else [row("teacher", "teacher", "teacher", teacher, parameters=94762, seconds=9.0)]
    if alone is not None:
        found.append(row("student alone", "baseline", "alone", alone))
    name = f"student with {method}" if method != "ce" else "student"
    return [*found, row(name, "student", "distill", student, seconds=3.0)]


def write_run(
    folder: Path,
    *,
    seed: int | None,
    results: Sequence[Mapping[str, Any]],
    method: str = "kd",
    settings: Mapping[str, Any] | None = None,
    objective: float | None = None,
    state: str = "done",
    reason: str | None = None,
    epochs: int = 3,
    metrics: Sequence[Metric] = METRICS,
    prelude: Sequence[str] = ("teacher", "alone"),
    networks: tuple[str, str] = ("plain_32_64", "plain_8_16"),
) -> Path:
    """Writes a run: its settings are keys with dots, and were typed; networks are teacher and student."""
    folder.mkdir(parents=True)
    teacher, student = networks
    about = {"method": method, "dataset": "digits", "seed": seed, "student": student, "teacher": teacher}
    stages = {each["stage"]: {"seconds": each["seconds"], "trained": [each["network"]]} for each in results}
    if state == "done":
        described = {"metrics": [metric.described() for metric in metrics], "rows": list(results), "stages": stages}
        (folder / "summary.json").write_text(json.dumps({**about, **described, "objective": objective}))
    (folder / "status.json").write_text(json.dumps({"state": state, "reason": reason}))
    config: dict[str, Any] = {"seed": seed, "prelude": {"schedule": list(prelude)}, "cache": {"folder": str(folder)}}
    config |= {key: {"name": about[key]} for key in ("dataset", "teacher", "student", "method")}
    for key, value in (settings or {}).items():
        _put(config, key, value)
    (folder / "config_resolved.yaml").write_text(json.dumps(config))
    overrides = [f"method={method}", *(f"{key}={value}" for key, value in (settings or {}).items()), f"seed={seed}"]
    (folder / ".hydra").mkdir()
    (folder / ".hydra/overrides.yaml").write_text(json.dumps(overrides))
    (folder / "command.txt").write_text(shlex.join(["distill", "-m", *overrides]) + "\n")
    (folder / "env.json").write_text(json.dumps({"host": "here", "cpu": "a processor", "gpus": []}))
    (folder / "git.json").write_text(json.dumps({"commit": "0123456789abcdef", "dirty": False}))
    finals = {each["stage"]: each["accuracy"] for each in results}
    (folder / "metrics.jsonl").write_text("".join(map(sealed_line, _records(finals, epochs=epochs, seed=seed or 0))))
    return folder


def write_sweep(root: Path, *, temperatures: Sequence[float], rates: Sequence[float], seeds: int, epochs: int) -> int:
    """Writes a sweep of KD over two keys and seeds, with one run that failed; says how many runs there are."""
    count = 0
    for temperature in temperatures:
        for rate in rates:
            for seed in range(seeds):
                gain = 0.05 - 0.01 * math.log2(temperature / 4) ** 2 - 2 * (rate - 0.05) ** 2
                alone = 0.80 + 0.011 * seed - 4 * (rate - 0.05) ** 2
                student = alone + gain + 0.002 * ((seed * 7 + count) % 5)
                failed = count == 4
                write_run(
                    root / str(count),
                    seed=seed,
                    results=rows(alone=alone, student=student, teacher=0.97 + 0.001 * seed),
                    settings={f"{KD}.loss.temperature": temperature, "stage.lr": rate},
                    objective=student - 0.01,
                    state="failed" if failed else "done",
                    reason="loss kd is nan in epoch 3" if failed else None,
                    epochs=epochs,
                )
                count += 1
    return count


def evaluation(**more) -> dict[str, Any]:
    """What `distill evaluate --full` writes, of two classes and four images."""
    bins = [{"count": 0, "confidence": None, "accuracy": None}, {"count": 4, "confidence": 0.9, "accuracy": 0.75}]
    calibration = {"ece": 0.15, "mce": 0.15, "confidence": 0.9, "bins": bins}
    shares = ("agreement", "both_right", "only_teacher", "only_student", "both_wrong", "same_mistake")
    return {
        "network": "student", "dataset": "digits", "split": "test", "weights": "w", "count": 4, "left_out": {},
        "figures": {"accuracy": 0.75, "loss": 0.3},
        "per_class": [{"class": "cat", "count": 3, "accuracy": 1.0, "precision": 0.75, "teacher_accuracy": 1.0},
                      {"class": "dog", "count": 1, "accuracy": 0.0, "precision": None, "teacher_accuracy": 1.0}],
        "confusion": [[0, 0, 3], [1, 0, 1]],
        "calibration": calibration, "teacher_calibration": calibration,
        "fidelity": {**dict.fromkeys(shares, 0.25), "kl": 0.5},
        "similarity": {"rows": ["stem", "logits"], "columns": ["logits"], "cka": [[0.2], [0.8]], "images": 4},
        "examples": [{"index": 3, "true": 1, "student": 0, "teacher": 1, "student_confidence": 0.9,
                      "teacher_confidence": 0.8, "image": IMAGE}],
        "costs": [{"network": name, "parameters": count, "bytes": 4 * count, "flops": 3000 * count, "image": "3x8x8",
                   "seconds": {"1": 0.0005, "32": 0.002}, "spread": {"1": 0.0, "32": 0.0}, "on": "a processor"}
                  for name, count in (("student", 1586), ("teacher", 94762))],
        **more,
    }  # fmt: skip


def _records(finals: Mapping[str, float], *, epochs: int, seed: int) -> list[dict[str, Any]]:
    found = []
    for stage, final in finals.items():
        for epoch in range(epochs):
            share = 1 - math.exp(-4 * (epoch + 1) / epochs)
            wave = 0.01 * math.sin(epoch * 1.7 + seed)
            values = {"validation_accuracy": final * share + wave, "loss_total": 2.3 * (1 - share) + 0.1 + wave}
            found.append({"kind": "epoch", "stage": stage, "epoch": epoch, "metrics": values})
    return found


def _put(config: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        config = config.setdefault(part, {})
    config[last] = value
