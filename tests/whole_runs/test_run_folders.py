"""A run folder that exists: the same experiment is found or goes on, any other is refused, from every entrance."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill_app import compose, run
from distill_app.errors import OtherExperiment
from distill_app.runs.status import Status, state_of

SMALL = ("prelude=none", "debug=one_batch")


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny) -> Path:
    folder = tmp_path_factory.mktemp("folders") / "run"
    run(compose([*tiny, *SMALL]), output_dir=str(folder))
    return folder


@pytest.mark.slow
def test_the_same_config_again_is_one_line_with_its_result(distill, finished, tiny):
    before = files(finished)
    code, out, err = distill(*tiny, *SMALL, f"hydra.run.dir={finished}", "runtime.num_workers=2", "runtime.log_every=9")
    accuracy = json.loads((finished / "summary.json").read_text())["rows"][0]["accuracy"]
    assert (code, err) == (0, "")
    assert (
        out.startswith(f"finished already: {finished}: student with kd {100 * accuracy:.2f}%") and out.count("\n") == 1
    )
    assert files(finished) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed", [["seed=1"], ["method=at"], ["dataset=fake"], ["stage.lr=0.123", "seed=3"]], ids=str
)
def test_another_config_is_refused_before_anything_is_touched(distill, finished, tiny, changed):
    before = files(finished)
    code, out, err = distill(*tiny, *SMALL, *changed, f"hydra.run.dir={finished}")
    assert code == 2 and out == "" and "Traceback" not in err
    assert err.startswith(f"error: {finished} holds another experiment (done); ") and "hydra.run.dir=..." in err
    for key in (each.partition("=")[0] for each in changed):
        assert f"  {key}: " in err
    assert files(finished) == before


def test_from_python_another_config_is_refused_too(finished, tiny):
    before = files(finished)
    with pytest.raises(OtherExperiment, match=r"seed: 0 -> 5(.|\n)*output_dir=\.\.\."):
        run(compose([*tiny, *SMALL, "seed=5"]), output_dir=str(finished))
    assert files(finished) == before


@pytest.mark.slow
def test_a_dry_run_prints_the_plan_whatever_lies_there(distill, finished, tiny):
    before = files(finished)
    code, out, _ = distill(*tiny, *SMALL, "seed=1", "dry_run=true", f"hydra.run.dir={finished}")
    assert code == 0 and "stage distill: " in out
    assert files(finished) == before


@pytest.mark.slow
def test_hydras_records_are_those_of_the_run(distill, tmp_path, tiny):
    folder = tmp_path / "run"
    assert distill(*tiny, *SMALL, "seed=4", f"hydra.run.dir={folder}")[0] == 0
    assert "- seed=4\n" in (folder / ".hydra" / "overrides.yaml").read_text()
    assert "num_classes: ${dataset.num_classes}" in (folder / ".hydra" / "config.yaml").read_text()
    assert "choices:" in (folder / ".hydra" / "hydra.yaml").read_text()


def test_a_config_that_the_check_refuses_leaves_no_trace(distill, tmp_path, tiny):
    folder = tmp_path / "run"
    assert distill(*tiny, *SMALL, "stage.lr=-1", f"hydra.run.dir={folder}")[0] == 2
    assert not folder.exists()


@pytest.mark.slow
def test_a_run_that_was_killed_is_dead_to_readers_goes_on_and_takes_no_other_config(distill, tmp_path, tiny):
    folder = tmp_path / "run"
    words = [*tiny, "prelude=none", "stage.epochs=100000", f"hydra.run.dir={folder}"]
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "distill_app", *words]
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (folder / "checkpoints" / "last.mark").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert state_of(Status(folder).read()) == "running"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert state_of(Status(folder).read()) == "died"
    before = files(folder)
    code, _, err = distill(*words, "seed=1")
    assert code == 2 and "holds another experiment (died)" in err and f"distill resume {folder}" in err
    assert files(folder) == before
    code, out, _ = distill("report", str(tmp_path))
    assert "died: process" in out and "distill resume" in out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a pipe of bash")
def test_training_goes_on_when_nobody_reads_any_more(tmp_path, tiny):
    words = " ".join([*tiny, "prelude=none", "stage.epochs=3", "hydra.run.dir=run"])
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = f"set -o pipefail; {sys.executable} -m distill_app {words} 2>&1 | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1 and done.stderr == ""
    assert Status(tmp_path / "run").read()["state"] == "done"
    log = (tmp_path / "run" / "train.log").read_text()
    assert "distill epoch 3/3" in log and "BrokenPipe" not in log


@pytest.mark.slow
def test_an_interrupted_command_says_how_to_go_on(tmp_path, tiny):
    folder = tmp_path / "run"
    words = [*tiny, "prelude=none", "stage.epochs=100000", f"hydra.run.dir={folder}"]
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "distill_app", *words]
    process = subprocess.Popen(
        command,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Shells start what they put into the background with this signal ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (folder / "checkpoints" / "last.mark").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith(f"to go on: distill resume {folder}\n") and "interrupted by SIGINT" in err
    status = Status(folder).read()
    assert status["state"] == "preempted" and status["reason"].startswith("SIGINT: ")
