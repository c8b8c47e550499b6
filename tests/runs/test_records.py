"""Run records: complete, free of secrets, atomic; and one process per run directory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from distill_app.errors import DataError, RunLocked
from distill_app.runs import records
from distill_app.runs.files import write_json
from distill_app.runs.records import git_state, refuse_other_data, refuse_to_judge_on_other_data, write_records
from distill_app.runs.status import Status, run_lock

_CFG = {"seed": 3, "student": {"net": "a"}, "copy": "${student.net}"}


def _write(folder: Path) -> None:
    write_records(folder, cfg=OmegaConf.create(_CFG), command=["distill", "a=b c"], data={"name": "fake", "n": 5})


def test_records_hold_what_is_needed_to_run_again(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("API_TOKEN", "hunter2")
    _write(tmp_path)
    assert OmegaConf.load(tmp_path / "config_resolved.yaml") == {**_CFG, "copy": "a"}
    assert (tmp_path / "command.txt").read_text() == "distill 'a=b c'\n"
    assert json.loads((tmp_path / "data.json").read_text()) == {"name": "fake", "n": 5}
    environment = json.loads((tmp_path / "env.json").read_text())
    assert environment["seed"] == 3 and environment["variables"]["OMP_NUM_THREADS"] == "1"
    assert environment["versions"]["torch"] and "pytest" in environment["packages"]
    assert environment["determinism"]["deterministic_algorithms"] in (True, False)
    assert all("hunter2" not in file.read_text() for file in tmp_path.iterdir())


def _git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package that is not in a repository, in a working directory that may become one."""
    package, work = tmp_path / "site/distill_app", tmp_path / "work"
    package.mkdir(parents=True)
    work.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setattr(records, "__file__", str(package / "records.py"))
    monkeypatch.chdir(work)
    return work


def test_git_state_of_a_changed_repository(outside, tmp_path):
    _git(outside, "init", "-b", "trunk")
    (outside / "a.txt").write_text("one\n")
    _git(outside, "add", ".")
    _git(outside, "commit", "-m", "x")
    state, diff = git_state()
    assert len(state["commit"]) == 40 and state["branch"] == "trunk" and not state["dirty"] and diff == ""
    (outside / "a.txt").write_text("two\n")
    state, diff = git_state()
    assert state["dirty"] and state["changed"] == [" M a.txt"] and "-one\n+two\n" in diff
    _write(tmp_path / "run")
    assert (tmp_path / "run/git.diff").read_text() == diff


def test_records_outside_a_repository_and_without_git(outside, tmp_path, monkeypatch):
    _write(tmp_path / "run")
    assert json.loads((tmp_path / "run/git.json").read_text())["commit"] is None
    monkeypatch.setenv("PATH", str(tmp_path))
    state, diff = git_state()
    assert state["commit"] is None and "git" in state["reason"] and diff == ""


def test_status_is_recorded_with_reason(tmp_path):
    status = Status(tmp_path)
    assert status.read() == {}
    status.set("running", stage="hint")
    status.set("failed", reason="loss kd is nan", epoch=3)
    record = status.read()
    assert (record["state"], record["reason"], record["epoch"]) == ("failed", "loss kd is nan", 3)
    assert record["pid"] == os.getpid() and "stage" not in record
    with pytest.raises(ValueError, match="'broken', allowed are queued, running, done, failed, preempted"):
        status.set("broken")


def test_json_is_replaced_atomically_and_strict(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": float("nan"), "p": Path("x/y"), "b": [1.5, (2,)]})
    assert json.loads(path.read_text()) == {"a": None, "p": "x/y", "b": [1.5, [2]]}
    before = path.read_text()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"a": 1})
    assert path.read_text() == before and os.listdir(tmp_path) == ["a.json"]


_HOLD = """
import os, sys, time
from distill_app.runs.status import run_lock
with run_lock(sys.argv[1]):
    if len(sys.argv) > 2 and os.fork() == 0:
        os.write(1, b"child %d\\n" % os.getpid())
    else:
        os.write(1, b"held\\n")
    time.sleep(30)
"""


def _holder(folder: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", _HOLD, str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _classes(*names: str) -> dict:
    return {"train": {"dataset": "mine", "classes": list(names)}}


def test_a_run_does_not_go_on_with_labels_that_mean_other_classes(tmp_path):
    refuse_other_data(tmp_path, _classes("ant", "bee"))  # nothing was recorded yet
    write_json(tmp_path / "data.json", _classes("ant", "bee"))
    refuse_other_data(tmp_path, _classes("ant", "bee"))
    refuse_other_data(tmp_path, {"train": {"classes": None}, "later": {"classes": ["ant"]}})
    with pytest.raises(DataError, match=r"of stage train .*: ant is gone, aphid is new .*begin a new run"):
        refuse_other_data(tmp_path, _classes("aphid", "bee"))
    with pytest.raises(DataError, match="their order is another"):
        refuse_other_data(tmp_path, _classes("bee", "ant"))


def _shared(train: str, **more) -> dict:
    return {"classes": ["ant", "bee"], "split": {"split_seed": 0, "hash": {"train": train, "test": "t"}, **more}}


def test_networks_are_not_judged_on_images_that_were_drawn_anew(tmp_path, caplog):
    refuse_to_judge_on_other_data(tmp_path, "train", _shared("a"))  # of another version, which recorded nothing
    write_json(tmp_path / "data.json", {"train": _shared("a", images={"train": 8}, of="x")})
    refuse_to_judge_on_other_data(tmp_path, "train", _shared("a", images={"train": 8}, of="x"))
    assert not caplog.records
    for other in (_shared("b", images={"train": 9}, of="x"), _shared("a", images={"train": 9}, of="y")):
        with pytest.raises(DataError, match=r"8 train then, 9 train now .*put the files back .*distill rerun"):
            refuse_to_judge_on_other_data(tmp_path, "train", other)
    with pytest.raises(DataError, match="labels mean others: bee is gone"):
        refuse_to_judge_on_other_data(tmp_path, "train", {**_shared("a"), "classes": ["ant", "cat"]})
    own = {**_shared("b"), "split": {"how": "test is test", "images": {"train": 8, "test": 3}}}
    refuse_to_judge_on_other_data(tmp_path, "train", own)
    assert "8 train then, 8 train, 3 test now" in caplog.text


def test_second_process_is_refused_until_the_first_is_gone(tmp_path):
    holder = _holder(tmp_path)
    assert holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(RunLocked, match=rf"in use by process {holder.pid} on "), run_lock(tmp_path):
            pytest.fail("entered a locked run")
    finally:
        holder.kill()
        holder.communicate()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    with run_lock(tmp_path):
        pass


def test_forked_worker_of_a_killed_process_does_not_keep_the_lock(tmp_path):
    holder = _holder(tmp_path, "fork")
    lines = sorted([holder.stdout.readline().split(), holder.stdout.readline().split()])
    worker = int(lines[0][1])
    holder.kill()
    holder.wait()
    try:
        os.kill(worker, 0)
        with run_lock(tmp_path):
            pass
    finally:
        os.kill(worker, 9)
        holder.stdout.close()
