"""Taps that no config has: found in the networks, and written into the config, before anything is planned or stored."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from distill_app.config.build import Builder
from distill_app.config.inputs import channels_of, own_input
from distill_app.config.plan import ROLES, model_key, models_of
from distill_app.config.schema import AppConf, InputConf, ModelConf
from distill_app.config.start import ASKING
from distill_app.errors import ConfigError, SettingError
from distill_app.networks.finding import Found, find_taps
from distill_app.networks.network import built
from distill_app.networks.tracing import SIDE, Trace, seen, traced
from distill_app.seeds import seeded


def fill_in_taps(app: AppConf, wanted: Mapping[str, Sequence[str]]) -> tuple[list[str], bool]:
    """Finds taps and writes them into the config; those that are written there stay.

    Args:
        app: The typed config; the taps of its networks are added to.
        wanted: The taps that are read and not written, by network.

    Returns:
        What is wrong: a tap that is read and not found; and whether a network could not be built, which is told where
        it is built for good.
    """
    errors, unbuilt = [], False
    told: list[Any] = []
    for name, names in sorted(wanted.items(), key=lambda item: item[0] not in ROLES):
        conf, key = models_of(app)[name], model_key(app, name)
        if (conf.net, names) in told:  # a network that is configured as another one has its errors
            continue
        data, allow = app.dataset, list(app.runtime.allow)
        about = {"net": conf.net, "input": own_input(conf.input), "allow": allow}
        about |= {"channels": channels_of(conf, data), "side": conf.input.size or data.image_size}
        try:
            found, saw = _found(json.dumps(about, default=str), app.dataset.num_classes)
        except ConfigError:
            unbuilt = True
            continue
        except SettingError as error:
            if not names:  # a part of it may have a path of its own; if it has none, that is told where it is looked up
                continue
            told.append((conf.net, names))
            nothing = f"{key}.taps: nothing could be found in {_called(conf)}"
            errors.append(f"{nothing}: {error}; {_remedy(app, name, names)}")
            continue
        conf.taps.update({tap: path for tap, path in found.taps.items() if tap not in conf.taps})
        conf.find_taps = True
        absent = [tap for tap in names if tap not in conf.taps]
        if absent:
            told.append((conf.net, names))
            reasons = dict.fromkeys(found.missing.get(tap, "no such tap is looked for") for tap in absent)
            errors.append(
                f"{key}.taps: {', '.join(absent)} not found in {_called(conf)} ({'; '.join(reasons)}); found: "
                f"{', '.join(conf.taps) or 'none'}; {saw}; {_remedy(app, name, absent)}"
            )
    return errors, unbuilt


def fill_in_referred_taps(cfg: DictConfig, role: str) -> None:
    """Finds the taps of a network to whose taps other keys refer, `${student.taps.stage4}`, before that is resolved.

    Args:
        cfg: The composed config; the taps of the network are added to.
        role: Its key.
    """
    try:
        conf: Any = OmegaConf.to_container(cfg[role], resolve=True)
        data, own = cfg.dataset, conf["input"]
        about = {"net": conf["net"], "input": {name: value for name, value in own.items() if name != "find"}}
        about |= {"channels": own["channels"] or data.channels, "side": own["size"] or data.image_size}
        found, _ = _found(json.dumps({**about, "allow": list(cfg.runtime.allow)}, default=str), data.num_classes)
    except (OmegaConfBaseException, ConfigError, SettingError):
        return  # told where the taps are read, or as a reference that fails
    cfg[role].taps = {**found.taps, **conf["taps"]}
    cfg[role].find_taps = True


def _called(conf: ModelConf) -> str:
    return str(conf.net.get("model_name") or conf.net.get("name") or conf.net.get("_target_"))


def _remedy(app: AppConf, name: str, names: Sequence[str]) -> str:
    key, tap = model_key(app, name), "logits" if "logits" in names else names[0]
    entry = f"'+{key}.taps.{tap}=PATH'" if name in ROLES else f"{tap}: PATH there"
    shown = f" (distill taps {key} ... prints the modules)" if name in ROLES else ""
    return f"write {entry}, to the module that gives it{shown}"


@lru_cache(maxsize=64)
def _found(about: str, num_classes: int) -> tuple[Found, str]:
    """The taps of a network by all that they depend on, so that the points of a sweep look once."""
    conf = json.loads(about)
    module, trace = opened_up(
        ModelConf(net=conf["net"], input=InputConf(**conf["input"])),
        channels=conf["channels"],
        side=conf["side"],
        allow=conf["allow"],
        key="net",
    )
    return find_taps(module, trace, num_classes=num_classes), seen(trace)


def opened_up(
    conf: ModelConf, *, channels: int, side: int | None, allow: Sequence[str], key: str, only: bool = False
) -> tuple[nn.Module, Trace]:
    """A network without weights from elsewhere, and a forward of it; for looking at and nothing else.

    Args:
        conf: The network.
        channels: Of the images.
        side: Of the images of the data.
        allow: Packages beside those of the program from which it may be built.
        key: Its config key.
        only: Whether images of that side alone are tried. Else those that the network was made for go first: on large
            ones stages differ in size that are all of one pixel on small ones.

    Raises:
        ConfigError: It cannot be built.
        SettingError: It cannot run.
    """
    with seeded(0, "taps"):
        module = built(Builder(allow), replace(conf, net=_without_weights(conf.net)), key, channels=channels)
        sides = [side] if only and side else [*_own_side(module), SIDE, *([side] if side else [])]
        return module, traced(module, [(channels, each) for each in sides])


def _without_weights(net: Any) -> Any:
    """The config without what asks timm or torchvision for weights: files of hundreds of MB, for names alone."""
    if isinstance(net, Mapping):
        known = str(net.get("_target_", "")).startswith(("timm.", "torchvision."))
        return {k: _without_weights(v) for k, v in net.items() if not (known and k in ASKING)}
    return [_without_weights(each) for each in net] if isinstance(net, list | tuple) else net


def _own_side(module: nn.Module) -> list[int]:
    """The side of the images that a network says it is for, as those of timm do."""
    told: Any = getattr(module, "pretrained_cfg", None)
    told = told if isinstance(told, Mapping) else {}
    size = told.get("input_size")
    return [int(size[-1])] if isinstance(size, list | tuple) and size else []
