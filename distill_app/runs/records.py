"""What a run leaves behind besides metrics: configuration, code, environment, data, status; and its lock."""

import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from email import message_from_string
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distill_app.errors import DataError
from distill_app.runs.claim import write_config
from distill_app.runs.files import read_object, write_json, write_text
from distill_app.runs.starts import write_starts
from distill_app.words import warn

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


def write_records(
    output_dir: str | os.PathLike[str], *, cfg: DictConfig, command: list[str], data: Mapping[str, Any]
) -> None:
    """Writes down what is needed to run this again: configuration, command, code, environment, data.

    Files: `config_resolved.yaml`, `command.txt`, `git.json` (and `git.diff` when the code was changed),
    `env.json`, `data.json`, and `weights.json` where networks start from files. Only an allow-list of environment
    variables is recorded.
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, cfg)
    write_text(folder / "command.txt", shlex.join(command) + "\n")
    state, diff = git_state()
    write_json(folder / "git.json", state)
    if diff:
        write_text(folder / "git.diff", diff)
    else:
        (folder / "git.diff").unlink(missing_ok=True)
    write_json(folder / "env.json", environment(cfg))
    write_json(folder / "data.json", data)
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    write_starts(folder, resolved)


def write_hydra_records(output_dir: str | os.PathLike[str], *, cfg: DictConfig, hydra: Any) -> None:
    """Writes what Hydra would write to `.hydra`: the composed config, Hydra's own, and the overrides.

    Hydra does it before it calls the program, also over those of another run in the same folder; therefore the config
    tells it not to (`hydra.output_subdir: null`), and the program does it when the folder is its own.
    """
    folder = Path(output_dir) / ".hydra"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg))
    write_text(folder / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})))
    write_text(folder / "overrides.yaml", OmegaConf.to_yaml(hydra.overrides.task))


def refuse_other_data(output_dir: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
    """Refuses to go on with a run whose labels would mean other classes than before, or whose images would be others.

    Args:
        output_dir: The run's folder, with the `data.json` of its beginning.
        data: What its stages would see now.

    Raises:
        DataError: The names of classes or their order have changed, or which images are for training and test.
    """
    file = Path(output_dir) / "data.json"
    before = read_object(file) if file.exists() else {}
    if before is None:
        raise DataError(
            f"{file} cannot be read, so nobody knows whether labels mean the same classes as when this run began; if "
            f"the data are as they were, remove it and resume"
        )
    for stage, now in data.items():
        if changed := _other_classes(before.get(stage), now):
            raise DataError(
                f"the classes of stage {stage} are not those that this run began with, so labels would mean others: "
                f"{changed} ({file}); put the data back as they were, or begin a new run"
            )
        if changed := _other_images(before.get(stage), now):
            raise DataError(
                f"the images of stage {stage} are not those that this run began with, so it might be tested on what it "
                f"was trained on: {changed} ({file}); put the files back as they were, or begin a new run"
            )


def refuse_to_judge_on_other_data(output_dir: str | os.PathLike[str], stage: str, now: Any) -> None:
    """Refuses to judge networks of a run by other classes, or on images of which it may have trained them on some.

    Where the test has images of its own, other ones are no mistake, and are told.

    Args:
        output_dir: The run's folder, with the `data.json` of its beginning.
        stage: On whose data they are judged.
        now: What it sees now.

    Raises:
        DataError: The names of classes or their order have changed, or images are shared otherwise than then.
    """
    file = Path(output_dir) / "data.json"
    then = (read_object(file) or {}).get(stage)
    if changed := _other_classes(then, now):
        raise DataError(
            f"the classes of stage {stage} are not those that {output_dir} was trained with, so labels mean others: "
            f"{changed} ({file}); put the data back as they were"
        )
    changed = _other_images(then, now)
    if changed and drawn_anew(_images(then), _images(now)):
        raise DataError(
            f"the images of stage {stage} are not those that {output_dir} was trained with, so their share for the "
            f"test was drawn anew and has some that it was trained on: {changed} ({file}); put the files back as they "
            f"were, or train anew: distill rerun {shlex.quote(str(output_dir))}"
        )
    if changed:
        warn(f"the images of stage {stage} are not those that {output_dir} had: {changed} ({file})")


def drawn_anew(then: Any, now: Any) -> bool:
    """Whether a seed shares images into training and test, and others are for training than before.

    Args:
        then: How images were divided, as `data.json` says.
        now: The same of now.
    """
    if not (isinstance(then, Mapping) and isinstance(now, Mapping) and "split_seed" in now):
        return False
    content = [each.get("of") for each in (then, now)]  # of images that have no names
    trained = [hashes.get("train") if isinstance(hashes := each.get("hash"), Mapping) else None for each in (then, now)]
    return trained[0] != trained[1] or (None not in content and content[0] != content[1])


def _other_classes(then: Any, now: Any) -> str:
    """In which classes data differ; nothing where one of both has none."""
    old, new = _classes(then), _classes(now)
    if old is None or new is None or old == new:
        return ""
    changed = [*(f"{name} is gone" for name in old if name not in new)]
    changed += [f"{name} is new" for name in new if name not in old]
    return ", ".join(changed[:5]) or "their order is another"


def _other_images(then: Any, now: Any) -> str:
    """In which images data differ, where both say how they are divided."""
    old, new = _images(then), _images(now)
    return "" if old is None or new is None or old == new else f"{counts_text(old)} then, {counts_text(new)} now"


def _classes(identity: Any) -> Any:
    return identity.get("classes") if isinstance(identity, Mapping) else None


def _images(identity: Any) -> Mapping[str, Any] | None:
    split = identity.get("split") if isinstance(identity, Mapping) else None
    return split if isinstance(split, Mapping) else None


def counts_text(split: Mapping[str, Any]) -> str:
    """How many images are for what, in words."""
    counts = split.get("images")
    return ", ".join(f"{count} {part}" for part, count in counts.items()) if isinstance(counts, Mapping) else "others"


def git_state() -> tuple[dict[str, Any], str]:
    """Commit, branch and changes of the code that runs, and the difference to the commit as text.

    It is the repository of the package where that is a checkout, else the one of the working directory
    (the user's own methods); a package installed inside an ignored `.venv` of a project counts as neither.
    """
    package = Path(__file__).resolve().parents[1]
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


@cache
def installed(path: tuple[str, ...]) -> dict[str, str]:
    """Name -> version of all packages, read once in a process: each run of a sweep writes them down.

    Args:
        path: Where Python looks for packages.
    """
    found = {}
    for package in metadata.distributions(path=list(path)):
        # The description behind the first empty line is most of the file, and nobody asks for it.
        head = (package.read_text("METADATA") or package.read_text("PKG-INFO") or "").partition("\n\n")[0]
        told = message_from_string(head)
        if told["Name"]:
            found[told["Name"]] = told["Version"]
    return found


def environment(cfg: DictConfig) -> dict[str, Any]:
    """Python, packages, hardware, threads, determinism flags, seed and the thread-related variables."""
    import torch

    cuda = torch.cuda.is_available()
    packages = installed(tuple(sys.path))
    names = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "timm", "distill-app")
    return {
        "python": sys.version,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": processor(),
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


def processor() -> str | None:
    """The model of the processor, None where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
