"""What a run leaves behind besides metrics: configuration, code, environment, data, status; and its lock."""

import errno
import fcntl
import json
import math
import os
import platform
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

STATES = ("running", "done", "failed", "preempted")

# Names only: an environment holds tokens and passwords, so nothing outside this list is written down.
_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "KMP_AFFINITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_LAUNCH_BLOCKING",
    "PYTHONHASHSEED",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "SLURM_JOB_ID",
    "SLURM_RESTART_COUNT",
    "SLURM_CPUS_PER_TASK",
)
_MAX_DIFF_BYTES = 5_000_000
_MAX_CHANGED_FILES = 200
_held_locks: set[int] = set()


class UsageError(ValueError):
    """What was typed names no run, network or file."""


class RunLocked(RuntimeError):
    """Another process works in the run directory."""


def now() -> str:
    """The local time with its offset from UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def finite(value: Any, *, path: str = "", notes: dict[str, str] | None = None) -> Any:
    """Replaces NaN and infinities, which JSON lacks, by None; `notes` maps their paths to "nan" or "inf"."""
    if isinstance(value, Mapping):
        prefix = f"{path}." if path else ""
        return {str(k): finite(v, path=f"{prefix}{k}", notes=notes) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v, path=f"{path}[{i}]", notes=notes) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        if notes is not None:
            notes[path] = str(float(value))
        return None
    return value


def _jsonable(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return finite(value.item())
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON: what is not finite becomes null, paths become text, zero-dimensional arrays numbers."""
    return json.dumps(finite(value), indent=indent, default=_jsonable, allow_nan=False)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replaces a file atomically: a reader sees the old or the new content, also after a crash."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files, but a run is to be read by the group as its other files are.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Replaces a JSON file atomically (see `to_json` for what is converted)."""
    write_text(path, to_json(value, indent=2) + "\n")


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a file with one JSON object per line.

    A line that does not parse is left out: a killed process leaves half of its last line.
    """
    path = Path(path)
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def write_records(
    output_dir: str | os.PathLike[str], *, cfg: DictConfig, command: list[str], data: Mapping[str, Any]
) -> None:
    """Writes down what is needed to run this again: configuration, command, code, environment, data.

    Files: `config_resolved.yaml`, `command.txt`, `git.json` (and `git.diff` when the code was changed),
    `env.json`, `data.json`. Only an allow-list of environment variables is recorded.
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config_resolved.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    write_text(folder / "command.txt", shlex.join(command) + "\n")
    state, diff = git_state()
    write_json(folder / "git.json", state)
    if diff:
        write_text(folder / "git.diff", diff)
    else:
        (folder / "git.diff").unlink(missing_ok=True)
    write_json(folder / "env.json", environment(cfg))
    write_json(folder / "data.json", data)


def git_state() -> tuple[dict[str, Any], str]:
    """Commit, branch and changes of the code that runs, and the difference to the commit as text.

    It is the repository of the package where that is a checkout, else the one of the working directory
    (the user's own methods); a package installed inside an ignored `.venv` of a project counts as neither.
    """
    package = Path(__file__).resolve().parent
    for of, folder, probe in (
        ("package", package, ["ls-files", "--error-unmatch", "__init__.py"]),
        ("working directory", Path.cwd(), ["rev-parse", "--verify", "HEAD"]),
    ):
        if _git(folder, *probe) is None:
            continue
        commit = _git(folder, "rev-parse", "--verify", "HEAD")
        changed = (_git(folder, "status", "--porcelain") or "").splitlines()
        diff = _git(folder, "diff", "--no-ext-diff", "--no-textconv", "HEAD") or ""
        truncated = len(diff) > _MAX_DIFF_BYTES
        state = {
            "of": of,
            "commit": commit.strip() if commit else None,
            "branch": (_git(folder, "rev-parse", "--abbrev-ref", "HEAD") or "").strip() or None,
            "dirty": bool(changed),
            "changed": changed[:_MAX_CHANGED_FILES],
            "diff_truncated": truncated,
        }
        return state, diff[:_MAX_DIFF_BYTES]
    reason = "neither the package nor the working directory is in a git repository, or git is missing"
    return {"of": None, "commit": None, "branch": None, "dirty": None, "reason": reason}, ""


def _git(folder: Path, *arguments: str) -> str | None:
    # No fsmonitor: it is a program named by the repository's own configuration.
    command = [
        "git",
        "-C",
        str(folder),
        "-c",
        "core.fsmonitor=false",
        "-c",
        "core.quotepath=true",
        *arguments,
    ]
    variables = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, env=variables, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", errors="replace") if done.returncode == 0 else None


def environment(cfg: DictConfig) -> dict[str, Any]:
    """Python, packages, hardware, threads, determinism flags, seed and the thread-related variables."""
    import torch

    cuda = torch.cuda.is_available()
    packages = {d.metadata["Name"]: d.version for d in metadata.distributions() if d.metadata["Name"]}
    names = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "timm", "distill-app")
    return {
        "python": sys.version,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "host": socket.gethostname(),
        "versions": {name: packages.get(name) for name in names},
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
        "cpu_count": os.cpu_count(),
        "cpus_usable": len(os.sched_getaffinity(0)),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "determinism": {
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
        },
        "seed": OmegaConf.select(cfg, "seed"),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


class Status:
    """`status.json`: what became of the run, replaced atomically at every change."""

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self.path = Path(output_dir) / "status.json"

    def set(self, state: str, *, reason: str | None = None, **extra: Any) -> None:
        """Records a state of `STATES`; `extra` are further JSON fields, such as stage and epoch."""
        if state not in STATES:
            raise ValueError(f"status is {state!r}, allowed are {', '.join(STATES)}")
        own = {"state": state, "reason": reason, "updated": now(), "host": socket.gethostname()}
        write_json(self.path, {**own, "pid": os.getpid(), **extra})

    def read(self) -> dict[str, Any]:
        """The last record; empty where there is none or it cannot be read."""
        try:
            record = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}


@contextmanager
def run_lock(output_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Holds the run directory for this process; the system lets go of it however the process ends.

    Raises:
        RunLocked: another process (named by pid and host) holds it.
    """
    path = Path(output_dir) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    # A bare descriptor, since a file object would close it a second time in forked children.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _held_locks.add(descriptor)
    try:
        _flock(descriptor, path.parent)
        os.ftruncate(descriptor, 0)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now()}
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        if descriptor in _held_locks:
            _held_locks.discard(descriptor)
            os.close(descriptor)


def _flock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network file systems have no locks at all: better to run without than not to run.
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            return
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        try:
            holder = json.loads(os.pread(descriptor, 4096, 0))
            who = f"process {holder['pid']} on {holder['host']} (since {holder['since']})"
        except (ValueError, KeyError, TypeError):
            who = "another process"
        raise RunLocked(
            f"{folder} is in use by {who}: wait for it or stop it, or choose another hydra.run.dir"
        ) from None


def _release_in_child() -> None:
    # A forked loader worker that outlives its killed parent must not keep the run locked.
    for descriptor in _held_locks:
        os.close(descriptor)
    _held_locks.clear()


os.register_at_fork(after_in_child=_release_in_child)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
