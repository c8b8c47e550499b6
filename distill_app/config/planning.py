"""The schedule as plans: what each stage inherits, which networks, taps and adapters it needs. Imports no torch.

An address names a tensor of the step: `batch.<key>`, `<role or network>.<tap>` or `adapters.<name>`; further dots
descend into a nested value (`teacher.fpn.0`). The namespace they are looked up in is one dict per space.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from distill_app.config.addresses import Address, addresses
from distill_app.config.compared import compared_with_itself
from distill_app.config.filling import fillers, filling_problems
from distill_app.config.parts import Part, adapter_problems, live_parts, texts_of
from distill_app.config.plan import AVERAGE, StagePlan, finds_taps, model_key, models_of
from distill_app.config.schema import AppConf, MethodConf, ModelConf, StageConf
from distill_app.words import unknown


def plan_stages(app: AppConf) -> tuple[list[StagePlan], list[str]]:
    """Resolves the schedule (prelude, then method) into plans.

    Returns:
        The plans in order, and what is wrong with them, one message per error with its config key.
    """
    plans: list[StagePlan] = []
    errors: list[str] = []
    known_adapters: dict[str, Any] = {}
    for part, method in (("prelude", app.prelude), ("method", app.method)):
        before = None
        for name in method.schedule:
            if name not in method.stages:
                errors.append(f"{part}.schedule: {unknown('stage', name, method.stages)}")
                continue
            if any(plan.name == name for plan in plans):
                errors.append(f"{part}.schedule: the stage {name!r} is there twice; every stage has a name of its own")
                continue
            before = _inherit(app, part, method, name, before)
            _wire(before, app, known_adapters, errors)
            plans.append(before)
    if not plans:
        errors.append("method.schedule: no stage to run; name at least one of method.stages")
    return plans, errors


def _inherit(app: AppConf, part: str, method: MethodConf, name: str, before: StagePlan | None) -> StagePlan:
    """Null objects come from the stage before in the same schedule, else from the recipe and the data set."""
    conf, key = _completed(method.stages[name]), f"{part}.stages.{name}"
    if (most := app.runtime.max_epochs) is not None and most > 0:
        epochs = min(conf.epochs, most)
        conf = replace(conf, epochs=epochs, warmup_epochs=min(conf.warmup_epochs, epochs - 1))
    optimizer, optimizer_key = app.stage.optimizer, "stage.optimizer"
    scheduler, scheduler_key = app.stage.scheduler, "stage.scheduler"
    data, data_key = app.dataset, "dataset"
    if before is not None:
        optimizer, optimizer_key = before.optimizer, before.optimizer_key
        scheduler, scheduler_key = before.scheduler, before.scheduler_key
        data, data_key = before.data, before.data_key
    if conf.optimizer is not None:
        optimizer, optimizer_key = conf.optimizer, f"{key}.optimizer"
    if conf.scheduler is not None:
        scheduler, scheduler_key = conf.scheduler, f"{key}.scheduler"
    if conf.data is not None:
        data, data_key = conf.data, f"{key}.data"
    return StagePlan(
        name=name,
        key=key,
        conf=conf,
        data=data,
        data_key=data_key,
        optimizer=optimizer,
        optimizer_key=optimizer_key,
        scheduler=replace(scheduler),
        scheduler_key=scheduler_key,
        roles=dict(conf.roles),
    )


def _completed(conf: StageConf) -> StageConf:
    """The stage with the values that null stands for."""
    losses = {
        name: term if term is None or term.weight is not None else replace(term, weight=1.0)
        for name, term in conf.losses.items()
    }
    train = ["student"] if conf.train is None else conf.train
    return replace(conf, train=train, freeze=conf.freeze or [], losses=losses)


def _wire(plan: StagePlan, app: AppConf, known: dict[str, Any], errors: list[str]) -> None:
    """Fills in what the stage reads and trains; `known` holds the adapters declared so far."""
    models = models_of(app)
    averages = [f"{name}{AVERAGE}" for name in models]
    for part, entries, known_here in (
        ("roles", plan.roles, [*models, *averages]),
        ("init_from", plan.conf.init_from, [*models]),
    ):
        wrong = {role: network for role, network in entries.items() if network not in known_here}
        errors += [f"{plan.key}.{part}.{role}: {unknown('network', name, models)}" for role, name in wrong.items()]
    for part, given in (("init_from", plan.conf.init_from), ("redesign", plan.conf.redesign)):
        named = [plan.network(role) for role in given]
        errors += [f"{plan.key}.{part}: {unknown('network', name, models)}" for name in named if name not in models]
    plan.roles = {role: network for role, network in plan.roles.items() if network in [*models, *averages]}
    plan.declared = [name for name, adapter in plan.conf.adapters.items() if adapter is not None]
    known.update({name: plan.conf.adapters[name] for name in plan.declared})
    for name in plan.declared:
        errors += adapter_problems(known[name], f"{plan.key}.adapters.{name}")
    if not plan.terms:
        errors.append(f"{plan.key}.losses: a stage needs at least one loss term")
    need = _Need(app, plan, plan.taps, models, known, [])
    for name, term in plan.terms.items():
        for text in addresses(term.inputs):
            _need(text, f"{plan.key}.losses.{name}.inputs", need)
    for name in fillers(plan):
        _need(f"adapters.{name}", f"{plan.key}.adapters.{name}", need)
    errors += need.errors
    _trained(plan, models, known, errors, wired=bool(plan.terms) and not need.errors)
    if not need.errors:
        errors += filling_problems(plan, models)
        errors += compared_with_itself(plan, known, getattr(app, plan.key.partition(".")[0]).params)


@dataclass(frozen=True)
class _Need:
    """Who reads: the stage, where the taps are noted, what exists, where errors go, and the adapters on the way."""

    app: AppConf
    plan: StagePlan
    taps: dict[str, list[str]]
    models: Mapping[str, ModelConf]
    known: Mapping[str, Any]
    errors: list[str]
    chain: tuple[str, ...] = ()


def _need(text: str, key: str, need: _Need) -> None:
    """Notes that an address is read; adapters bring in what they read themselves."""
    plan, models, errors = need.plan, need.models, need.errors
    try:
        address = Address.parse(text, plan.roles)
    except ValueError as error:
        errors.append(f"{key}: {error}")
        return
    if address.space == "batch":
        return
    if address.space == "adapters":
        if address.name in need.chain:
            errors.append(f"{key}: adapters read each other in a circle: {' -> '.join((*need.chain, address.name))}")
        elif address.name not in need.known:
            errors.append(f"{key}: {unknown('adapter', address.name, need.known)}")
        elif address.name not in plan.adapters:
            adapter, where = need.known[address.name], f"{plan.key}.adapters.{address.name}"
            for source in addresses(adapter.source):
                _need(source, f"{where}.source", replace(need, chain=(*need.chain, address.name)))
            if address.name in plan.declared:
                for target in addresses(adapter.target):
                    # Of a network only the shape is wanted, once; an adapter that is a target runs with the others.
                    taps = need.taps if target.startswith("adapters.") else plan.shape_taps
                    _need(target, f"{where}.target", replace(need, taps=taps, chain=(*need.chain, address.name)))
            for part in ("part", "borrows"):
                for each in texts_of(getattr(adapter, part)):
                    _need_part(each, f"{where}.{part}", need)
            plan.adapters.append(address.name)
        return
    network, taps = address.space, need.taps
    if network not in models and network.removesuffix(AVERAGE) in models:
        network, taps = network.removesuffix(AVERAGE), plan.average_taps
        errors += _average_problems(network, f"{key}: {text}", need)
    if network not in models:
        errors.append(f"{key}: {text}: {unknown('network', network, [*models, 'batch', 'adapters'])}")
        return
    known, model = [*models[network].taps, "output"], model_key(need.app, network)
    if address.name not in known and not finds_taps(models[network]):
        there = f"{unknown('tap', address.name, known)} in {model}.taps{_listed(address.name, known, need)}"
        errors.append(f"{key}: {text}: {there}; {model}.find_taps=true looks for those that are not written")
        return
    needed = taps.setdefault(network, [])
    if address.name not in needed:
        needed.append(address.name)


def _listed(tap: str, known: list[str], need: _Need) -> str:
    """If a list of the method's parameters names a tap, as levels of a pyramid, what of it is there."""
    part = need.plan.key.partition(".")[0]
    for name, value in getattr(need.app, part).params.items():
        if isinstance(value, list) and tap in value:
            return f"; {part}.params.{name} names it: of {value} there are {[one for one in value if one in known]}"
    return ""


