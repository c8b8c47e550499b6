"""Launchers: in this process, and as submitit jobs (its local executor stands in for a cluster)."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from distill_app.errors import ConfigError, LaunchError
from distill_app.launch.ddp import Ddp
from distill_app.launch.job import Job
from distill_app.launch.local import Local
from distill_app.launch.queue import Queue
from distill_app.launch.submitit import Submitit
from distill_app.runs.claim import claim, refuse_other
from distill_app.runs.jobs import read_job
from distill_app.runs.status import Status

_ROOT = Path(__file__).resolve().parents[2]
_CONF = _ROOT / "conf/launcher"

_RUNNER = """
import json, os, pathlib
from distill_app.runs.status import Status
def run_experiment(config, *, output_dir, command, experiment=None, shared=None, world=None):
    if config.get("fail"):
        Status(output_dir).set("failed", reason="no such luck")
        raise ValueError("no such luck")
    if config.get("hold"):
        Status(output_dir).set("running")
        import signal, time
        signal.signal(signal.SIGTERM, lambda *_: exit(143))
        time.sleep(60)
    record = {"pid": os.getpid(), "config": config, "command": command, "value": 41 + 1}
    for name in ("ran.json", "summary.json"):
        pathlib.Path(output_dir, name).write_text(json.dumps(record))
    Status(output_dir).set("done")
    return record
"""


def _config(name):
    config = OmegaConf.load(_CONF / f"{name}.yaml")
    return OmegaConf.to_container(OmegaConf.create({"launcher": config}), resolve=True)["launcher"]


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """Stands in for the real runner, in this process and in jobs (which read sitecustomize first)."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "fake_runner.py").write_text(_RUNNER)
    (modules / "sitecustomize.py").write_text(
        "import sys, fake_runner\nsys.modules['distill_app.training.run'] = fake_runner\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{modules}{os.pathsep}{_ROOT}")
    monkeypatch.syspath_prepend(str(modules))
    import fake_runner

    monkeypatch.setitem(sys.modules, "distill_app.training.run", fake_runner)
    yield
    sys.modules.pop("fake_runner", None)


def _task(tmp_path: Path, **config) -> Job:
    output_dir = tmp_path / "a run=1"
    output_dir.mkdir()
    return Job(config={"seed": 1, **config}, output_dir=str(output_dir), command=["distill", "seed=1"])


def _local(**options) -> Submitit:
    return Submitit(cluster="local", timeout_min=1, signal_delay_s=5, **options)


def test_local_runs_in_this_process_and_returns_the_summary(tmp_path, runner):
    summary = Local()(_task(tmp_path))
    assert summary["pid"] == os.getpid() and summary["value"] == 42


@pytest.mark.slow
def test_job_runs_elsewhere_and_its_result_comes_back(tmp_path, runner, capfd):
    task = _task(tmp_path, method={"name": "kd"})
    summary = _local(wait=True)(task)
    assert summary["pid"] != os.getpid() and summary["config"] == task.config
    record = json.loads((Path(task.output_dir) / "job.json").read_text())
    assert record["cluster"] == "local" and Path(record["folder"]).is_dir() and record["submitted"]
    assert f"submitted job {record['job_id']} (local)" in capfd.readouterr().out
    assert (Path(task.output_dir) / "command.txt").read_text() == "distill seed=1\n"


@pytest.mark.slow
def test_without_wait_the_call_returns_the_job_id(tmp_path, runner):
    task = _task(tmp_path)
    answer = _local()(task)
    assert answer == {"job_id": json.loads((Path(task.output_dir) / "job.json").read_text())["job_id"]}
    result = Path(task.output_dir) / "ran.json"
    deadline = time.monotonic() + 120
    while not result.exists():
        assert time.monotonic() < deadline, "the job did not run"
        time.sleep(0.1)


@pytest.mark.slow
def test_failure_of_a_job_is_raised_when_waiting(tmp_path, runner):
    with pytest.raises(RuntimeError, match=r"(?s)job \d+ failed.*no such luck"):
        _local(wait=True)(_task(tmp_path, fail=True))


