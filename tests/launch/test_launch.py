"""Launchers: in this process, and as submitit jobs (its local executor stands in for a cluster)."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from distill_app.launch.job import Job
from distill_app.launch.local import Local
from distill_app.launch.submitit import Submitit

_CONF = Path(__file__).resolve().parents[2] / "conf/launcher"

_RUNNER = """
import json, os, pathlib
def run_experiment(config, *, output_dir, command, experiment=None):
    if config.get("fail"):
        raise ValueError("no such luck")
    record = {"pid": os.getpid(), "config": config, "command": command, "value": 41 + 1}
    pathlib.Path(output_dir, "ran.json").write_text(json.dumps(record))
    return record
"""


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """Stands in for the real runner, in this process and in jobs (which read sitecustomize first)."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "fake_runner.py").write_text(_RUNNER)
    (modules / "sitecustomize.py").write_text(
        "import sys, fake_runner\nsys.modules['distill_app.training.runner'] = fake_runner\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(modules))
    monkeypatch.syspath_prepend(str(modules))
    import fake_runner

    monkeypatch.setitem(sys.modules, "distill_app.training.runner", fake_runner)
    yield
    sys.modules.pop("fake_runner", None)


def _task(tmp_path: Path, **config) -> Job:
    output_dir = tmp_path / "a run=1"
    output_dir.mkdir()
    return Job(config={"seed": 1, **config}, output_dir=str(output_dir), command=["distill", "seed=1"])


def _local(**options) -> Submitit:
    return Submitit(cluster="local", params={"timeout_min": 1}, signal_delay_s=5, **options)


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


@pytest.mark.slow
def test_without_wait_the_call_returns_the_job_id(tmp_path, runner):
    task = _task(tmp_path)
    answer = _local()(task)
    assert answer == {"job_id": json.loads((Path(task.output_dir) / "job.json").read_text())["job_id"]}
    result = Path(task.output_dir) / "ran.json"
    deadline = time.monotonic() + 30
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
        "launcher = Submitit(cluster='local', params={'timeout_min': 1}, signal_delay_s=5)\n"
        "import submitit, pathlib\n"
        "folder = pathlib.Path(sys.argv[1]); executor = launcher.executor(folder, name='x')\n"
        "launcher.submit(executor, Slow()); print('submitted')\n"
    )
    start = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
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


def testslurm_parameters_get_their_prefix_and_nulls_go():
    params = yaml.safe_load((_CONF / "slurm.yaml").read_text())["params"]
    launcher = Submitit(cluster="slurm", params={**params, "partition": "gpu", "slurm_qos": "high", "mem_gb": 8})
    got = launcher.slurm_parameters()
    assert got["slurm_partition"] == "gpu" and got["slurm_qos"] == "high" and got["mem_gb"] == 8
    assert got["slurm_signal_delay_s"] == 120 and "slurm_account" not in got
    assert got["slurm_setup"] == ["export SRUN_CPUS_PER_TASK=4"]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands named srun and sbatch; sbatch keeps what it is given and answers with a job id."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "srun").write_text("#!/bin/sh\n")
    (commands / "sbatch").write_text(f"#!/bin/sh\ncat \"$1\" > '{tmp_path}/batch'\necho Submitted batch job 77\n")
    for file in commands.iterdir():
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    return commands


def test_slurm_job_is_submitted_with_what_the_config_says(tmp_path, slurm):
    config = yaml.safe_load((_CONF / "slurm.yaml").read_text())
    config.pop("_target_")
    config["params"] |= {"partition": "gpu", "timeout_min": 30}
    assert Submitit(**config)(_task(tmp_path, method={"name": "k d"})) == {"job_id": "77"}
    batch = (tmp_path / "batch").read_text()
    for line in ("--partition=gpu", "--time=30", "--job-name=distill-k_d", "--signal=USR2@120", "--nodes=1"):
        assert f"#SBATCH {line}" in batch
    assert "export SRUN_CPUS_PER_TASK=4" in batch


def test_refusal_of_the_cluster_is_reported(tmp_path, slurm):
    (slurm / "sbatch").write_text("#!/bin/sh\necho 'invalid partition specified: x' >&2\nexit 1\n")
    with pytest.raises(RuntimeError, match=r"(?s)SLURM refused.*launcher\.params.*invalid partition"):
        Submitit(cluster="slurm", params={"partition": "x"})(_task(tmp_path))


def test_unknown_parameter_and_missing_slurm_are_named(tmp_path, slurm, monkeypatch):
    with pytest.raises(ValueError, match=r"launcher\.params.*partitoin"):
        Submitit(cluster="slurm", params={"partitoin": "x"})(_task(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"no SLURM on this machine.*launcher=local"):
        Submitit(cluster="slurm")(Job(config={}, output_dir=str(tmp_path / "b"), command=[]))


@pytest.mark.parametrize("options", [{"cluster": "pbs"}, {"cluster": "local", "params": {"nodes": 2}}])
def test_what_cannot_work_is_refused_at_once(options):
    with pytest.raises(ValueError, match=r"launcher\.(cluster|params\.nodes) is .*allowed"):
        Submitit(**options)


@pytest.mark.parametrize(("variable", "expected"), [("2,3", [2, 3]), ("", []), ("GPU-ab", [])])
def test_local_job_sees_the_gpus_of_its_parent(monkeypatch, variable, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    parameters = _local()._local_parameters()
    assert parameters["visible_gpus"] == expected[:1]
    assert parameters["gpus_per_node"] == len(expected[:1])


@pytest.mark.parametrize("name", ["local", "slurm", "submitit_local"])
def test_config_builds_its_launcher(name):
    from hydra.utils import instantiate

    text = (_CONF / f"{name}.yaml").read_text()
    assert text.startswith("# distill launcher=")
    assert callable(instantiate(yaml.safe_load(text), _convert_="all"))