def _average_problems(network: str, told: str, need: _Need) -> list[str]:
    """Why there is no average of a network's weights to read."""
    plan = need.plan
    if network not in [plan.network(entry) for entry in plan.conf.train or ()]:
        return [f"{told}: the stage does not train {network!r}, so there is no average of its weights"]
    if plan.conf.ema.decay is None:
        return [f"{told}: there is no average of weights; set {plan.key}.ema.decay=0.99"]
    return []


def _need_part(text: str, key: str, need: _Need) -> None:
    """Notes that an adapter works with a module of a network, as far as it can be seen without the network."""
    try:
        part = Part.parse(text, need.plan.roles)
    except ValueError as error:
        need.errors.append(f"{key}: {error}")
        return
    if part.network.removesuffix(AVERAGE) in need.models and part.network not in need.models:
        need.errors.append(f"{key}: {part.network} is an average of weights that change in every step; name a network")
    elif part.network not in need.models:
        need.errors.append(f"{key}: {unknown('network', part.network, need.models)}")
    else:
        need.plan.parts.setdefault(part.network, []).append(part.path)


def _trained(
    plan: StagePlan, models: Mapping[str, Any], known: Mapping[str, Any], errors: list[str], *, wired: bool
) -> None:
    """Notes what the stage trains; that no term reads it is an error only if all terms could be wired."""
    for entry in plan.conf.train or ():
        kind, _, name = entry.partition(".")
        network = plan.network(entry)
        if kind == "adapters" and name:
            if name not in known:
                errors.append(f"{plan.key}.train: {unknown('adapter', name, known)}")
            elif known[name].part is not None:
                errors.append(f"{plan.key}.train: {entry} is a part of a network, whose weights stay as they are")
            plan.trained_adapters.append(name)
        elif network in models:
            plan.trained.append(network)
        else:
            allowed = [*models, *(f"adapters.{name}" for name in known)]
            errors.append(f"{plan.key}.train: {unknown('network', entry, allowed)}")
    plan.trained_adapters += [name for name in plan.declared if name not in plan.trained_adapters]
    plan.trained_adapters = [n for n in plan.trained_adapters if n in plan.adapters and known[n].part is None]
    for name in plan.adapters:
        errors += live_parts(known[name], f"{plan.key}.adapters.{name}.part", trained=plan.trained, roles=plan.roles)
    for network in plan.trained:
        if plan.redesign(network) == []:
            errors.append(f"{plan.key}.redesign: {network!r} is trained, so it cannot be redesigned to nothing")
        if wired and network not in plan.taps:
            errors.append(
                f"{plan.key}.train: no loss term reads {network!r}, so nothing would train it; "
                f"wire a loss to one of its taps or take it out of the list"
            )
