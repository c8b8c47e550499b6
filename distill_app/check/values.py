"""Numbers and words that no type can refuse."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from distill_app.config.plan import StagePlan
from distill_app.config.schema import AppConf, StageConf
from distill_app.words import unknown

CHOICES = {
    "select": ("last", "best"),
    "corrupt_images": ("raise", "skip"),
    "interval": ("epoch", "step"),
    "precision": ("fp32", "bf16", "fp16"),
    "parallel": ("ddp", "fsdp"),
    "resident": ("auto", "true", "false"),
}
LIMITS = ("max_epochs", "max_steps_per_epoch", "max_eval_batches")


def wrong_values(app: AppConf, plans: list[StagePlan]) -> Iterator[str]:
    """What cannot be, by its key."""
    yield from _of_the_run(app)
    for plan in plans:
        yield from _of_data(plan)
        yield from _of_a_stage(plan)


def _of_the_run(app: AppConf) -> Iterator[str]:
    if app.runtime.corrupt_images not in CHOICES["corrupt_images"]:
        yield f"runtime.corrupt_images: {unknown('policy', app.runtime.corrupt_images, CHOICES['corrupt_images'])}"
    if app.runtime.precision not in CHOICES["precision"]:
        yield f"runtime.precision: {unknown('precision', app.runtime.precision, CHOICES['precision'])}"
    every = app.runtime.gradient_norms_every
    if every is not None and every < 1:
        yield f"runtime.gradient_norms_every: must be at least 1, or null for never, got {every}"
    elif every is not None and every % max(app.runtime.log_every, 1):
        log = f"the log speaks every {app.runtime.log_every} steps (runtime.log_every)"
        yield f"runtime.gradient_norms_every: {log}, so what is looked at in between is lost; {every} is no multiple"
    if app.runtime.parallel not in CHOICES["parallel"]:
        yield f"runtime.parallel: {unknown('choice', app.runtime.parallel, CHOICES['parallel'])}"
    elif app.runtime.parallel == "fsdp" and app.cache.enabled:
        yield (
            "runtime.parallel: fsdp has all processes run a frozen network together, and with cache.enabled=true each "
            "runs it where its own rows are missing; set cache.enabled=false, or runtime.parallel=ddp"
        )
    compared = app.runtime.compare_ranks_every
    if compared is not None and compared < 1:
        yield f"runtime.compare_ranks_every: must be at least 1, or null for never, got {compared}"
    if app.runtime.rank_timeout_s < 1:
        yield f"runtime.rank_timeout_s: must be at least 1 second, got {app.runtime.rank_timeout_s}"
    saved = app.checkpoint
    for name, value in (("every_steps", saved.every_steps), ("every_minutes", saved.every_minutes)):
        if value is not None and value <= 0:
            yield f"checkpoint.{name}: must be above 0, or null for never, got {value}"
    if saved.keep < 0:
        yield f"checkpoint.keep: must be 0 or more, got {saved.keep}"
    for name in ("num_workers", "max_skipped"):
        if (count := getattr(app.runtime, name)) < 0:
            yield f"runtime.{name}: must be 0 or more, got {count}"
    for name in LIMITS:
        if (most := getattr(app.runtime, name)) is not None and most < 1:
            yield f"runtime.{name}: must be at least 1, or null for all, got {most}"


def _of_data(plan: StagePlan) -> Iterator[str]:
    if plan.data.num_classes < 1:
        yield f"{plan.data_key}.num_classes: must be at least 1, got {plan.data.num_classes}"
    if (fraction := plan.data.validation_fraction) is not None and not 0 <= fraction < 1:
        yield f"{plan.data_key}.validation_fraction: must be in [0, 1), got {fraction}"
    if plan.data.eval_batch_size < 1:
        yield f"{plan.data_key}.eval_batch_size: must be at least 1, got {plan.data.eval_batch_size}"
    channels, normalize = plan.data.channels, plan.data.normalize
    if channels not in (1, 3):
        yield f"{plan.data_key}.channels: must be 1 or 3, got {channels}"
    for name in ("mean", "std"):
        if (count := len(getattr(normalize, name))) not in (channels, 3):
            yield f"{plan.data_key}.normalize.{name}: {count} values for images of {channels} channels"
    if str(plan.data.resident).lower() not in CHOICES["resident"]:
        yield f"{plan.data_key}.resident: {unknown('choice', plan.data.resident, CHOICES['resident'])}"


def _of_a_stage(plan: StagePlan) -> Iterator[str]:
    if plan.scheduler.interval not in CHOICES["interval"]:
        interval = unknown("interval", plan.scheduler.interval, CHOICES["interval"])
        yield f"{plan.scheduler_key}.interval: {interval}"
    yield from _no_numbers(plan)
    for name, term in plan.terms.items():
        if not isinstance(term.weight, int | float | Mapping):
            weight = f"must be a number, or a schedule with a _target_, got {term.weight!r}"
            yield f"{plan.key}.losses.{name}.weight: {weight}"
    conf: StageConf = plan.conf
    if conf.select not in CHOICES["select"]:
        yield f"{plan.key}.select: {unknown('choice', conf.select, CHOICES['select'])}"
    for name in ("epochs", "batch_size", "accumulation_steps"):
        if getattr(conf, name) < 1:
            yield f"{plan.key}.{name}: must be at least 1, got {getattr(conf, name)}"
    if conf.ema.decay is not None and not 0 <= conf.ema.decay < 1:
        yield f"{plan.key}.ema.decay: must be in [0, 1), or null for no average, got {conf.ema.decay}"
    if conf.judge_every is not None and conf.judge_every < 1:
        yield f"{plan.key}.judge_every: must be at least 1, or null for every epoch, got {conf.judge_every}"
    if conf.patience is not None and conf.patience < 1:
        yield f"{plan.key}.patience: must be at least 1, or null for all epochs, got {conf.patience}"
    if not 0 < conf.lr < math.inf:
        yield f"{plan.key}.lr: must be above 0{' and finite' if not math.isfinite(conf.lr) else ''}, got {conf.lr}"
    if not 0 <= conf.warmup_epochs < max(conf.epochs, 1):
        given = conf.warmup_epochs
        yield f"{plan.key}.warmup_epochs: must be 0 or more and below the {conf.epochs} epochs, got {given}"
    if "lr" in plan.optimizer:
        lr = plan.optimizer["lr"]
        yield f"{plan.optimizer_key}.lr: the learning rate belongs to the stage; set 'stage.lr={lr}'"


def _no_numbers(plan: StagePlan) -> Iterator[str]:
    """NaN, which every comparison lets pass, wherever a part of the stage is given numbers; and infinite weights."""
    for name, term in plan.terms.items():
        key = f"{plan.key}.losses.{name}"
        for where, number in _numbers(term.weight, f"{key}.weight"):
            if not math.isfinite(number):
                yield f"{where}: must be finite, got {number}"
        yield from _nans(term.loss, f"{key}.loss")
    for name, adapter in plan.conf.adapters.items():
        if adapter is not None:
            yield from _nans(adapter.module, f"{plan.key}.adapters.{name}.module")
    yield from _nans(plan.optimizer, plan.optimizer_key)
    yield from _nans(plan.scheduler.schedule, f"{plan.scheduler_key}.schedule")


def _nans(conf: Any, key: str) -> Iterator[str]:
    """An infinite number may be one that is meant: the order of a norm, a bound that is none."""
    yield from (f"{where}: must be a number, got {number}" for where, number in _numbers(conf, key) if number != number)


def _numbers(conf: Any, key: str) -> Iterator[tuple[str, float]]:
    """The numbers in a nested config, with their keys."""
    if isinstance(conf, float):
        yield key, conf
    elif isinstance(conf, Mapping):
        for name, item in conf.items():
            yield from _numbers(item, f"{key}.{name}")
    elif isinstance(conf, list | tuple):
        for number, item in enumerate(conf):
            yield from _numbers(item, f"{key}[{number}]")
