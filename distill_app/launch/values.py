"""What may stand in a launcher's config: everything wrong with it, found before anything is submitted."""

from collections.abc import Iterator, Mapping
from typing import Any

PROCESSES = ("nodes", "tasks_per_node")
_WHOLE = {"gpus_per_node": 0, "cpus_per_task": 1, "array_parallelism": 1}  # or null; and the least
_WORDS = ("partition", "account", "qos", "constraint")
_SLURM_ALONE = (*_WORDS, "cpus_per_task", "mem_gb", "array_parallelism", "srun_args", "additional_parameters")


def problems(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the values of a launcher, one message per key, each with the key in front.

    Args:
        values: The arguments of `distill_app.launch.Submitit`, by name.
    """
    if values["cluster"] not in ("slurm", "local"):
        yield f"launcher.cluster is {values['cluster']!r}, allowed are slurm and local"
    for key in PROCESSES:
        if not _is_whole(values[key]) or values[key] < 1:
            yield f"launcher.{key}: must be a whole number of at least 1, got {values[key]!r}"
    gpus, tasks = values["gpus_per_node"], values["tasks_per_node"]
    if _is_whole(gpus) and gpus and _is_whole(tasks) and values["cluster"] == "slurm" and tasks > gpus:
        yield (
            f"launcher.tasks_per_node: {tasks} processes for {gpus} GPUs a node (launcher.gpus_per_node) would share "
            f"them; one for each is what pays"
        )
    for key, least in _WHOLE.items():
        if values[key] is not None and not (_is_whole(values[key]) and values[key] >= least):
            yield f"launcher.{key}: must be a whole number of at least {least}, or null, got {values[key]!r}"
    points = values["points_per_job"]
    if not _is_whole(points) or points < 1:
        yield f"launcher.points_per_job: must be a whole number of at least 1, got {points!r}"
    elif points > 1 and any(_is_whole(values[key]) and values[key] > 1 for key in PROCESSES):
        yield "launcher.points_per_job: runs that share a job are one process each; set launcher.tasks_per_node=1"
    if values["mem_gb"] is not None and not (_is_number(values["mem_gb"]) and values["mem_gb"] > 0):
        yield f"launcher.mem_gb: must be a number above 0, or null, got {values['mem_gb']!r}"
    for key in _WORDS:
        if values[key] is not None and not (isinstance(values[key], str | int) and str(values[key]).strip()):
            yield f"launcher.{key}: must be a word, or null for the cluster's own, got {values[key]!r}"
    yield from _times(values)
    yield from _lines(values)
    for key in ("wait", "dry_run"):
        if not isinstance(values[key], bool):
            yield f"launcher.{key}: must be true or false, got {values[key]!r}"
    if values["cluster"] == "local":
        if values["nodes"] != 1:
            yield f"launcher.nodes is {values['nodes']!r}, a local job is on this machine alone: 1, or launcher=slurm"
        for key in _SLURM_ALONE:
            if values[key]:
                yield f"launcher.{key} is {values[key]!r}, but a local job has no such thing; null, or launcher=slurm"


def idle(values: Mapping[str, Any]) -> Iterator[str]:
    """What is asked for and nothing would use, in words.

    Args:
        values: The arguments of `distill_app.launch.Submitit`, by name.
    """
    gpus, tasks = values["gpus_per_node"] or 0, values["tasks_per_node"]
    if gpus > tasks and values["points_per_job"] == 1:
        more = f"launcher.tasks_per_node={gpus} has all of them work, launcher.gpus_per_node={tasks} asks for no more"
        yield f"launcher.gpus_per_node: {gpus} GPUs a node for {tasks} process{'es' * (tasks > 1)}, of one each; {more}"


def _times(values: Mapping[str, Any]) -> Iterator[str]:
    minutes, delay, requeues = values["timeout_min"], values["signal_delay_s"], values["max_num_timeout"]
    if not _is_whole(requeues) or requeues < 0:
        yield f"launcher.max_num_timeout: must be a whole number of at least 0, got {requeues!r}"
    if not _is_whole(minutes) or minutes < 1:
        yield f"launcher.timeout_min: must be a whole number of at least 1, got {minutes!r}"
    elif not _is_whole(delay) or not 0 < delay < 60 * minutes:
        yield (
            f"launcher.signal_delay_s: is when a job is told to save, in seconds before its {minutes} min are over "
            f"(launcher.timeout_min); must be a whole number from 1 to {60 * minutes - 1}, got {delay!r}"
        )


def _lines(values: Mapping[str, Any]) -> Iterator[str]:
    for key in ("setup", "srun_args"):
        lines = values[key]
        if not isinstance(lines, list | tuple) or not all(isinstance(each, str) for each in lines):
            yield f"launcher.{key}: must be a list of texts, got {lines!r}; numbers stand in quotes"
    more = values["additional_parameters"]
    if not isinstance(more, Mapping):
        yield f"launcher.additional_parameters: must be options of sbatch with their values, got {more!r}"
        return
    for name, value in more.items():
        if not isinstance(value, str | int | float | bool):
            yield f"launcher.additional_parameters.{name}: must be a text or number, or true for a flag, got {value!r}"
        elif str(name).replace("-", "_") in _RENAMED:
            here = _RENAMED[str(name).replace("-", "_")]
            yield f"launcher.additional_parameters.{name}: has a key of its own, or is set by the program; use {here}"


# Options of sbatch that would overwrite what another key says, or what a requeue and the logs depend on.
_RENAMED = {
    **{key: f"launcher.{key}" for key in (*PROCESSES, *_WHOLE, *_WORDS)},
    "time": "launcher.timeout_min",
    "mem": "launcher.mem_gb",
    "signal": "launcher.signal_delay_s",
    "array": "-m and launcher.array_parallelism",
    "ntasks_per_node": "launcher.tasks_per_node",
    "output": "distill logs RUN",
    "error": "distill logs RUN",
}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_LIMIT = "limit"  # of an account or QOS, which says nothing about the keys
# What sbatch says -> the key that it is about.
_REFUSALS = (
    ("job submit limit", _LIMIT),
    ("accounting/qos", _LIMIT),
    ("invalid partition", "launcher.partition"),
    ("account", "launcher.account"),
    ("qos", "launcher.qos"),
    ("generic resource", "launcher.gpus_per_node"),
    ("invalid gres", "launcher.gpus_per_node"),
    ("feature", "launcher.constraint"),
    ("time limit", "launcher.timeout_min"),
    ("memory", "launcher.mem_gb"),
    ("cpu count", "launcher.cpus_per_task"),
    ("processors", "launcher.cpus_per_task"),
    ("job array", "launcher.array_parallelism"),
    ("unrecognized option", "launcher.additional_parameters"),
    ("unknown option", "launcher.additional_parameters"),
)


def refusal(text: str, values: Mapping[str, Any]) -> str:
    """What sbatch said, with the key that it is about and what to type.

    Args:
        text: What sbatch printed.
        values: The arguments of the launcher.
    """
    said = text.lower()
    key = next((key for words, key in _REFUSALS if words in said), None)
    if key is None and "node configuration" in said:
        asked = [f"launcher.{name}={values[name]}" for name in (*_WHOLE, "mem_gb", "constraint") if values.get(name)]
        asked = [each for each in asked if "array" not in each]
        return f"no node has all that is asked for; less of {', '.join(asked)}{_no_gpu(values)}"
    if key is None:
        return "see launcher.*"
    if key == _LIMIT:
        return (
            "more jobs, time or resources than your account or QOS may have at once: fewer points, a shorter "
            "launcher.timeout_min, or another launcher.qos"
        )
    if key == "launcher.gpus_per_node":
        return f"{key} is {values['gpus_per_node']}; without GPUs on the cluster: {key}=null"
    if key == "launcher.array_parallelism":
        return "an array that the cluster does not allow, too large perhaps (MaxArraySize): split the sweep"
    return f"{key} is {values.get(key.partition('.')[2])!r}"


def _no_gpu(values: Mapping[str, Any]) -> str:
    return "; without GPUs on the cluster: launcher.gpus_per_node=null" if values.get("gpus_per_node") else ""