def test_submitting_process_is_not_kept_by_its_pipes(tmp_path):
    (tmp_path / "slow_job.py").write_text(
        "import sys, time\nfrom pathlib import Path\n"
        "class Slow:\n"
        "    def __call__(self):\n"
        "        for _ in range(200):\n"
        "            if Path(sys.argv[-1], 'stop').exists(): return\n"
        "            time.sleep(0.1)\n"
    )
    code = (
        "import sys; from distill_app.launch import Submitit; from slow_job import Slow\n"
        "launcher = Submitit(cluster='local', timeout_min=1, signal_delay_s=5)\n"
        "from distill_app.launch.detached import streams_closed\n"
        "import submitit, pathlib\n"
        "folder = pathlib.Path(sys.argv[1]); executor = launcher.executor(folder, name='x')\n"
        "with streams_closed(): executor.submit(Slow())\n"
        "print('submitted')\n"
    )
    start = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{_ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "jobs")], capture_output=True, text=True, env=environment
    )
    elapsed = time.monotonic() - start
    (tmp_path / "jobs/stop").touch()
    assert done.stdout == "submitted\n", done.stderr
    assert elapsed < 12


def test_preempted_task_is_queued_again_as_it_was(tmp_path):
    task = _task(tmp_path)
    assert task.checkpoint().function == task


def test_parameters_get_the_names_of_sbatch_and_nulls_go():
    config = _config("slurm")
    config.pop("_target_")
    got = Submitit(**{**config, "partition": "gpu", "qos": "high", "mem_gb": 8.5}).slurm_parameters()
    assert (got["partition"], got["qos"], got["mem"], got["time"]) == ("gpu", "high", "8704M", 1440)
    assert got["signal_delay_s"] == 120 and "account" not in got and "srun_args" not in got
    assert got["setup"] == ["export SRUN_CPUS_PER_TASK=4"]
    assert "gpus_per_node" not in Submitit(cluster="slurm", gpus_per_node=0).slurm_parameters()


def test_slurm_job_is_submitted_with_what_the_config_says(tmp_path, slurm):
    config = _config("slurm")
    config.pop("_target_")
    config |= {"partition": "gpu", "timeout_min": 30}
    job = _task(tmp_path, method={"name": "k d"})
    assert Submitit(**config)(job) == {"job_id": "77"}
    batch = (tmp_path / "batch").read_text()
    for line in ("--partition=gpu", "--time=30", "--job-name=distill-k_d", "--signal=USR2@120", "--nodes=1"):
        assert f"#SBATCH {line}" in batch
    assert "export SRUN_CPUS_PER_TASK=4" in batch
    assert Status(job.output_dir).read()["state"] == "queued"


def _points(tmp_path: Path, count: int) -> list[Job]:
    return [Job({"seed": number}, str(tmp_path / f"sweep/{number}"), ["distill"]) for number in range(count)]


def test_points_of_a_sweep_are_one_array_queued_on_disk_before_sbatch_is_asked(tmp_path, slurm):
    states = f"cat '{tmp_path}'/sweep/*/status.json > '{tmp_path}/states'; "
    sbatch = (slurm / "sbatch").read_text().replace('cat "$1"', f'{states}cat "$1"')
    (slurm / "sbatch").write_text(sbatch)
    queue = Queue()
    for job in _points(tmp_path, 3):
        queue.add(Submitit(cluster="slurm", array_parallelism=2), job)
    answers = queue.submit()
    assert [answer["job_id"] for answer in answers.values()] == ["77_0", "77_1", "77_2"]
    assert "#SBATCH --array=0-2%2" in (tmp_path / "batch").read_text()
    assert (tmp_path / "states").read_text().count('"state": "queued"') == 3
    jobs = [read_job(tmp_path / f"sweep/{number}") for number in range(3)]
    assert [job.job_id for job in jobs if job] == ["77_0", "77_1", "77_2"]


