"""A sweep with `launcher=slurm` on the command line, with a stand-in for sbatch."""

import pytest

from distill_app.runs.jobs import read_job
from distill_app.runs.status import Status

pytestmark = pytest.mark.slow
SLURM = ("prelude=none", "launcher=slurm", "launcher.partition=gpu")


def test_points_become_one_array_and_a_refused_one_is_told(tmp_path, slurm, tiny, distill):
    line = ("-m", *tiny, *SLURM, "stage.lr=0.1,-1,0.2", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    code, out, err = distill(*line)
    assert code == 2 and "stage.lr: must be above 0" in err
    assert out.count("submitted array 77, 2 jobs (slurm)") == 1
    states = [Status(tmp_path / f"sweep/{number}").read()["state"] for number in range(3)]
    assert states == ["queued", "refused", "queued"]
    jobs = [read_job(tmp_path / f"sweep/{number}") for number in range(3)]
    assert [job.job_id if job else None for job in jobs] == ["77_0", None, "77_1"]
    assert "submitted as 77_0" in out and "refused: stage.lr" in out
    assert all((tmp_path / f"sweep/{number}/config_resolved.yaml").is_file() for number in (0, 2))
    (slurm / "squeue").write_text("#!/bin/sh\n")
    (slurm / "squeue").chmod(0o755)
    code, out, _ = distill("jobs", str(tmp_path / "sweep"))
    assert code == 0 and "2 runs: 2 lost" in out


def test_what_sbatch_refuses_is_told_once_and_every_point_failed(tmp_path, slurm, tiny, distill):
    (slurm / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpu' >&2; exit 1\n")
    code, out, err = distill("-m", *tiny, *SLURM, "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert code == 1 and err.count("SLURM refused the job: launcher.partition is 'gpu'") == 1
    assert "failed: the same as [1]" in err and out.count("failed: SLURM refused") == 2


def test_values_of_a_launcher_are_refused_in_the_one_list(tmp_path, slurm, tiny, distill):
    wrong = ("launcher.timeout_min=0", "launcher.mem_gb=much", "runtime.num_workers=0")
    code, _, err = distill(*tiny, *SLURM, *wrong, f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 2 and "launcher.timeout_min: must be" in err and "launcher.mem_gb: must be" in err
    assert not (tmp_path / "batch").exists()


def test_dry_run_of_a_sweep_prints_one_batch_file(tmp_path, slurm, tiny, distill):
    line = ("-m", *tiny, *SLURM, "launcher.dry_run=true", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    code, out, _ = distill(*line)
    assert code == 0 and out.count("#SBATCH --array=0-1%2") == 1 and not (tmp_path / "batch").exists()
    assert not (tmp_path / "sweep/0/status.json").exists()
