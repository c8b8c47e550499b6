"""A task from config."""

from collections.abc import Iterator

from distill_app.config.build import Builder
from distill_app.config.inputs import statistics
from distill_app.config.plan import StagePlan
from distill_app.errors import ConfigError
from distill_app.tasks.base import Task

CONTEXT = ("normalize", "num_classes", "image_size")


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
    yield from builder.problems(plan.data.task, key=f"{plan.data_key}.task", context=CONTEXT)
