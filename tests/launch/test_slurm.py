"""Runs on a real SLURM cluster: arrays, cancelling, queueing again, preemption. There is no accounting on it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm_fixtures
from engine_fixtures import DIGITS

from distill_app.runs.jobs import read_job
from distill_app.runs.status import Status
from scripts.stress.outcome import differences

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
# Two epochs of a hundred steps; a step takes long for as long as a file is there.
RUN = (
    *DIGITS,
    "method=kd",
    "method.stages.distill.losses.kd.loss._target_=dawdling.Loss",
    "runtime.allow=[dawdling]",
    "stage.batch_size=4",
    "dataset.student_labels_per_class=40",
    "runtime.threads=1",
    "runtime.log_every=1",
    "runtime.device=cpu",
)
SLURM = ("launcher=slurm", "launcher.gpus_per_node=null", "launcher.cpus_per_task=1")
DAWDLING = """
import os, pathlib, time
from distill_app.losses import KLDivergence

class Loss(KLDivergence):
    def forward(self, student, teacher):
        slow = pathlib.Path(os.environ["DAWDLING"])
        if len(student) in (4, 2) and slow.exists():  # two processes have two images each
            time.sleep(0.2)
        return super().forward(student, teacher)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    if reason := slurm_fixtures.why_not():
        pytest.skip(reason)
    with slurm_fixtures.cluster():
        yield


@pytest.fixture
def place(cluster, tmp_path) -> Iterator[Path]:
    """A folder for runs, whose jobs are ended with the test."""
    (tmp_path / "dawdling.py").write_text(DAWDLING)
    (tmp_path / "slow").touch()
    yield tmp_path
    (tmp_path / "slow").unlink(missing_ok=True)
    jobs = [job.job_id for file in tmp_path.glob("**/job.json") if (job := read_job(file.parent)) is not None]
    if jobs:
        subprocess.run(["scancel", *jobs], check=False)


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """The run that nothing interrupted."""
    place = tmp_path_factory.mktemp("whole")
    (place / "dawdling.py").write_text(DAWDLING)
    assert distill(place, *RUN, f"hydra.run.dir={place / 'run'}").returncode == 0
    return place / "run"


@pytest.fixture(scope="module")
def reference_of_two(tmp_path_factory) -> Path:
    """The same by two processes."""
    place = tmp_path_factory.mktemp("whole_of_two")
    (place / "dawdling.py").write_text(DAWDLING)
    two = ("launcher=ddp", "launcher.tasks_per_node=2")
    assert distill(place, *RUN, *two, f"hydra.run.dir={place / 'run'}").returncode == 0
    return place / "run"


