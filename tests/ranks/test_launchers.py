"""A run of two processes by the launchers of this machine, and what `distill resume` makes of it."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def distill(*words):
    return subprocess.run(
        [sys.executable, "-m", "distill_app", *words], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def line(tiny, tmp_path):
    return (
        *tiny,
        "prelude=none",
        "method=kd",
        "stage.epochs=2",
        "stage.batch_size=16",
        f"hydra.run.dir={tmp_path}/run",
    )


def test_a_detached_job_of_two_tasks(line, tmp_path):
    two = ("launcher=submitit_local", "launcher.tasks_per_node=2", "launcher.wait=true")
    done = distill(*line, *two)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert "2 processes, 8 samples of a batch each" in (run / "train.log").read_text()
    assert len(list((run / "submitit").glob("*_log.out"))) == 2


def test_a_sweep_by_two_processes_goes_on_past_a_point_that_fails(line, tmp_path):
    two = ("launcher=ddp", "launcher.tasks_per_node=2", "stage.lr=0.1,1e30", "runtime.log_every=1")
    done = distill("-m", *line[:-1], *two, f"hydra.sweep.dir={tmp_path}")
    assert done.returncode == 1
    states = [json.loads((tmp_path / str(point) / "status.json").read_text())["state"] for point in range(2)]
    assert states == ["done", "failed"]
    assert "is not finite in stage 'distill'" in done.stderr and "Traceback" not in done.stderr


def test_a_run_goes_on_with_another_number_of_processes(line, tmp_path):
    run = tmp_path / "run"
    assert distill(*line).returncode == 0
    (run / "summary.json").unlink()
    (run / "status.json").unlink()
    odd = distill("resume", str(run), "--processes", "3")
    assert odd.returncode == 2 and "cannot be shared out evenly among 3" in odd.stderr
    again = distill("resume", str(run), "--processes", "2")
    assert again.returncode == 0, again.stderr
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert "student with kd" in again.stdout
