"""Networks with an input of their own: what timm says of it, and whether images are what their data set says."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from distill_app.config.inputs import asks_timm, frozen_networks, statistics
from distill_app.config.plan import StagePlan, model_key, models_of
from distill_app.config.schema import AppConf
from distill_app.errors import CorruptImageError
from distill_app.tasks.images import ImageTask
from distill_app.training.experiment import Experiment

OUTSIDE = 0.3  # of the values of images that are scaled to [0, 1] lie elsewhere: they are something else


def fill_in_inputs(app: AppConf, plans: list[StagePlan]) -> None:
    """Writes into the config what timm says of the images of its networks, where it differs from the data."""
    frozen, data = frozen_networks(plans), app.dataset
    for name, conf in models_of(app).items():
        if not asks_timm(conf, frozen=name in frozen):
            continue
        told = _pretrained_cfg(str(conf.net.get("model_name")))
        if told is None:
            continue
        own, given = conf.input, statistics(data)
        channels, _, side = told.input_size
        if own.size is None and side != data.image_size:
            own.size = int(side)
        if own.channels is None and channels != data.channels:
            own.channels = int(channels)
        mean, std = [float(each) for each in told.mean], [float(each) for each in told.std]
        if own.mean is None and own.std is None and (own.channels or (mean, std) != (given.mean, given.std)):
            own.mean, own.std = mean, std
        own.find = False


def _pretrained_cfg(name: str) -> Any:
    """What timm says of a network, None where it is not there or does not know it: told where it is built."""
    try:
        return import_module("timm.models").get_pretrained_cfg(name)
    except (ImportError, RuntimeError, ValueError):
        return None


def unfit_images(experiment: Experiment) -> Iterator[str]:
    """Yields what keeps images from being normalised anew: a task that normalises otherwise, or images that are not
    what `normalize` of their data set says."""
    for plan in experiment.plans:
        anew = [name for name in plan.taps if (own := experiment.network(name).input) is not None and own.anew]
        if not anew:
            continue
        key, task = f"{model_key(experiment.app, anew[0])}.input", experiment.task(plan)
        if not isinstance(task, ImageTask):
            yield (
                f"{plan.data_key}.task: {type(task).__name__} derives from no task of images, so that nobody knows how "
                f"it normalises them; {key} cannot have mean, std or channels"
            )
            continue
        try:
            images = experiment.data.stage(plan).example_batch(task, device=experiment.device)["input"]
        except CorruptImageError:  # the business of runtime.corrupt_images
            continue
        raw = experiment.network(anew[0]).input.undone(images)  # type: ignore[union-attr]
        if ((raw < -0.1) | (raw > 1.1)).float().mean() > OUTSIDE:
            yield (
                f"{plan.data_key}.normalize: the first images, taken back by it, lie between {raw.min():.2f} and "
                f"{raw.max():.2f} and not in [0, 1], so that {key} cannot normalise them anew; set it to the mean and "
                f"std with which they were normalised"
            )
