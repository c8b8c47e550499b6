"""A task from config."""

from collections.abc import Iterator
from typing import Any

from distill_app.config.binding import accepts
from distill_app.config.build import Builder
from distill_app.config.inputs import statistics
from distill_app.config.plan import StagePlan
from distill_app.config.schema import NormalizeConf
from distill_app.errors import ConfigError
from distill_app.tasks.base import Task

CONTEXT = ("normalize", "num_classes", "image_size")
NONE = NormalizeConf()


def task_of(plan: StagePlan, builder: Builder) -> Task:
    """The task that the data of a stage is for.

    Raises:
        ConfigError: It cannot be built, or is no task.
    """
    data, key = plan.data, f"{plan.data_key}.task"
    context = {**{name: getattr(data, name) for name in CONTEXT}, "normalize": statistics(data)}
    task = builder.build(data.task, key=key, **context)
    if not isinstance(task, Task):
        raise ConfigError([f"{key}: {type(task).__name__} is no task; derive it from distill_app.tasks.Task"])
    return task


def task_problems(plan: StagePlan, builder: Builder) -> Iterator[str]:
    """What is wrong with the task's config."""
    conf, key = plan.data.task, f"{plan.data_key}.task"
    problems = builder.problems(conf, key=key, context=CONTEXT)
    yield from problems or _without_effect(plan, builder.locate(conf["_target_"], key=key))


def _without_effect(plan: StagePlan, target: Any) -> Iterator[str]:
    """Statistics that nobody would normalise by."""
    if getattr(target, "own_sizes", False) and not accepts(target, "normalize") and plan.data.normalize != NONE:
        yield (
            f"{plan.data_key}.normalize: has no effect, networks of {target.__name__} normalise images themselves; "
            f"leave it out, or give torchvision's detectors theirs: +student.net.image_mean=[...] and image_std=[...]"
        )