def test_points_of_different_launchers_are_arrays_of_their_own(tmp_path, slurm):
    queue = Queue()
    for number, job in enumerate(_points(tmp_path, 4)):
        queue.add(Submitit(cluster="slurm", mem_gb=1 + number % 2), job)
    (slurm / "sbatch").write_text(
        f"#!/bin/sh\necho 1 >> '{tmp_path}/n'\necho Submitted batch job 7$(wc -l < '{tmp_path}/n')\n"
    )
    answers = queue.submit()
    assert [answer["job_id"] for answer in answers.values()] == ["71_0", "71_1", "72_0", "72_1"]


def test_what_is_queued_already_or_finished_is_not_submitted_again(tmp_path, slurm, capfd):
    jobs = _points(tmp_path, 2)
    Submitit(cluster="slurm").submit(jobs)
    script = tmp_path / "sweep/submitit/77_submission.sh"
    (slurm / "squeue").write_text(f"#!/bin/sh\necho '77_0|PENDING|{script}'\necho '77_1|RUNNING|/elsewhere/x.sh'\n")
    (slurm / "squeue").chmod(0o755)
    Status(jobs[1].output_dir).set("done")
    (Path(jobs[1].output_dir) / "summary.json").write_text('{"objective": 0.5}')
    (slurm / "sbatch").write_text("#!/bin/sh\nexit 1\n")
    assert Submitit(cluster="slurm").submit(jobs) == [{"job_id": "77_0", "already": "queued"}, {"objective": 0.5}]
    assert "already queued: job 77_0" in capfd.readouterr().out


def test_dry_run_prints_the_batch_file_of_the_array_without_slurm(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    launcher = Submitit(cluster="slurm", dry_run=True, partition="gpu", array_parallelism=4, setup=["module load x"])
    assert launcher.submit(_points(tmp_path, 9)) == [{}] * 9
    text = capfd.readouterr().out
    for line in ("#SBATCH --array=0-8%4", "#SBATCH --partition=gpu", "\nmodule load x\n", "submitit.core._submit"):
        assert line in text
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("sbatch: error: invalid partition specified: x", "launcher.partition is 'x'"),
        ("sbatch: error: Invalid generic resource (gres) specification", "launcher.gpus_per_node=null"),
        (
            "sbatch: error: Invalid account or account/partition combination",
            "launcher.account is None",
        ),
        (
            "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)",
            "more jobs, time or resources than your account or QOS may have",
        ),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", "less of"),
        ("sbatch: error: who knows", "sbatch: who knows"),
    ],
)
def test_refusal_of_the_cluster_names_the_key_and_leaves_the_folder_free(tmp_path, slurm, said, told):
    (slurm / "sbatch").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    job = _task(tmp_path)
    with pytest.raises(LaunchError) as caught:
        Submitit(cluster="slurm", partition="x")(job)
    assert str(caught.value).startswith("SLURM refused the job: ") and told in str(caught.value)
    assert Status(job.output_dir).read()["state"] == "refused"
    refuse_other(job.output_dir, {"seed": 2})


def test_a_refusal_leaves_what_a_run_was_before(tmp_path, slurm):
    (slurm / "sbatch").write_text("#!/bin/sh\nexit 1\n")
    job = _task(tmp_path)
    claim(job.output_dir, job.config)
    Status(job.output_dir).set("preempted", reason="SIGTERM")
    with pytest.raises(LaunchError):
        Submitit(cluster="slurm")(job)
    assert Status(job.output_dir).read()["state"] == "preempted"


def test_missing_slurm_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=r"no SLURM on this machine.*launcher=local"):
        Submitit(cluster="slurm")(Job(config={}, output_dir=str(tmp_path / "b"), command=[]))


