"""Whether the processes of a run can share out its batches."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from distill_app.config.plan import StagePlan
from distill_app.config.schema import AppConf
from distill_app.errors import ConfigError, DataError
from distill_app.launch.detached import gpu_count


def processes_of(app: AppConf) -> tuple[int, str]:
    """How many processes carry out a run together, and what says so; what is no number counts as one."""
    launcher: Any = app.launcher
    target = str(launcher.get("_target_", "")).rpartition(".")[2]
    if target == "Local" and "RANK" in os.environ:
        return _whole(os.environ.get("WORLD_SIZE")), "WORLD_SIZE"
    tasks = _whole(launcher.get("tasks_per_node"))
    if target == "Submitit":
        return _whole(launcher.get("nodes")) * tasks, "launcher.nodes x launcher.tasks_per_node"
    if target == "Ddp":
        alone = launcher.get("tasks_per_node") is None
        return max(1, gpu_count()) if alone else tasks, "launcher.tasks_per_node"
    return 1, ""


def start_errors(app: AppConf) -> Iterator[str]:
    """Processes that were started together and do not know of each other: each would carry out a run of its own."""
    environment = os.environ
    alone = str(app.launcher.get("_target_", "")).rpartition(".")[2] == "Local"
    size, tasks = _whole(environment.get("WORLD_SIZE")), _whole(environment.get("SLURM_STEP_NUM_TASKS"))
    if "RANK" in environment and size > 1 and not alone:
        yield (
            f"launcher: torchrun, or the like, has started {size} processes, and each of them would launch the run "
            f"anew; use launcher=local, or start one process"
        )
    elif tasks > 1 and alone and not {"RANK", "SUBMITIT_EXECUTOR"} & environment.keys():
        yield (
            f"launcher: srun has started {tasks} processes, and each of them would carry out the same run; start one, "
            f"with launcher=slurm launcher.tasks_per_node={tasks}, or launcher=ddp launcher.tasks_per_node={tasks}"
        )


def _whole(value: Any) -> int:
    text = str(value)
    return max(1, int(text)) if text.isdigit() else 1


def share_errors(app: AppConf, plans: Sequence[StagePlan]) -> Iterator[str]:
    """Batches that do not divide; told without looking at the data."""
    processes, key = processes_of(app)
    if processes == 1 and app.runtime.parallel == "fsdp":
        yield (
            "runtime.parallel: fsdp lays a network out on several processes, and there is one; name more, such as "
            "launcher=ddp launcher.tasks_per_node=2, or set runtime.parallel=ddp"
        )
    for plan in plans:
        size = plan.conf.batch_size
        if processes > 1 and size >= 1 and size % processes and plan.data.batch_sampler is None:
            near = max(1, round(size / processes)) * processes
            yield (
                f"{plan.key}.batch_size: is that of all processes together, and {size} samples cannot be shared out "
                f"evenly among {processes} ({key}); {near} can"
            )


def tail_errors(app: AppConf, plans: Sequence[StagePlan], *, source: Any) -> Iterator[str]:
    """Last batches of which some process would have nothing.

    Args:
        app: The typed config.
        plans: Its stages.
        source: Of their data.
    """
    processes, key = processes_of(app)
    for plan in plans if processes > 1 else ():
        try:
            sizes = source.order(plan).sizes
        except (ConfigError, DataError):  # told by whoever looks at the data
            continue
        if (last := min(sizes)) < processes:
            yield (
                f"{plan.key}.batch_size: leaves a batch of {last} samples for {processes} processes ({key}); set "
                f"{plan.key}.drop_last=true, or another batch_size"
            )
