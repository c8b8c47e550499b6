"""A stage in words: what it runs and how far, what it reads, trains and minimises."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from distill_app.analysis.cut import cut_of
from distill_app.config.plan import AVERAGE, StagePlan
from distill_app.networks.flops import flops
from distill_app.networks.hooks import TappedModel
from distill_app.networks.modes import evaluating, untouched
from distill_app.networks.network import Network, parameter_count
from distill_app.networks.part import NetworkPart
from distill_app.networks.taps import shapes_in
from distill_app.training.optimize import scaled_lr
from distill_app.training.stage import Stage


def origins_text(networks: Mapping[str, Network]) -> str:
    """What every network starts with: what is loaded, and what is random."""
    lines = ["networks:"]
    for name, network in networks.items():
        lines.append(f"  {name}: {parameter_count(network.module):,} parameters, {network.origin}")
        if network.input is not None:
            lines.append(f"    input of its own: {network.input}")
        if network.found:
            found = ", ".join(f"{tap} {path or '(whole network)'}" for tap, path in network.taps.items())
            lines.append(f"    taps found in it: {found}")
        if network.origin.warning:
            lines.append(f"    warning: {network.origin.warning}")
    return "\n".join(lines)


def plan_text(plan: StagePlan, stage: Stage | None) -> str:
    """A stage of the outline that `dry_run` prints; None stands for one that is skipped."""
    if stage is None:
        return f"\nstage {plan.name}: skipped, what it trains comes with weights"
    return "\n".join([stage_text(stage), *(f"  warning: {text}" for text in stage.warnings)])


def stage_text(stage: Stage) -> str:
    """What a stage runs and how far, what it reads, trains and minimises, in a few lines."""
    conf = stage.plan.conf
    lines = [
        f"\nstage {stage.plan.name}: {len(stage.data.indices)} images of {stage.plan.data.name}, {conf.epochs} epochs "
        f"of {len(stage.batch_sizes)} batches of {conf.batch_size}, judged on {stage.data.judged_on}"
    ]
    lines += _ranks(stage)
    lines.append(f"  images: {stage.data.train.how}; judged: {stage.data.judge.how}")
    for name in stage.tapped:
        mode = "trained" if name in stage.plan.trained else "frozen"
        lines.append(f"  network {name}: {mode}, {stage.origins[name]}, runs {_extent(stage, name)}")
        lines += [f"    {tap}: {shapes_in(stage.examples[name][tap])}" for tap in stage.plan.taps[name]]
        if name in stage.frozen.forms and (note := stage.frozen.forms[name].note()):
            lines.append(f"    {note}")
        lines += [f"    {note}" for note in (stage.networks[name].note, _cut_text(stage, name)) if note]
    for name, taps in stage.plan.average_taps.items():
        lines.append(f"  network {name}{AVERAGE}: the average of its weights, in train mode, gives {', '.join(taps)}")
    lines += [f"  {line}" for line in stage.frozen.cache.describe()]
    for name in stage.plan.adapters:
        shape = shapes_in(stage.examples["adapters"][name])
        lines.append(f"  adapter {name}: {_adapter_text(stage, name)}, gives {shape}")
    for name, term in stage.plan.terms.items():
        lines.append(f"  term {name}: {_weight_text(term.weight)} x {_target_name(term.loss)}({_wiring(term.inputs)})")
    count = sum(parameter.numel() for parameter in stage.optimization.parameters)
    left = f"; {len(stage.unread)} tensors on which no term depends stay as they are" if stage.unread else ""
    lines.append(f"  trains {count:,} parameters with {_target_name(stage.plan.optimizer)}, {_rates(stage)}{left}")
    return "\n".join(lines)


def _adapter_text(stage: Stage, name: str) -> str:
    """Whether an adapter is trained, and its size; or of what network it is a part."""
    module = stage.step.adapters[name]
    if isinstance(module, NetworkPart):
        return f"{module.title}, shared and frozen"
    mode = "trained" if name in stage.plan.trained_adapters else "frozen"
    return f"{mode}, {parameter_count(module):,} parameters"


def _ranks(stage: Stage) -> list[str]:
    """How processes share out the batches, and what their batch norms count."""
    size = stage.world.size
    if size == 1:
        return []
    text = f"  {size} processes, {stage.plan.conf.batch_size // size} samples of a batch each"
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training for part in stage.step.modules()):
        text += ", batch norm over " + (
            "all of them" if stage.together else "its own (runtime.sync_batch_norm=true: over all of them)"
        )
    return [text]


def _rates(stage: Stage) -> str:
    """The learning rate as it is used, and what changes it."""
    conf, scheduler = stage.plan.conf, stage.plan.scheduler
    lr = scaled_lr(conf)
    text = f"lr {lr:g}"
    if lr != conf.lr:
        batch = conf.batch_size * conf.accumulation_steps
        text += f" = {conf.lr:g} x {batch} / {conf.reference_batch_size}"
    if scheduler.schedule is None:
        text += ", constant"
    else:
        text += f", {_target_name(scheduler.schedule)} by {scheduler.interval}"
    return text + (f" after {conf.warmup_epochs} epochs of warm-up" if conf.warmup_epochs else "")


def _extent(stage: Stage, name: str) -> str:
    """How far a network runs, and which share of its FLOPs that is."""
    network, bare, batch = stage.tapped[name], stage.networks[name], stage.examples["batch"]
    entries = stage.redesigns[name]
    if entries == []:
        return "nothing: it comes from the cache"
    with untouched(bare.module), evaluating(network):
        own = [flops(lambda: stage.task.call(network, batch, name=name)) for _ in range(2)][
            1
        ]  # the first learns the end
        with TappedModel(bare.module, {"output": ""}) as whole:
            full = flops(lambda: stage.task.call(whole, batch, name=name))
    end = f"up to {network.stops_at} and no further" if network.stops_at else "to its end"
    redesigned = f"redesigned as {len(entries)} modules, " if entries is not None else ""
    return f"{redesigned}{end}, {100 * own / max(full, 1):.0f} % of its FLOPs"


def _cut_text(stage: Stage, name: str) -> str:
    """What crosses the cut of a network that has one, on the first image that judges epochs."""
    found = cut_of(stage.task, stage.networks[name], stage.data.one_by_one(device=stage.device, count=1))
    return str(found or "")


def _target_name(conf: Mapping[str, Any]) -> str:
    return str(conf["_target_"]).rsplit(".", 1)[-1]


def _weight_text(weight: Any) -> str:
    return _target_name(weight) if isinstance(weight, Mapping) else f"{weight:g}"


def _wiring(inputs: Mapping[str, Any]) -> str:
    return ", ".join(f"{argument}={source}" for argument, source in inputs.items())
