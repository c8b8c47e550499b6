"""Signals: a run finishes its step, saves, says how to go on, and goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_fixtures import DIGITS, metrics

from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.status import Status
from scripts.stress.outcome import differences

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
# Some hundred short steps in two epochs: a signal comes in the midst of one.
WORKERS = ("runtime.num_workers=2", "dataset.resident=false")
LONG = (
    *DIGITS,
    "method=kd",
    "stage.batch_size=4",
    "dataset.student_labels_per_class=40",
    "runtime.threads=1",
    "runtime.log_every=1",
    "runtime.device=cpu",
)


def started(folder: Path, *overrides: str, group: bool = False) -> subprocess.Popen[str]:
    """A run as a process of its own."""
    command = [sys.executable, "-m", "distill_app", *LONG, *overrides, f"hydra.run.dir={folder}"]
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=folder.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=group,
        preexec_fn=heeding,
    )


def heeding() -> None:
    """Shells and nohup start processes with these signals ignored, and children inherit that."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def until(condition: Callable[[], bool], *, seconds: float = 120) -> None:
    """Waits."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def records(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert started(folder).wait() == 0
    return folder


@pytest.mark.parametrize(
    ("number", "code", "more"),
    [
        (signal.SIGTERM, 143, ()),
        (signal.SIGINT, 130, WORKERS),
        (signal.SIGHUP, 129, ()),
        (signal.SIGTERM, 143, WORKERS),
    ],
    ids=["SIGTERM", "SIGINT to all processes", "SIGHUP", "SIGTERM to all processes"],
)
def test_a_signal_ends_the_run_behind_its_step_and_it_goes_on_from_there(tmp_path, reference, number, code, more):
    folder = tmp_path / "run"
    process = started(folder, *more, group=True)
    until(lambda: records(folder) >= 30)
    if more:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"{number.name}: finishing the step" in err and f"to go on: distill resume {folder}" in err
    status = Status(folder).read()
    (name,) = [name for name in Checkpoints(folder / "checkpoints").names() if "_step_" in name]
    assert (status["state"], status["reason"]) == ("preempted", f"{number.name}: saved {name}")
    assert int(name.rpartition("_")[2]) == records(folder), "the last step that was logged is not in the checkpoint"
    log = (folder / "train.log").read_text()
    assert "saving" in log and f"saved {name}: " in log
    assert started(folder, *more).wait() == 0
    assert differences(folder, reference) == []


def test_a_signal_while_an_epoch_is_judged_keeps_its_steps(tmp_path, reference):
    folder = tmp_path / "run"
    (tmp_path / "waiting.py").write_text(JUDGING)
    waiting = ("dataset.task._target_=waiting.Slow", "runtime.allow=[waiting]")
    process = started(folder, *waiting)
    until(lambda: (tmp_path / "judging").exists())
    steps = records(folder)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    (name,) = Checkpoints(folder / "checkpoints").names()
    assert name == f"distill/epoch_0000_step_{steps:07d}"
    (tmp_path / "no hurry").touch()
    assert started(folder, *waiting).wait() == 0
    assert metrics(folder) == metrics(reference)


JUDGING = """
import pathlib, time
from distill_app.tasks import Classification

class Slow(Classification):
    def start(self):
        if pathlib.Path("run/metrics.jsonl").exists():  # not in the rehearsal
            pathlib.Path("judging").touch()
            while not pathlib.Path("no hurry").exists():
                time.sleep(0.01)
        return super().start()
"""


def test_a_second_signal_ends_the_run_at_once_and_status_says_so(tmp_path):
    folder = tmp_path / "run"
    (tmp_path / "waiting.py").write_text(STEP)
    process = started(folder, "method.stages.distill.losses.kd.loss._target_=waiting.Loss", "runtime.allow=[waiting]")
    until(lambda: (tmp_path / "training").exists())
    process.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    assert process.poll() is None, "the step is not over"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 143 and "SIGTERM again: ended at once" in err
    status = Status(folder).read()
    assert (status["state"], status["reason"]) == ("failed", "a second SIGTERM ended it before it had saved")


STEP = """
import pathlib, time
from distill_app.losses import KLDivergence

class Loss(KLDivergence):
    def forward(self, student, teacher):
        if student.requires_grad and len(student) == 4:
            pathlib.Path("training").touch()
            time.sleep(30)
        return super().forward(student, teacher)
"""


def test_a_job_that_is_told_to_make_room_saves_is_queued_again_and_ends_the_same(tmp_path, reference):
    folder = tmp_path / "run"
    assert started(folder, "launcher=submitit_local").wait() == 0
    until(lambda: records(folder) >= 30)
    os.kill(Status(folder).read()["pid"], signal.SIGUSR2)
    until(lambda: "going on after step" in (folder / "train.log").read_text())
    assert "interrupted by SIGUSR2: saved distill/epoch_0000_step_" in (folder / "train.log").read_text()
    until(lambda: Status(folder).read().get("state") == "done")
    assert differences(folder, reference) == []


def test_a_local_job_is_cancelled_and_retried(tmp_path, distill):
    folder = tmp_path / "run"
    assert started(folder, "launcher=submitit_local", "stage.epochs=30").wait() == 0
    until(lambda: records(folder) >= 30)
    code, out, _ = distill("cancel", str(folder))
    assert code == 0 and "(running): run" in out
    assert distill("wait", str(folder), "--every", "0.2")[0] == 1
    assert Status(folder).read()["reason"].startswith("SIGTERM: saved distill/epoch_")
    code, out, err = distill("retry", str(folder))
    assert code == 0 and "submitted job" in out, err
    assert distill("wait", str(folder), "--every", "0.2")[0] == 0
    assert "going on after step" in (folder / "train.log").read_text()
    assert [job["state"] for job in json.loads(distill("jobs", str(folder), "--json")[1])] == ["done"]


def test_a_killed_process_that_loads_is_told_in_words_wherever_the_run_is(tmp_path):
    folder = tmp_path / "run"
    process = started(folder, *WORKERS, "stage.epochs=50")
    until(lambda: records(folder) >= 30)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in err
    assert "runtime.num_workers=2: a data loading worker died" in err
    status = Status(folder).read()
    assert status["state"] == "failed" and "a data loading worker died" in status["reason"]


def test_a_run_that_is_to_ignore_a_signal_ignores_it(tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "distill_app", *LONG, f"hydra.run.dir={folder}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # nohup
    )
    until(lambda: records(folder) >= 5)
    process.send_signal(signal.SIGHUP)
    assert process.wait() == 0
    assert json.loads((folder / "summary.json").read_text())["rows"]
