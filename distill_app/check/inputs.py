"""Networks with an input of their own: what timm says of it, and whether images are what their data set says."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from distill_app.config.inputs import asks_timm, frozen_networks, statistics
from distill_app.config.plan import StagePlan, model_key, models_of
from distill_app.config.schema import AppConf, DatasetConf, InputConf
from distill_app.errors import CorruptImageError
from distill_app.tasks.images import ImageTask
from distill_app.training.experiment import Experiment
from distill_app.words import warn

OUTSIDE = 0.3  # of the values of images that are scaled to [0, 1] lie elsewhere: they are something else


def fill_in_inputs(app: AppConf, plans: list[StagePlan]) -> Iterator[str]:
    """Writes into the config what timm says of the images of its networks, where it differs from the data.

    Yields:
        An error for each network that timm shall be asked for and says nothing of; where nobody said so, it warns.
    """
    frozen = frozen_networks(plans)
    for name, conf in models_of(app).items():
        own, key = conf.input, f"{model_key(app, name)}.input"
        if not asks_timm(conf, frozen=name in frozen):
            continue
        told, reason = _told_by_timm(conf.net)
        if told is not None:
            _write(told, own, app.dataset)
        elif reason and (own.size is None or own.mean is None):
            text = f"of {conf.net.get('model_name')}, timm says nothing ({reason})"
            remedy = f"write {key}.size, mean and std"
            if own.find:
                yield f"{key}.find: {text}; {remedy}, or find=false for images as the data have them"
            else:
                warn(f"{key}: {text}, so it gets images as the data have them; where that is wrong, {remedy}")


def _write(told: Mapping[str, Any], own: InputConf, data: DatasetConf) -> None:
    given = statistics(data)
    channels, _, side = told["input_size"]
    if own.size is None and side != data.image_size:
        own.size = int(side)
    if own.channels is None and channels != data.channels:
        own.channels = int(channels)
    mean, std = [float(each) for each in told["mean"]], [float(each) for each in told["std"]]
    if own.mean is None and own.std is None and (own.channels or (mean, std) != (given.mean, given.std)):
        own.mean, own.std = mean, std
    own.find = False


def _told_by_timm(net: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str]:
    """What timm says of a network, else None and why; no reason where building the network tells it."""
    name = str(net.get("model_name"))
    try:
        told = _pretrained_cfg(name, cache_dir=net.get("cache_dir"))
    except ImportError:
        return None, ""
    except Exception as error:  # of many kinds, of several packages
        return None, (str(error).splitlines() or [type(error).__name__])[0]
    if told is None:
        return None, "it has no published weights"
    lacking = [each for each in ("input_size", "mean", "std") if not told.get(each)]
    return (None, f"its config has no {lacking[0]}") if lacking else (told, "")


def _pretrained_cfg(name: str, *, cache_dir: Any) -> Any:
    """The config of a network's weights: of a name of timm's own, of a folder, or of an id on the hub."""
    models, hub = import_module("timm.models"), import_module("timm.models._hub")
    source, place = models.parse_model_name(name)
    if source == "local-dir":
        return hub.load_model_config_from_path(place)[0]
    if source == "hf-hub":
        return hub.load_model_config_from_hf(place, cache_dir=cache_dir)[0]
    told = models.get_pretrained_cfg(name)
    return None if told is None else told.to_dict()


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
