"""The verbs about jobs: jobs, logs, cancel, wait, retry; on folders, with stand-ins for SLURM's commands."""

import json
import os
import socket
from pathlib import Path

import pytest
from engine_fixtures import resolved

from distill_app.runs.claim import claim
from distill_app.runs.jobs import JobRecord, read_job
from distill_app.runs.status import Status
from distill_app.verbs import logs, retry

SLURM = ("launcher=slurm", "launcher.gpus_per_node=null")


@pytest.fixture
def sweep(tmp_path, monkeypatch) -> Path:
    """Four points: done, queued, running, failed."""
    commands, root = tmp_path / "bin", tmp_path / "sweep"
    commands.mkdir()
    files = root / "submitit"
    queue = f"7_1|PENDING|{files}/7_submission.sh\n7_2|RUNNING|{files}/7_submission.sh"
    for number, state in enumerate(("done", "queued", "running", "failed")):
        run = root / str(number)
        claim(run, resolved(f"seed={number}", *SLURM))
        JobRecord(run, f"7_{number}", "slurm", files, socket.gethostname()).write()
        Status(run).set(state, reason="no luck" if state == "failed" else None)
    (root / "0/summary.json").write_text('{"rows": []}')
    (tmp_path / "queue").write_text(queue)
    scripts = {
        "squeue": f"cat '{tmp_path}/queue'",
        "scancel": f"echo \"$@\" > '{tmp_path}/cancelled'",
        "srun": "true",
        "sbatch": f"cat \"$1\" > '{tmp_path}/batch'; echo Submitted batch job 99",
    }
    for name, text in scripts.items():
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    return root


def test_jobs_lists_what_each_does(sweep, distill):
    code, out, _ = distill("jobs", str(sweep), "--json")
    told = json.loads(out)
    assert code == 0 and [each["state"] for each in told] == ["done", "queued", "running", "failed"]
    assert [each["job_id"] for each in told] == ["7_0", "7_1", "7_2", "7_3"] and told[3]["reason"] == "no luck"
    code, out, _ = distill("jobs", str(sweep))
    assert code == 0 and "4 runs: 1 done, 1 queued, 1 running, 1 failed" in out
    assert f"distill retry {sweep}" in out


def test_cancel_ends_what_is_queued_or_running_and_nothing_else(sweep, distill, tmp_path):
    code, out, _ = distill("cancel", str(sweep))
    assert code == 0 and out.splitlines() == ["cancelled job 7_1 (queued): 1", "cancelled job 7_2 (running): 2"]
    assert (tmp_path / "cancelled").read_text() == "7_1 7_2\n"
    (tmp_path / "queue").write_text("")
    assert [each["state"] for each in json.loads(distill("jobs", str(sweep), "--json")[1])][1] == "cancelled"
    assert distill("cancel", str(sweep))[1] == "nothing is queued or running\n"


def test_cancel_says_what_it_cannot_see(sweep, distill, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    code, out, _ = distill("cancel", str(sweep / "2"))
    assert code == 1 and "left alone, since nobody here sees it: job 7_2 of 2; do it where SLURM is" in out


def test_retry_submits_what_is_missing_as_one_array(sweep, distill, tmp_path):
    (tmp_path / "queue").write_text((tmp_path / "queue").read_text().replace("PENDING", "RUNNING").splitlines()[0])
    code, out, err = distill("retry", str(sweep))
    assert code == 0, err
    assert "left as it is: 0 (done)" in out and "left as it is: 1 (starting)" in out
    assert "submitted array 99, 2 jobs" not in out and "submitted job 99" in out, "the running one is this process"
    assert [read_job(sweep / str(number)).job_id for number in range(4)] == ["7_0", "7_1", "7_2", "99"]
    for number in (1, 2):
        Status(sweep / str(number)).set("preempted")
    (tmp_path / "queue").write_text("")
    code, out, _ = distill("retry", str(sweep))
    assert code == 0 and "submitted array 99, 3 jobs" in out
    assert "#SBATCH --array=0-2" in (tmp_path / "batch").read_text()


def test_a_retried_point_takes_over_what_its_sweep_has_trained(sweep, distill, monkeypatch):
    jobs = []
    monkeypatch.setattr(retry.Queue, "add", lambda self, launcher, job: jobs.append(job))
    assert distill("retry", str(sweep))[0] == 0 and [job.shared for job in jobs] == [None]
    (sweep / "prelude").mkdir()
    assert distill("retry", str(sweep))[0] == 0 and jobs[1].shared == str(sweep / "prelude")


def test_logs_are_followed_past_a_run_that_is_queued_again(sweep, distill, monkeypatch):
    told = iter(["running", "preempted", "requeued", "running", "done"])
    monkeypatch.setattr(logs, "_EVERY", 0.001)
    monkeypatch.setattr(logs, "states", lambda runs: {runs[0]: next(told)})
    assert distill("logs", str(sweep / "2"), "-f")[0] == 0
    assert next(told, None) is None


def test_retry_takes_no_shell_of_a_stored_config_without_trust(sweep, distill):
    run = sweep.parent / "own"
    claim(run, resolved(*SLURM, "launcher.setup=[touch /tmp/x]"))
    Status(run).set("failed")
    code, _, err = distill("retry", str(run))
    assert code == 2 and "launcher.setup: ['touch /tmp/x']" in err and "--trust-launcher" in err
    assert distill("retry", str(run), "--trust-launcher")[0] == 0
    claim(sweep.parent / "here", resolved())
    Status(sweep.parent / "here").set("failed")
    code, _, err = distill("retry", str(sweep.parent / "here"))
    assert code == 2 and "was not submitted (launcher: Local); to go on: distill resume" in err


def test_wait_returns_one_where_not_all_are_done(sweep, distill, tmp_path):
    (tmp_path / "queue").write_text("")
    Status(sweep / "2").set("preempted")
    code, out, _ = distill("wait", str(sweep), "--every", "0.1")
    assert code == 1 and out.endswith("3: failed\n1 of 4 done\n") and "1: lost" in out
    code, out, _ = distill("wait", str(sweep / "0"))
    assert code == 0 and out == "0: done\n1 of 1 done\n"


def test_logs_prints_the_ends_of_all_files_and_follows_to_the_end(sweep, distill, monkeypatch):
    monkeypatch.setattr(logs, "_EVERY", 0.01)
    job = read_job(sweep / "3")
    job.files.mkdir()
    job.stdout.write_text("".join(f"line {number}\n" for number in range(9)))
    (sweep / "3/train.log").write_text("trained\n")
    code, out, _ = distill("logs", str(sweep / "3"), "-n", "2", "-f")
    assert code == 0 and out.splitlines()[:3] == [f"==> {job.stdout} <==", "line 7", "line 8"]
    assert f"==> {job.stderr}: not there yet <==" in out and out.endswith("trained\n")
    code, _, err = distill("logs", str(sweep))
    assert code == 2 and "holds 4 runs, name one of them: 0, 1, 2, 3" in err


@pytest.mark.parametrize("verb", ["jobs", "logs", "cancel", "retry", "wait"])
def test_a_place_without_runs_is_told(verb, distill, tmp_path):
    code, _, err = distill(verb, str(tmp_path))
    assert code == 2 and "no run lies in" in err
    code, _, err = distill(verb, str(tmp_path / "none"))
    assert code == 2 and "is no folder" in err
