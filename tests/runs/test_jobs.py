"""`job.json`: which job carries out a run, also where somebody else wrote it."""

import json
import os
from pathlib import Path

import pytest

from distill_app.runs.jobs import JobRecord, note_own_job, read_job, runs_below


def test_a_job_comes_back_as_it_was_written(tmp_path):
    job = JobRecord(tmp_path, "12_3", "slurm", tmp_path / "submitit", "node")
    job.write()
    assert read_job(tmp_path) == job and job.stderr == tmp_path / "submitit/12_3_0_log.err"
    job.note_cancelled()
    read = read_job(tmp_path)
    assert read is not None and read.cancelled and read.job_id == "12_3"


@pytest.mark.parametrize(
    "record",
    [
        {"job_id": "1; rm -r /", "cluster": "slurm", "folder": "/x"},
        {"job_id": "-1", "cluster": "slurm", "folder": "/x"},
        {"job_id": "1", "cluster": "pbs", "folder": "/x"},
        {"job_id": "1", "cluster": "slurm", "folder": None},
        {},
    ],
)
def test_what_is_no_job_of_ours_is_none(tmp_path, record):
    (tmp_path / "job.json").write_text(json.dumps(record))
    assert read_job(tmp_path) is None


def test_starts_are_counted_in_the_log(tmp_path):
    job = JobRecord(tmp_path, "1", "slurm", tmp_path)
    assert job.starts == 0
    job.stdout.write_text("submitit INFO - Starting with JobEnvironment()\n" * 3)
    assert job.starts == 3


def test_a_job_that_begins_names_itself_where_nobody_did(tmp_path, monkeypatch):
    note_own_job(tmp_path)
    assert read_job(tmp_path) is None, "this process is no job"
    local = {"EXECUTOR": "local", "FOLDER": str(tmp_path / "submitit"), "LOCAL_JOB_ID": str(os.getpid())}
    for name, value in local.items():
        monkeypatch.setenv(f"SUBMITIT_{name}", value)
    note_own_job(tmp_path)
    job = read_job(tmp_path)
    assert job is not None and (job.job_id, job.files) == (str(os.getpid()), tmp_path / "submitit")
    before = (tmp_path / "job.json").stat().st_mtime_ns
    note_own_job(tmp_path)
    assert (tmp_path / "job.json").stat().st_mtime_ns == before


def test_runs_of_a_sweep_come_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 9, 1):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "config_resolved.yaml").touch()
    (tmp_path / "submitit").mkdir()
    assert [run.name for run in runs_below(tmp_path)] == ["1", "9", "10"]
    assert list(runs_below(Path(tmp_path) / "9")) == [tmp_path / "9"]
