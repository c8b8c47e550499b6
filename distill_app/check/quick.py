"""What can be wrong with a config and is found without torch, in milliseconds: keys, types, schedule, addresses, roots.

What only building can find, `check.shapes` does; all of it is told before the first batch, in one list.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill_app.check.cache import cache_errors
from distill_app.check.interpolations import interpolation_errors
from distill_app.check.lookup import fill_in_referred, with_found_inputs, with_found_taps
from distill_app.check.share import share_errors, start_errors
from distill_app.check.suggest import Suggestions
from distill_app.check.values import wrong_values
from distill_app.check.weights import weights_errors
from distill_app.config.build import Builder
from distill_app.config.each import written_out
from distill_app.config.groups import merged_content, options_of
from distill_app.config.inherit import PARTS, inherit
from distill_app.config.inputs import input_errors
from distill_app.config.plan import ROLES, StagePlan, model_key, models_of, networks_read
from distill_app.config.planning import plan_stages
from distill_app.config.schema import AppConf
from distill_app.data.presence import classes_of, missing_data
from distill_app.errors import ConfigError
from distill_app.words import unknown, warn

FOREIGN = (
    "this config is not built on this program's own: begin the defaults list of a file of yours with `- config`, and "
    "name it with --config-dir FOLDER --config-name FILE; from Python: distill_app.compose. To start a stored run "
    "again: distill rerun RUN key=value"
)


def check(cfg: DictConfig, *, thorough: bool = True) -> Iterator[str]:
    """Yields every error, those found quickly first.

    Args:
        cfg: The composed config; it is not changed.
        thorough: False: whatever is found quickly is all that is told. Who waits for the answer gets it within a
            second, and need not wait for the import of torch.
    """
    errors, app, plans = read(cfg)
    yield from errors
    if app is not None and (thorough or not errors):
        from distill_app.check.shapes import opened

        if errors:
            plans, problems = with_found_taps(app, plans)
            new = [text for text in problems if text not in errors]
            yield from new
            errors += new
        try:
            opened(app, plans, told=errors).close()
        except ConfigError as error:
            yield from (text for text in error.errors if text not in errors)


def read(cfg: DictConfig) -> tuple[list[str], AppConf | None, list[StagePlan]]:
    """The quick part: the errors, and the typed config with its plans if it could be read.

    Where nothing is wrong, taps that nobody wrote are found in the networks, which takes torch and a forward of each.
    """
    resolved = cfg.copy()
    OmegaConf.set_struct(resolved, False)
    errors = [*_told(cfg, _dead_keys(resolved, "")), *_ghost_stages(resolved)]
    fill_in(resolved)
    try:
        errors += inherit(resolved)
        missing = [f"{key}: is missing; set it: '{key}=...'" for key in sorted(missing_keys(resolved, ""))]
        if missing:
            return errors + missing, None, []
        fill_in_referred(resolved)
        shared = _shared(resolved)
        OmegaConf.missing_keys(resolved)  # names the key whose interpolation fails, which `resolve` does not
        OmegaConf.resolve(resolved)
        app = OmegaConf.to_object(resolved)
    except OmegaConfBaseException as error:
        unresolved = cfg.copy()
        OmegaConf.set_struct(unresolved, False)
        list(_dead_keys(unresolved, ""))
        failed = interpolation_errors(unresolved)
        return [*errors, *(failed or [f"{error.full_key or 'config'}: {str(error).splitlines()[0]}"])], None, []
    if not isinstance(app, AppConf):
        raise TypeError("the config is not an AppConf; compose it with distill_app.compose")
    try:
        app = written_out(app)
    except ConfigError as error:
        return [*errors, *error.errors], None, []
    errors += _called_like_models(app)
    plans, problems = plan_stages(app)
    errors += problems or _unread_networks(app, plans)
    errors += unbuildable(app, plans)
    errors += weights_errors(app)
    errors += with_found_inputs(app, plans)
    errors += input_errors(app, plans)
    for data_key, data in {plan.data_key: plan.data for plan in plans}.items():
        errors += missing_data(data, key=data_key)
    errors += (_of_its_source(text, shared) for text in wrong_values(app, plans))
    errors += start_errors(app)
    errors += (_of_its_source(text, shared) for text in share_errors(app, plans))
    errors += cache_errors(app, plans)
    if not errors:
        plans, problems = with_found_taps(app, plans)
        errors += problems
    return list(dict.fromkeys(errors)), app, plans


def fill_in(cfg: DictConfig) -> None:
    """Finds the classes of own images, and counts them where the config leaves `num_classes` open.

    It is done before anything is resolved, and the names stay with the config: labels mean the same wherever it goes.
    """
    stages = [stage for part in ("prelude", "method") for stage in cfg[part].stages.values()]
    for data in (cfg.dataset, *(stage.data for stage in stages)):
        with suppress(OmegaConfBaseException):  # what cannot be resolved is told by whoever resolves the config
            if data is not None:
                _fill_in(data)


def _fill_in(data: DictConfig) -> None:
    counted = not OmegaConf.is_missing(data, "num_classes")
    classes = None if counted and data.classes is not None else classes_of(data)
    if classes is not None and not counted:
        # Without a folder the data are refused; that the rest is checked too, there is some number.
        data.num_classes = len(classes) or 1000
    if classes and data.classes is None and "classes" in data.train and len(classes) == data.num_classes:
        data.classes = classes


def _shared(cfg: DictConfig) -> dict[str, str]:
    """Keys of stages that take the value of another key -> that key."""
    found = {}
    for part in PARTS:
        stages: Any = OmegaConf.to_container(cfg[part].stages, resolve=False)
        for name, stage in stages.items():
            for field, value in stage.items():
                if source := re.fullmatch(r"\$\{([\w.]+)\}", str(value)):
                    found[f"{part}.stages.{name}.{field}"] = source[1]
    return found


def _of_its_source(text: str, shared: Mapping[str, str]) -> str:
    """An error of a value told of the key where it was written, once for all stages that share it."""
    key, colon, rest = text.partition(": ")
    return f"{shared.get(key, key)}{colon}{rest}"


def _told(cfg: DictConfig, dead: Iterator[tuple[str, str, list[str]]]) -> Iterator[str]:
    """The words for keys that nothing reads."""
    for path, value, known in dead:
        name = path.rpartition(".")[2]
        lines = Suggestions(cfg).lines(path, value) if "." not in path else []
        lines = [line for line in lines if line.partition("=")[0] != path]
        yield f"{path}: {unknown('key', name, known)}" + (f"; write '{lines[0]}'" if lines else "")


def _called_like_models(app: AppConf) -> Iterator[str]:
    """Networks that are called like an option of the group `model` and are another: a list of names is no choice."""
    options = options_of("model")
    for name, conf in app.method.extra_models.items():
        if name in options and conf.name != name:
            yield (
                f"method.extra_models.{name}: is called like model={name} and is {conf.name or 'another'}; write "
                f"'+model@method.extra_models.{name}={name}' too, or give it another name"
            )


def unbuildable(app: AppConf, plans: list[StagePlan]) -> Iterator[str]:
    """What says nothing to build, most often since it is the name of an option, and what nobody allowed."""
    builder = Builder(app.runtime.allow)
    told: list[Any] = []
    for conf, key in _built(app, plans):
        if conf not in told:  # a network that is configured as another one has its errors
            errors = builder.foreign(conf, key=key)
            told += [conf] if errors else []
            yield from errors


def _built(app: AppConf, plans: list[StagePlan]) -> Iterator[tuple[Any, str]]:
    """All that is built from a `_target_`, with its key."""
    yield app.launcher, "launcher"
    yield from ((conf, f"tracker.{name}") for name, conf in app.tracker.items() if conf not in (None, False))
    for name, model in models_of(app).items():
        yield model.net, f"{model_key(app, name)}.net"
    for plan in plans:
        yield plan.optimizer, plan.optimizer_key
        if plan.scheduler.schedule is not None:
            yield plan.scheduler.schedule, f"{plan.scheduler_key}.schedule"
        for part in ("train", "test", "task"):
            yield getattr(plan.data, part), f"{plan.data_key}.{part}"
        for part in ("sampler", "batch_sampler", "collate"):
            if (conf := getattr(plan.data, part)) is not None:
                yield conf, f"{plan.data_key}.{part}"
        for part in ("train_transform", "eval_transform"):
            yield from ((each, f"{plan.data_key}.{part}[{n}]") for n, each in enumerate(getattr(plan.data, part)))
        yield from plan.wrappers.values()
        for name, term in plan.terms.items():
            yield term.loss, f"{plan.key}.losses.{name}.loss"
            if isinstance(term.weight, Mapping):
                yield term.weight, f"{plan.key}.losses.{name}.weight"
        for name in plan.declared:
            adapter: Any = plan.conf.adapters[name]
            if adapter.module is not None:
                yield adapter.module, f"{plan.key}.adapters.{name}.module"
        for entries in plan.conf.redesign.values():
            yield from ((each, f"{plan.key}.redesign") for each in entries if isinstance(each, Mapping))


def _dead_keys(node: Any, key: str) -> Iterator[tuple[str, str, list[str]]]:
    """Takes out and yields the keys that `+key=value` put beside the schema, where nothing would ever read them."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or node._is_interpolation():
        return
    schema = OmegaConf.get_type(node)
    known = [field.name for field in fields(schema)] if schema is not None and is_dataclass(schema) else None
    for name in list(node):
        path = f"{key}.{name!s}" if key else str(name)
        if known is not None and name not in known:
            dead = node._content.pop(name)  # type: ignore[union-attr]
            yield path, str(dead), known
        else:
            yield from _dead_keys(node._get_node(name), path)


