"""Interrupted runs go on where they were saved last and end as if nothing had happened, to the bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from engine_fixtures import DIGITS, QUIET, equal, metrics, run

from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.statefile import load_file
from distill_app.runs.status import Status
from distill_app.training import outcome as outcome_module
from distill_app.training import runner as runner_module
from distill_app.training.optimize import Optimization
from distill_app.verbs import call

SLOW = pytest.mark.slow

# Two stages of two batches: steps 1-4 train the paraphraser, which stage 2 reads, and steps 5-10 the student.
FT = ("method=ft", "method.stages.paraphrase.epochs=2", "stage.epochs=3")


class Interrupted(Exception):
    """What stops a run in these tests."""


@pytest.fixture(autouse=True, scope="module")
def no_plots():
    # Drawing is a third of the time of runs as small as these, and plays no part here.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_app.training.outcome.final_plot", lambda folder: folder)
        yield


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(folder, *FT)
    return folder


def stop_at_step(patch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
    """Raises in the place of the optimiser step of that number."""
    original, count = Optimization.step, iter(range(1, 10_000))

    def step(self):
        if next(count) == number:
            raise error
        original(self)

    patch.setattr(Optimization, "step", step)


def stop_in(patch: pytest.MonkeyPatch, owner: object, name: str, *, call: int = 1, after: bool = False) -> None:
    """Raises in the place of a call of a function, or right after it."""
    original, count = getattr(owner, name), iter(range(1, 10_000))

    def stopping(*args, **kwargs):
        now = next(count) == call
        if now and not after:
            raise Interrupted(name)
        result = original(*args, **kwargs)
        if now:
            raise Interrupted(name)
        return result

    patch.setattr(owner, name, stopping)


def assert_same_outcome(folder: Path, reference: Path) -> None:
    for file in ("student.pt",):
        assert equal(load_file(folder / file), load_file(reference / file))
    mine, theirs = (Checkpoints(place / "checkpoints").load("last") for place in (folder, reference))
    for kind in ("networks", "adapters", "losses"):
        assert mine["parts"][kind].keys() == theirs["parts"][kind].keys()
        for name, state in mine["parts"][kind].items():
            assert equal(state, theirs["parts"][kind][name]), (kind, name)
    assert metrics(folder) == metrics(reference)
    rows, expected = (_without_clock(place) for place in (folder, reference))
    assert rows == expected


def _without_clock(folder: Path) -> list[dict]:
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.parametrize("step", [pytest.param(1, marks=SLOW), 4, 6, pytest.param(9, marks=SLOW)])
def test_a_run_that_broke_off_in_an_epoch_ends_the_same(tmp_path, uninterrupted, step):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        stop_at_step(patch, step, Interrupted())
        run(tmp_path, *FT)
    run(tmp_path, *FT)
    assert_same_outcome(tmp_path, uninterrupted)


@pytest.mark.parametrize(
    ("owner", "name", "call", "after"),
    [
        pytest.param(
            runner_module.StageRunner, "save", 2, False, id="before the last checkpoint of stage 1", marks=SLOW
        ),
        pytest.param(runner_module.StageRunner, "save", 2, True, id="after the last checkpoint of stage 1"),
        pytest.param(runner_module.StageRunner, "begin", 2, False, id="between the stages", marks=SLOW),
        pytest.param(
            runner_module.StageRunner, "save", 3, True, id="after the first checkpoint of stage 2", marks=SLOW
        ),
        pytest.param(runner_module.StageRunner, "conclude", 1, False, id="before the test", marks=SLOW),
        pytest.param(outcome_module, "save_weights", 1, False, id="after the test"),
    ],
)
@pytest.mark.slow
def test_a_run_that_broke_off_between_epochs_ends_the_same(tmp_path, uninterrupted, owner, name, call, after):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        stop_in(patch, owner, name, call=call, after=after)
        run(tmp_path, *FT)
    run(tmp_path, *FT)
    assert_same_outcome(tmp_path, uninterrupted)


@SLOW
def test_averages_of_a_stage_that_is_over_are_tested_and_exported_by_a_run_that_goes_on(tmp_path):
    averaged = (*FT, "method.stages.distill.ema.decay=0.9")
    run(tmp_path / "whole", *averaged)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        stop_in(patch, runner_module.StageRunner, "conclude")
        run(tmp_path / "resumed", *averaged)
    run(tmp_path / "resumed", *averaged)
    assert_same_outcome(tmp_path / "resumed", tmp_path / "whole")
    assert (tmp_path / "resumed" / "student_ema.pt").is_file()


@SLOW
def test_a_run_may_break_off_again_and_again(tmp_path, uninterrupted):
    for step in (4, 3, 2, 3):  # counted from each resume
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
            stop_at_step(patch, step, Interrupted())
            run(tmp_path, *FT)
    run(tmp_path, *FT)
    assert_same_outcome(tmp_path, uninterrupted)


@pytest.mark.slow
def test_a_damaged_last_checkpoint_costs_an_epoch_and_changes_nothing(tmp_path, uninterrupted):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        stop_at_step(patch, 9, Interrupted())
        run(tmp_path, *FT)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    file = checkpoints.folder / checkpoints.resolve("last") / "state.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    run(tmp_path, *FT)
    assert "WARNING warning: checkpoint last: " in (log := (tmp_path / "train.log").read_text())
    assert "does not match the sha256 of its manifest" in log
    assert_same_outcome(tmp_path, uninterrupted)


@pytest.mark.slow
def test_resume_verb_goes_on_with_the_stored_config(tmp_path, uninterrupted, capsys):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        stop_at_step(patch, 6, Interrupted())
        run(tmp_path, *FT)
    assert call("resume", [str(tmp_path)]) == 0
    assert "going on after epoch 2 of stage paraphrase" in capsys.readouterr().out
    assert_same_outcome(tmp_path, uninterrupted)
    assert call("resume", [str(tmp_path)]) == 0
    assert "is finished" in capsys.readouterr().out


# What makes state beyond weights: momentum of Adam, a schedule by step behind a warm-up, choosing the best epoch.
STATEFUL = (
    "method=takd",
    "model@method.extra_models.assistant=plain_8_16",
    "optimizer@stage.optimizer=adam",
    "stage.lr=0.01",
    "stage.warmup_epochs=1",
    "stage.epochs=4",
    "stage.select=best",
    "stage.batch_size=32",
    "stage.accumulation_steps=3",
    "stage.clip_grad_norm=1.0",
)


@pytest.mark.parametrize("step", [pytest.param(7, marks=SLOW), 12, pytest.param(15, marks=SLOW)])
@pytest.mark.slow
def test_optimiser_schedule_and_best_epoch_survive(tmp_path, step):
    run(tmp_path / "uninterrupted", *STATEFUL)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        stop_at_step(patch, step, Interrupted())
        run(tmp_path / "resumed", *STATEFUL)
    run(tmp_path / "resumed", *STATEFUL)
    assert_same_outcome(tmp_path / "resumed", tmp_path / "uninterrupted")


@pytest.mark.slow
def test_a_finished_run_is_left_as_it_is(tmp_path, monkeypatch):
    summary = run(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}

    def no_training(*args, **kwargs):
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(runner_module, "EpochTraining", no_training)
    assert run(tmp_path) == json.loads(json.dumps(summary))
    assert times == {path: path.stat().st_mtime_ns for path in times}


@pytest.mark.slow
def test_status_says_running_then_failed_with_the_reason_then_running_then_done(tmp_path, monkeypatch):
    states = []
    original = Status.set
    monkeypatch.setattr(Status, "set", lambda self, state, **kw: (states.append(state), original(self, state, **kw)))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        stop_at_step(patch, 3, Interrupted("out of coffee"))
        run(tmp_path)
    status = Status(tmp_path).read()
    assert (status["state"], status["reason"]) == ("failed", "Interrupted: out of coffee")
    run(tmp_path)
    assert Status(tmp_path).read()["state"] == "done"
    assert states == ["running", "failed", "running", "done"]


def test_status_says_that_the_user_interrupted(tmp_path):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at_step(patch, 3, KeyboardInterrupt())
        run(tmp_path)
    status = Status(tmp_path).read()
    assert (status["state"], status["reason"]) == ("failed", "interrupted")


@pytest.mark.slow
@pytest.mark.parametrize("select", ["best", pytest.param("last", marks=SLOW)])
def test_a_stage_hands_on_the_weights_of_the_epoch_it_selects(tmp_path, select):
    overrides = (
        "method=takd",
        "model@method.extra_models.assistant=plain_8_16",
        "scheduler@stage.scheduler=constant",
        "stage.lr=0.5",
        "stage.epochs=8",
        f"stage.select={select}",
    )
    summary = run(tmp_path, *overrides)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    epochs = [r for r in metrics(tmp_path) if r["kind"] == "epoch" and r["stage"] == "assist"]
    accuracies = [record["metrics"]["validation_accuracy"] for record in epochs]
    best = accuracies.index(max(accuracies))
    assert best != 7, "the test needs a stage whose best epoch is not its last"
    assert checkpoints.load("assist/best")["progress"]["best_epoch"] == best
    assert checkpoints.load("assist/last")["progress"]["epoch"] == 8
    chosen = checkpoints.load(f"assist/{select}")["parts"]["networks"]["assistant"]
    assert equal(load_file(tmp_path / "assistant.pt"), chosen)
    assert equal(checkpoints.load("last")["parts"]["networks"]["assistant"], chosen)
    assert summary["stages"]["assist"]["best"] == max(accuracies)
    assert summary["stages"]["assist"]["last"] == accuracies[-1]


@pytest.mark.slow
def test_every_stage_keeps_its_last_and_its_best_checkpoint(tmp_path):
    run(tmp_path, *FT)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    marks = ["last", *(f"{name}/{mark}" for name in ("paraphrase", "distill") for mark in ("best", "last"))]
    assert sorted(checkpoints.marks()) == sorted(marks)
    assert checkpoints.resolve("last") == checkpoints.resolve("distill/last") == "distill/epoch_0002"


@SLOW
def test_a_killed_process_goes_on_and_ends_the_same(tmp_path):
    words = [
        *DIGITS,
        *QUIET,
        "method=ft",
        "method.stages.paraphrase.epochs=3",
        "stage.epochs=60",
        "runtime.num_workers=2",
        "dataset.resident=false",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "distill_app"]

    def place(name: str) -> str:
        return f"hydra.run.dir={tmp_path / name}"

    subprocess.run([*program, *words, place("whole")], env=environment, check=True, capture_output=True)
    killed = subprocess.Popen(
        [*program, *words, place("killed")], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    log, until = tmp_path / "killed" / "metrics.jsonl", time.monotonic() + 120
    while not (log.exists() and '"stage": "distill", "epoch": 5' in log.read_text()):
        assert killed.poll() is None, "ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert Status(tmp_path / "killed").read()["state"] == "running"
    assert not (tmp_path / "killed" / "summary.json").exists()
    resumed = subprocess.run(
        [*program, "resume", str(tmp_path / "killed")], env=environment, check=True, capture_output=True, text=True
    )
    assert "going on after epoch" in resumed.stdout
    assert_same_outcome(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_checkpoints_hold_tensors_and_plain_types_only(tmp_path):
    run(tmp_path, *FT)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for name in checkpoints.names():
        torch.load(checkpoints.folder / name / "state.pt", weights_only=True)
