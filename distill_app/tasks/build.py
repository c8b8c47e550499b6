"""A task from config."""

from collections.abc import Iterator

from distill_app.config.build import Builder
from distill_app.config.plan import StagePlan
from distill_app.config.schema import DatasetConf, NormalizeConf
from distill_app.errors import ConfigError
from distill_app.tasks.base import Task

GREY = (0.2989, 0.587, 0.114)  # shares of red, green and blue in a grey value (ITU-R BT.601)
CONTEXT = ("normalize", "num_classes", "image_size")


def task_of(plan: StagePlan, builder: Builder) -> Task:
    """The task that the data of a stage is for.

    Raises:
        ConfigError: It cannot be built, or is no task.
    """
    data, key = plan.data, f"{plan.data_key}.task"
    context = {**{name: getattr(data, name) for name in CONTEXT}, "normalize": statistics_of(data)}
    task = builder.build(data.task, key=key, **context)
    if not isinstance(task, Task):
        raise ConfigError([f"{key}: {type(task).__name__} is no task; derive it from distill_app.tasks.Task"])
    return task


def statistics_of(data: DatasetConf) -> NormalizeConf:
    """Mean and deviation of the images as networks get them; those of grey images follow from the colours'."""
    given = data.normalize
    if data.channels != 1 or len(given.mean) != 3:
        return given
    mean = sum(share * value for share, value in zip(GREY, given.mean, strict=True))
    return NormalizeConf(mean=[mean], std=[sum(given.std) / len(given.std)])


def task_problems(plan: StagePlan, builder: Builder) -> Iterator[str]:
    """What is wrong with the task's config."""
    yield from builder.problems(plan.data.task, key=f"{plan.data_key}.task", context=CONTEXT)