def missing_keys(node: Any, key: str) -> Iterator[str]:
    """What is left open in a section, by its key; OmegaConf's own function names a key that refers to it instead."""
    if not isinstance(node, DictConfig | ListConfig) or node._is_none() or node._is_interpolation():
        return
    names = range(len(node)) if isinstance(node, ListConfig) else list(node)
    for name in names:
        path = f"{key}[{name}]" if isinstance(node, ListConfig) else f"{key}.{name!s}" if key else str(name)
        child: Any = node._get_node(name)
        if child._is_missing():
            yield path
        else:
            yield from missing_keys(child, path)


def _ghost_stages(cfg: DictConfig) -> Iterator[str]:
    """Stages that only an override brought into being: not scheduled, and without a loss or in no file."""
    for part in PARTS:
        method = cfg[part]
        own = _own(part, method, "stages")
        for name in method.stages:
            if name in method.schedule:
                continue
            if not method.stages[name].losses or (own is not None and name not in own):
                yield f"{part}.stages.{name}: {unknown('stage', str(name), method.schedule)}"
            elif own is None:  # a method of the user's own may have more stages than it runs
                warn(f"{part}.stages.{name}: does not run, since {part}.schedule does not name it")


def _own(part: str, method: Any, section: str) -> Mapping[str, Any] | None:
    """What the file of a shipped method or prelude has in a section; None for one that is not shipped."""
    name = OmegaConf.select(method, "name", throw_on_missing=False) if isinstance(method, DictConfig) else method.name
    return (merged_content(part, name).get(section) or {}) if name in options_of(part) else None


def _unread_networks(app: AppConf, plans: list[StagePlan]) -> Iterator[str]:
    """Networks that somebody added and no stage reads; those of a shipped method may stand unused.

    Of a method of the user's own, whose file is not known here, it is a warning.
    """
    models = models_of(app)
    shapes = [name for plan in plans for name in (*plan.shape_taps, *plan.average_taps)]
    read = {*ROLES, *networks_read(plans), *shapes, *(model.starts_like for model in models.values())}
    for part, owner in (("", app), *((f"{part}.", getattr(app, part)) for part in PARTS)):
        own = _own(part.rstrip("."), owner, "extra_models") if part else {}
        for name in owner.extra_models:
            unread = f"{part}extra_models.{name}: no stage reads or trains this network"
            if own is None and name not in read:
                warn(unread)
            if own is None or name in read or any(name == entry or name.startswith(f"{entry}_") for entry in own):
                continue
            lists = dict.fromkeys(str(conf["each"]) for conf in own.values() if "each" in (conf or ()))
            hint = "".join(f"; name it in '{part}params.{each}=[...]'" for each in lists)
            yield f"{unread}{hint}"
