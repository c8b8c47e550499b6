"""What one rank does is the end of all of them, soon, and the cause stands in the status and on the terminal."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ranks_fixtures import environment, free_port

from distill_app.runs.status import state_of

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
TINY = ("dataset=digits", "stage=digits", "model@teacher=plain_32_64_128", "model@student=plain_8_16", "prelude=none")
TINY = (*TINY, "teacher.allow_random=true", "method=kd", "tracker=none", "stage.batch_size=64")
TWO = ("launcher=ddp", "launcher.tasks_per_node=2")
LOSS = "loss: {_target_: faulty.Faulty, how: raise, rank: 1}\ninputs: {input: student.logits}\n"


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "distill_app", *overrides]


def alone() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE), "CUDA_VISIBLE_DEVICES": ""}


def status(run: Path) -> dict:
    return json.loads((run / "status.json").read_text())


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def started(run: Path, *overrides: str) -> Iterator[subprocess.Popen]:
    """A run of two ranks that has taken some steps."""
    line = command(*TINY, *TWO, *overrides, f"hydra.run.dir={run}")
    process = subprocess.Popen(line, env=alone(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline, metrics = time.monotonic() + 120, run / "metrics.jsonl"
        while not metrics.exists() or metrics.read_text().count("\n") < 5:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
            time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("raise", "rank 1: ValueError: no such luck"),
        ("kill", "rank 1 (process "),
        ("hang", "hangs: the others wait for it (rank 1 is in forward of"),
        ("nan", "on rank 1: bad (ce = "),
    ],
)
def test_one_rank_ends_all_and_its_cause_is_told(tmp_path, how, cause):
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "bad.yaml").write_text(LOSS)
    key, run = "method.stages.distill.losses.bad", tmp_path / "run"
    own = (f"+loss@{key}=bad", f"{key}.loss.how='{how}'", "runtime.allow=[faulty]", "stage.epochs=60")
    line = command("--config-dir", str(tmp_path), *TINY, *TWO, *own, f"hydra.run.dir={run}")
    began = time.monotonic()
    done = subprocess.run(line, env=alone(), capture_output=True, text=True, timeout=150, check=False)
    seconds, told = time.monotonic() - began, status(run)
    assert done.returncode == 1 and told["state"] == "failed"
    assert cause in told["reason"]
    assert told["reason"].split(": ", 1)[-1][:60] in done.stderr or "rank 1 (process" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["timing"]["time"]
    assert time.time() - last < 40 and seconds < 120


def test_a_signal_stops_all_ranks_at_one_step_and_the_run_goes_on(tmp_path):
    run, shape = tmp_path / "run", ("stage.epochs=40", "stage.batch_size=16", "runtime.log_every=1")
    with started(run, *shape) as process:
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 143 and status(run)["state"] == "preempted"
    assert "saved distill/epoch_" in status(run)["reason"] and "distill resume" in output
    done = subprocess.run(
        command(*TINY, *TWO, *shape, "stage.epochs=40", f"hydra.run.dir={run}"),
        env=alone(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "going on after" in done.stdout and status(run)["state"] == "done"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    places = [(each["epoch"], each["step"]) for each in steps if each["kind"] == "step"]
    assert places == sorted(set(places)) and len(places) % 40 == 0, "no step twice, none left out"


def test_a_signal_to_one_rank_alone_stops_all(tmp_path):
    with started(tmp_path / "run", "stage.epochs=400", "stage.batch_size=16") as process:
        os.kill(children(process.pid)[1], signal.SIGTERM)
        process.communicate(timeout=60)
    assert status(tmp_path / "run")["state"] == "preempted"


@pytest.mark.parametrize(
    ("when", "saved"),
    [("rank: 0", "epoch_0001"), ("rank: 1", "epoch_0001"), ("saving: 1", "epoch_0000_step_0000002")],
    ids=["first rank", "second rank", "while the first one saves what is due"],
)
def test_a_signal_that_one_rank_sees_before_the_others_is_saved_by_all(tmp_path, when, saved):
    (tmp_path / "scheduler").mkdir()
    schedule = f"{{_target_: faulty.Signalled, _partial_: true, {when}}}"
    (tmp_path / "scheduler" / "signalled.yaml").write_text(f"interval: epoch\nschedule: {schedule}\n")
    own = ("scheduler@stage.scheduler=signalled", "runtime.allow=[faulty]", "stage.epochs=4")
    own = (*own, "checkpoint.every_steps=1")
    line = command("--config-dir", str(tmp_path), *TINY, *TWO, *own, f"hydra.run.dir={tmp_path / 'run'}")
    done = subprocess.run(line, env=alone(), capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 143, done.stderr
    assert status(tmp_path / "run")["reason"] == f"SIGTERM: saved distill/{saved}"


def test_no_rank_outlives_the_process_that_started_it(tmp_path):
    with started(tmp_path / "run", "stage.epochs=400", "stage.batch_size=16") as process:
        ranks = children(process.pid)
        process.kill()
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{rank}").exists() for rank in ranks):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert state_of(status(tmp_path / "run")) in ("preempted", "failed")


def test_torchrun_starts_the_same_run(tmp_path):
    run, port = tmp_path / "run", free_port()
    line = command(*TINY, "stage.epochs=1", f"hydra.run.dir={run}")
    ranks = [
        subprocess.Popen(
            line, env=environment(rank, 2, port), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for rank in range(2)
    ]
    output = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(output)
    assert "student with kd" in output[0] and "student with kd" not in output[1]
    assert status(run)["state"] == "done" and (run / "student.pt").exists()
