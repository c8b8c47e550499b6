"""What images networks get: as the data normalise them, or resized and normalised anew for one network. No torch."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from distill_app.config.plan import StagePlan, model_key, models_of
from distill_app.config.schema import AppConf, DatasetConf, InputConf, ModelConf, NormalizeConf

GREY = (0.2989, 0.587, 0.114)  # shares of red, green and blue in a grey value (ITU-R BT.601)


def statistics(data: DatasetConf) -> NormalizeConf:
    """Mean and deviation of the images as networks get them; those of grey images follow from the colours'."""
    given = data.normalize
    if data.channels != 1 or len(given.mean) != 3:
        return given
    mean = sum(share * value for share, value in zip(GREY, given.mean, strict=True))
    return NormalizeConf(mean=[mean], std=[sum(given.std) / len(given.std)])


def has_own_input(conf: InputConf) -> bool:
    """Whether images are changed for a network at all."""
    return any(value is not None for value in own_input(conf).values())


def own_input(conf: InputConf) -> dict[str, Any]:
    """What a network's input is, without how it was found."""
    return {name: value for name, value in asdict(conf).items() if name != "find"}


def channels_of(conf: ModelConf, data: DatasetConf) -> int:
    """How many channels the images have that a network gets."""
    return conf.input.channels or data.channels


def frozen_networks(plans: list[StagePlan]) -> set[str]:
    """The networks that stages read and none trains, but for stages that are skipped where what they train is there."""
    active = [plan for plan in plans if not plan.conf.skip_if_loaded]
    changed = {name for plan in active for name in plan.trained}
    changed |= {plan.network(role) for plan in active for role in plan.conf.init_from}
    return {name for plan in plans for name in plan.taps} - changed


def asks_timm(conf: ModelConf, *, frozen: bool) -> bool:
    """Whether what a network's input does not say is taken from timm."""
    if not isinstance(conf.net, Mapping) or str(conf.net.get("_target_")) != "timm.create_model":
        return False
    published = frozen and bool(conf.net.get("pretrained")) and not conf.checkpoint
    return published if conf.input.find is None else conf.input.find


def input_errors(app: AppConf, plans: list[StagePlan]) -> Iterator[str]:
    """Yields what is wrong with the inputs of networks, and with data of which they cannot be made."""
    told: list[InputConf] = []
    for name, model in models_of(app).items():
        conf, key = model.input, f"{model_key(app, name)}.input"
        if not has_own_input(conf) or conf in told:  # a network that is configured as another one has its errors
            continue
        problems = list(_wrong_values(conf, key))
        if not problems and (conf.mean is not None or conf.channels is not None):
            problems = list(dict.fromkeys(_unknown_statistics(app, plans, name, key)))
        told += [conf] if problems else []
        yield from problems


def _wrong_values(conf: InputConf, key: str) -> Iterator[str]:
    if conf.size is not None and conf.size < 1:
        yield f"{key}.size: must be at least 1 pixel, or null for the size of the data, got {conf.size}"
    if conf.channels not in (None, 1, 3):
        yield f"{key}.channels: must be 1 or 3, or null for those of the data, got {conf.channels}"
    if (conf.mean is None) != (conf.std is None):
        absent = "std" if conf.std is None else "mean"
        yield f"{key}.{absent}: is missing; mean and std belong together, both for images scaled to [0, 1]"
        return
    for part, values in (("mean", conf.mean), ("std", conf.std)):
        if values is not None and not (isinstance(values, list) and all(isinstance(v, int | float) for v in values)):
            yield f"{key}.{part}: must be a list of numbers, one per channel, got {values!r}"
            return
        if values is not None and len(values) not in ((conf.channels,) if conf.channels else (1, 3)):
            yield f"{key}.{part}: {len(values)} values, and the network gets {conf.channels or '1 or 3'} channels"
    if conf.std is not None and min(conf.std, default=1.0) <= 0:
        yield f"{key}.std: must be above 0, got {conf.std}"


def _unknown_statistics(app: AppConf, plans: list[StagePlan], name: str, key: str) -> Iterator[str]:
    """Data whose images cannot be taken back to [0, 1], which comes before they are normalised anew."""
    own = statistics(app.dataset)
    conf = models_of(app)[name].input
    if conf.mean is not None and conf.channels is None and len(conf.mean) != app.dataset.channels:
        count = f"{len(conf.mean)} values for images of {app.dataset.channels} channels"
        yield f"{key}.mean: {count}; {key}.channels={len(conf.mean)} says how many the network gets"
    for plan in plans:
        if name not in (*plan.taps, *plan.shape_taps):
            continue
        for part in ("train_transform", "eval_transform"):
            for number, transform in enumerate(getattr(plan.data, part)):
                if "Normalize" in _names(transform):
                    yield (
                        f"{plan.data_key}.{part}[{number}]: normalises images where {key} cannot see it; put mean and "
                        f"std into {plan.data_key}.normalize in its place"
                    )
        if statistics(plan.data) != own or plan.data.channels != app.dataset.channels:
            yield (
                f"{plan.data_key}.normalize: differs from dataset.normalize, and {key} takes images of one kind in all "
                f"stages; give both data sets the same normalize and channels"
            )


def _names(conf: Any) -> list[str]:
    """The last names of all targets in a config."""
    if isinstance(conf, Mapping):
        own = [str(conf["_target_"]).rpartition(".")[2]] if "_target_" in conf else []
        return [*own, *(name for value in conf.values() for name in _names(value))]
    return [name for value in conf for name in _names(value)] if isinstance(conf, list | tuple) else []
