"""A real SLURM cluster on this machine, for the tests marked `slurm`: it is started where it can be, else they skip."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRIPTS = Path(__file__).parent / "slurm"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
# Two GPUs a node that are none, and no accounting: sacct is what jobs must not need.
_SETTINGS = {"SLURM_LOCAL_GPUS": "2", "SLURM_LOCAL_ACCT": "none"}


def why_not() -> str:
    """What keeps this machine from having a cluster; empty where nothing does."""
    if os.geteuid() != 0:
        return "a SLURM cluster is started by root only"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        return f"no {', '.join(missing)} here; on Debian: tests/slurm/start-local-slurm.sh"
    return ""


@contextmanager
def cluster() -> Iterator[None]:
    """A cluster; one that runs already is used, and left running."""
    started = _script("start-local-slurm.sh", "--if-needed")
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        yield
    finally:
        if "already up" not in started.stdout:
            _script("stop-local-slurm.sh")


def _script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Daemons keep the streams that they are started with: into a file, for whose end nobody waits.
    log = Path("/tmp") / f"distill-{name}-{os.getpid()}.log"
    with open(log, "w") as file:
        done = subprocess.run(
            [str(SCRIPTS / name), *arguments],
            env={**os.environ, **_SETTINGS},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
    text = log.read_text()
    log.unlink()
    return subprocess.CompletedProcess(done.args, done.returncode, text, "")
