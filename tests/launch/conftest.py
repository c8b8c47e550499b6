"""What the tests of launchers share: a stand-in for SLURM's commands."""

import os

import pytest


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
