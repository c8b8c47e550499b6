"""What became of submitted runs: their folders and the scheduler, put together."""

import os
import socket
from pathlib import Path

import pytest

from distill_app.errors import LaunchError
from distill_app.launch import waiting
from distill_app.launch.scheduler import QUEUED, RUNNING, UNKNOWN, alive
from distill_app.launch.waiting import outcome, states, until_over
from distill_app.runs.files import write_json
from distill_app.runs.jobs import JobRecord
from distill_app.runs.status import Status


def submitted(folder: Path, *, state: str | None = "queued", job_id: str = "7_0", cluster: str = "slurm") -> JobRecord:
    folder.mkdir(exist_ok=True)
    job = JobRecord(folder, job_id, cluster, folder.parent / "submitit", socket.gethostname())
    job.write()
    if state is not None:
        Status(folder).set(state)
    return job


def queue(monkeypatch, **jobs: str) -> None:
    """What the scheduler says, by the names of runs."""
    monkeypatch.setattr(
        waiting, "alive", lambda known: {job.run: jobs[job.run.name] for job in known if job.run.name in jobs}
    )


@pytest.mark.parametrize(
    ("own", "job", "together"),
    [
        ("queued", QUEUED, "queued"),
        ("queued", RUNNING, "starting"),
        ("queued", None, "lost"),
        ("queued", UNKNOWN, "queued"),
        ("running", RUNNING, "running"),
        ("preempted", QUEUED, "requeued"),
        ("preempted", None, "preempted"),
        ("failed", None, "failed"),
        ("refused", None, "refused"),
        ("done", RUNNING, "done"),
        ("done", QUEUED, "done"),
        (None, RUNNING, "starting"),
        (None, None, "not submitted"),
    ],
)
def test_a_state_is_made_of_what_the_folder_and_the_scheduler_say(tmp_path, monkeypatch, own, job, together):
    submitted(tmp_path / "run", state=own)
    queue(monkeypatch, **({"run": job} if job else {}))
    assert states([tmp_path / "run"]) == {tmp_path / "run": together}


def test_a_queued_run_whose_job_was_cancelled_says_so(tmp_path, monkeypatch):
    submitted(tmp_path / "run").note_cancelled()
    queue(monkeypatch)
    assert states([tmp_path / "run"]) == {tmp_path / "run": "cancelled"}


def test_a_run_on_another_machine_without_a_job_has_died(tmp_path, monkeypatch):
    submitted(tmp_path / "run")
    record = {"state": "running", "host": "elsewhere", "pid": 1}
    write_json(tmp_path / "run/status.json", record)
    queue(monkeypatch)
    assert states([tmp_path / "run"]) == {tmp_path / "run": "died"}
    queue(monkeypatch, run=RUNNING)
    assert states([tmp_path / "run"]) == {tmp_path / "run": "running"}


def test_waiting_ends_when_nothing_goes_on_and_not_between_a_save_and_the_next_start(tmp_path, monkeypatch):
    submitted(tmp_path / "run", state="preempted")
    looks = iter([{"run": RUNNING}, {}, {"run": QUEUED}, {"run": RUNNING}, {}, {}])

    def look(known):
        now = next(looks)
        return {job.run: now[job.run.name] for job in known if job.run.name in now}

    monkeypatch.setattr(waiting, "alive", look)
    assert until_over([tmp_path / "run"], every=0) == {tmp_path / "run": "preempted"}
    assert next(looks, None) is None


def test_a_scheduler_that_does_not_answer_is_asked_again_for_a_while(tmp_path, monkeypatch, caplog):
    submitted(tmp_path / "run", state="done")
    answers = iter(["busy", "busy", {}])

    def look(known):
        if (answer := next(answers)) == "busy":
            raise LaunchError("squeue failed: Socket timed out")
        return answer

    monkeypatch.setattr(waiting, "alive", look)
    assert until_over([tmp_path / "run"], every=0) == {tmp_path / "run": "done"}
    assert caplog.text.count("Socket timed out; asking again for 10 minutes") == 1
    answers = iter(["busy", "busy", {}])
    monkeypatch.setattr(waiting, "_PATIENCE", 0.0)
    with pytest.raises(LaunchError, match="Socket timed out"):
        until_over([tmp_path / "run"], every=0.01)


def test_the_outcome_of_a_failed_run_has_its_reason_or_the_last_line_of_its_log(tmp_path):
    job = submitted(tmp_path / "run", state=None)
    job.files.mkdir()
    job.stderr.write_text("Traceback\nModuleNotFoundError: no module\n\n")
    with pytest.raises(LaunchError, match=r"job 7_0 failed: ModuleNotFoundError: no module; .*distill logs"):
        outcome(tmp_path / "run")
    Status(tmp_path / "run").set("failed", reason="the loss is not finite")
    with pytest.raises(LaunchError, match="the loss is not finite"):
        outcome(tmp_path / "run")


def command(tmp_path: Path, monkeypatch, name: str, script: str) -> None:
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_job_of_the_same_number_but_other_files_is_not_the_runs_job(tmp_path, monkeypatch):
    one, other = submitted(tmp_path / "a"), submitted(tmp_path / "b", job_id="7_1")
    lines = f"echo '7_0|RUNNING|{one.files}/x.sh'; echo '7_1|RUNNING|/home/other/x.sh'"
    command(tmp_path, monkeypatch, "squeue", lines)
    assert alive([one, other]) == {one.run: RUNNING}


def test_a_scheduler_that_fails_is_an_error_and_none_at_all_is_unknown(tmp_path, monkeypatch):
    job = submitted(tmp_path / "a")
    command(tmp_path, monkeypatch, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(LaunchError, match="squeue failed: Unable to contact"):
        alive([job])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert alive([job]) == {job.run: UNKNOWN}


def test_a_local_job_is_a_process_of_submitit_for_these_files(tmp_path):
    assert alive([submitted(tmp_path / "a", job_id=str(os.getpid()), cluster="local")]) == {}