def distill(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "distill_app", *arguments],
        cwd=place,
        env={
            **os.environ,
            "PYTHONPATH": f"{place}:{ROOT}",
            "DAWDLING": str(place / "slow"),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def submitted(place: Path, *more: str) -> Path:
    """A run that was submitted and is in the midst of its first epoch."""
    folder = place / "run"
    done = distill(place, *RUN, *SLURM, *more, f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: records(folder) >= 10)
    return folder


def until(condition: Callable[[], bool], *, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def records(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def state(folder: Path) -> str | None:
    return Status(folder).read().get("state")


def has_left_the_queue(job_id: str) -> bool:
    queue = subprocess.run(["squeue", "--noheader", "--array", "--format=%i"], capture_output=True, text=True)
    return job_id not in queue.stdout.split()


def jobs_of(place: Path, folder: str) -> list[dict]:
    return json.loads(distill(place, "jobs", folder, "--json").stdout)


def goes_on_to_the_same_end(place: Path, folder: Path, reference: Path) -> None:
    (place / "slow").unlink()
    waited = distill(place, "wait", str(folder), "--every", "0.5")
    assert waited.returncode == 0, waited.stdout + (folder / "train.log").read_text()
    assert "going on after step" in (folder / "train.log").read_text()
    assert differences(folder, reference) == []


def test_a_sweep_is_one_array_and_what_is_done_is_not_queued_again(place):
    line = ("-m", *RUN, "seed=0,1,2,3", *SLURM, "hydra.sweep.dir=sweep")
    done = distill(place, *line)
    assert done.returncode == 0, done.stderr
    jobs = [read_job(place / "sweep" / str(number)) for number in range(4)]
    arrays, elements = zip(*(job.job_id.split("_") for job in jobs if job), strict=True)
    assert len(set(arrays)) == 1 and elements == ("0", "1", "2", "3")
    assert f"submitted array {arrays[0]}, 4 jobs (slurm)" in done.stdout
    assert not any(state(place / "sweep" / str(number)) == "done" for number in range(4)), "the command waited"
    again = distill(place, *line)
    assert again.returncode == 0 and "submitted" not in again.stdout
    assert again.stdout.count(" already as ") == 4
    (place / "slow").unlink()
    waited = distill(place, "wait", "sweep", "--every", "0.5")
    assert waited.returncode == 0 and waited.stdout.endswith("4 of 4 done\n")
    assert [job["state"] for job in jobs_of(place, "sweep")] == ["done"] * 4
    third = distill(place, *line)
    assert third.returncode == 0 and third.stdout.count("finished already: ") == 4
    assert [read_job(place / "sweep" / str(number)) for number in range(4)] == jobs


def test_a_run_that_is_cancelled_saves_and_retry_goes_on_from_there(place, reference):
    folder = submitted(place)
    first = read_job(folder)
    assert first is not None
    cancelled = distill(place, "cancel", str(folder))
    assert cancelled.stdout == f"cancelled job {first.job_id} (running): run\n"
    until(lambda: has_left_the_queue(first.job_id))
    status = Status(folder).read()
    assert status["state"] == "preempted" and status["reason"].startswith("SIGTERM: saved distill/epoch_0000_step_")
    assert distill(place, "wait", str(folder), "--every", "0.5").returncode == 1
    untrusting = distill(place, "retry", str(folder))
    assert untrusting.returncode == 2 and "--allow dawdling" in untrusting.stderr
    assert distill(place, "retry", str(folder), "--allow", "dawdling").returncode == 0
    second = read_job(folder)
    assert second is not None and second.job_id != first.job_id
    goes_on_to_the_same_end(place, folder, reference)
    assert distill(place, "retry", str(folder)).stdout.endswith("nothing to submit\n")


def test_a_run_that_is_queued_again_from_outside_goes_on(place, reference):
    folder = submitted(place)
    job = read_job(folder)
    assert job is not None
    subprocess.run(["scontrol", "requeue", job.job_id], check=True)
    until(lambda: state(folder) == "preempted")
    goes_on_to_the_same_end(place, folder, reference)
    (told,) = jobs_of(place, str(folder))
    assert (told["state"], told["requeues"], told["job_id"]) == ("done", 1, job.job_id)


def test_a_run_that_has_to_make_room_saves_and_ends_the_same(place, reference):
    folder = submitted(place, "launcher.partition=low")
    room = ["sbatch", "--partition=high", "--nodes=2", "--ntasks-per-node=2", "--output=/dev/null", "--wrap=sleep 3"]
    subprocess.run(room, check=True, cwd=place)
    until(lambda: state(folder) == "preempted")
    assert Status(folder).read()["reason"].startswith("SIGUSR2: saved distill/epoch_0000_step_")
    goes_on_to_the_same_end(place, folder, reference)


def test_a_job_that_dies_is_told_without_accounting_and_nobody_waits_for_it(place):
    folder = submitted(place)
    os.kill(Status(folder).read()["pid"], signal.SIGKILL)
    waited = distill(place, "wait", str(folder), "--every", "0.5")
    assert waited.returncode == 1 and waited.stdout.endswith("run: died\n0 of 1 done\n")
    assert "distill retry" in distill(place, "jobs", str(folder)).stdout


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ("launcher.partition=nowhere", "launcher.partition is 'nowhere'"),
        ("launcher.gpus_per_node=5", "launcher.gpus_per_node=null"),
        ("launcher.mem_gb=9000", "launcher.mem_gb is 9000"),
        ("+launcher.additional_parameters.frobnicate=1", "launcher.additional_parameters"),
    ],
)
def test_what_the_cluster_refuses_names_its_key_and_leaves_the_folder_free(place, asked, key):
    done = distill(place, *RUN, *SLURM, asked, f"hydra.run.dir={place / 'run'}")
    assert done.returncode == 1 and "SLURM refused the job" in done.stderr and key in done.stderr
    assert "Traceback" not in done.stderr
    assert state(place / "run") == "refused" and read_job(place / "run") is None


def test_two_runs_on_a_node_get_a_gpu_each(place):
    gpus = subprocess.run(["sinfo", "--noheader", "--format=%G"], capture_output=True, text=True).stdout
    if "gpu:2" not in gpus:
        pytest.skip("this cluster has no pretend GPUs: SLURM_LOCAL_GPUS=2 tests/slurm/start-local-slurm.sh")
    said = ("launcher.setup=['echo GPU=$CUDA_VISIBLE_DEVICES']", "launcher.gpus_per_node=1")
    node = "+launcher.additional_parameters.nodelist=lnode1"
    done = distill(place, "-m", *RUN, "seed=0,1", *SLURM, *said, node, "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    until(lambda: all(records(place / f"sweep/{number}") for number in range(2)))
    seen = {next((place / "sweep/submitit").glob(f"*_{number}_0_log.out")).read_text() for number in range(2)}
    assert {line for text in seen for line in text.splitlines() if line.startswith("GPU=")} == {"GPU=0", "GPU=1"}
    left = distill(place, "retry", "sweep")
    assert left.returncode == 0 and left.stdout.count("left as it is") == 2


TWO_NODES = ("launcher.nodes=2", "launcher.tasks_per_node=1")


def process_of(folder: Path, rank: int) -> int:
    """The process of a rank of a job."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "environ").read_bytes().split(b"\0")
            is_python = (
                b"submitit" in (place / "cmdline").read_bytes() and b"srun" not in (place / "cmdline").read_bytes()
            )
        except OSError:
            continue
        ours = os.fsencode(str(folder)) in (place / "cmdline").read_bytes()
        if ours and is_python and f"SLURM_PROCID={rank}".encode() in words:
            return int(place.name)
    raise AssertionError(f"no rank {rank} of {folder}")


def test_a_run_on_two_nodes_that_is_queued_again_ends_the_same(place, reference_of_two):
    folder = submitted(place, *TWO_NODES)
    job = read_job(folder)
    assert job is not None and json.loads((folder / "env.json").read_text())
    subprocess.run(["scontrol", "requeue", job.job_id], check=True)
    until(lambda: state(folder) == "preempted")
    assert Status(folder).read()["reason"].startswith("SIGTERM: saved distill/epoch_0000_step_")
    goes_on_to_the_same_end(place, folder, reference_of_two)


def test_a_run_on_two_nodes_makes_room_and_is_cancelled(place):
    folder = submitted(place, *TWO_NODES, "launcher.partition=low")
    job = read_job(folder)
    assert job is not None
    room = ["sbatch", "--partition=high", "--nodes=2", "--ntasks-per-node=2", "--output=/dev/null", "--wrap=sleep 1"]
    subprocess.run(room, check=True, cwd=place)
    until(lambda: state(folder) == "preempted")
    assert Status(folder).read()["reason"].startswith("SIGUSR2: saved ")
    until(lambda: state(folder) == "running")
    before = records(folder)
    until(lambda: records(folder) > before)
    assert distill(place, "cancel", str(folder)).returncode == 0
    until(lambda: has_left_the_queue(job.job_id))
    assert Status(folder).read()["reason"].startswith("SIGTERM: saved ")


def test_a_rank_on_another_node_that_dies_is_the_cause_that_is_told(place):
    folder = submitted(place, *TWO_NODES)
    job, victim = read_job(folder), process_of(folder, 1)
    assert job is not None
    os.kill(victim, signal.SIGKILL)
    until(lambda: state(folder) == "failed", seconds=40)
    assert f"rank 1 (process {victim} on " in Status(folder).read()["reason"]
    until(lambda: has_left_the_queue(job.job_id), seconds=60)


def test_points_share_a_job_side_by_side_and_all_of_them_save_when_it_is_queued_again(place, reference):
    line = ("-m", *RUN, "seed=0,1,2,3", *SLURM, "launcher.points_per_job=2", "hydra.sweep.dir=sweep")
    done = distill(place, *line)
    assert done.returncode == 0, done.stderr
    assert ", 2 jobs of 4 runs (slurm)" in done.stdout
    runs = [place / "sweep" / str(number) for number in range(4)]
    until(lambda: all(records(run) >= 5 for run in runs))
    jobs = [read_job(run) for run in runs]
    assert len({job.job_id for job in jobs if job}) == 2 and jobs[0].job_id == jobs[1].job_id
    assert "stage distill" in distill(place, "logs", str(runs[1])).stdout
    subprocess.run(["scontrol", "requeue", jobs[0].job_id], check=True)
    until(lambda: all(state(run) == "preempted" for run in runs[:2]))
    (place / "slow").unlink()
    waited = distill(place, "wait", "sweep", "--every", "0.5")
    assert waited.returncode == 0, waited.stdout
    assert all("going on after step" in (run / "train.log").read_text() for run in runs[:2])
    assert differences(runs[0], reference) == []