def test_everything_that_cannot_work_is_told_at_once_by_its_key():
    wrong = {
        "nodes": 0,
        "tasks_per_node": 1.5,
        "gpus_per_node": -1,
        "cpus_per_task": 0,
        "mem_gb": "much",
        "array_parallelism": 0,
        "timeout_min": 0.5,
        "max_num_timeout": -1,
        "partition": "",
        "setup": "module load cuda",
        "srun_args": [1],
        "additional_parameters": {"time": 3},
        "wait": "yes",
    }
    with pytest.raises(ConfigError) as caught:
        Submitit(cluster="slurm", **wrong)
    told = {re.split(r"[ :]", text)[0].split(".")[1] for text in caught.value.errors}
    assert told == set(wrong) and len(caught.value.errors) == len(wrong)
    with pytest.raises(ConfigError, match=r"launcher\.signal_delay_s: .* 5 min"):
        Submitit(cluster="slurm", timeout_min=5, signal_delay_s=300)


def test_a_local_job_has_none_of_slurms_things():
    with pytest.raises(ConfigError) as caught:
        Submitit(cluster="local", partition="gpu", mem_gb=4)
    assert [text.split()[0] for text in caught.value.errors] == ["launcher.partition", "launcher.mem_gb"]


@pytest.mark.parametrize(("variable", "expected"), [("2,3", [2, 3]), ("", []), ("-1", []), ("3,-1,2", [3])])
def test_local_jobs_take_turns_at_the_gpus_of_their_parent(monkeypatch, variable, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    for number in range(4):
        parameters = _local().local_parameters(number)
        assert parameters["visible_gpus"] == (expected[number % len(expected) :][:1] if expected else [])
        assert parameters["gpus_per_node"] == len(expected[:1])


def test_gpus_that_have_no_numbers_are_counted_and_not_hidden_from_a_local_job(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-ab, MIG-cd")
    assert Ddp().processes == 2
    with pytest.raises(
        LaunchError, match=r"launcher\.gpus_per_node: CUDA_VISIBLE_DEVICES=GPU-ab, MIG-cd does not name"
    ):
        _local().local_parameters(0)


def test_gpus_that_nobody_would_use_are_told(caplog):
    def told(**more):
        caplog.clear()
        Submitit(cluster="slurm", dry_run=True, **more).submit([Job({}, "a", ["distill"])])
        return caplog.text

    assert "launcher.tasks_per_node=4 has all of them work" in told(gpus_per_node=4)
    assert told(gpus_per_node=4, tasks_per_node=4) == told(gpus_per_node=None) == told() == ""


def test_an_array_is_as_wide_as_it_is_long_unless_it_is_told_otherwise():
    jobs = [Job({}, f"/a/{number}", ["distill"]) for number in range(300)]
    assert "--array=0-299%300" in Submitit(cluster="slurm").batch_file(jobs)
    assert "--array=0-299%8" in Submitit(cluster="slurm", array_parallelism=8).batch_file(jobs)


def test_more_processes_than_gpus_and_nodes_of_a_local_job_are_refused():
    with pytest.raises(ConfigError, match=r"launcher\.tasks_per_node: 4 processes for 2 GPUs a node"):
        Submitit(cluster="slurm", tasks_per_node=4, gpus_per_node=2)
    with pytest.raises(ConfigError, match=r"launcher\.nodes is 2, a local job"):
        Submitit(cluster="local", nodes=2)
    with pytest.raises(ConfigError, match=r"launcher\.tasks_per_node: must be a whole number"):
        Ddp(0)
    assert Submitit(cluster="slurm", nodes=2, tasks_per_node=4, gpus_per_node=4).processes == 8
    assert Ddp(3).processes == 3


@pytest.mark.parametrize("name", ["local", "ddp", "slurm", "submitit_local"])
def test_config_builds_its_launcher(name):
    from hydra.utils import instantiate

    assert (_CONF / f"{name}.yaml").read_text().startswith("# distill launcher=")
    more = {"tasks_per_node": 2} if name == "ddp" else {}
    assert callable(instantiate(_config(name) | more, _convert_="all"))
