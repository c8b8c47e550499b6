"""What is refused before the first stage trains: every stage is assembled once, on example images, and taken apart."""

import traceback
from collections.abc import Callable, Sequence
from contextlib import closing

from distill_app.config.plan import StagePlan, adapter_confs
from distill_app.errors import ConfigError, CorruptImageError, DistillError
from distill_app.networks.hooks import TappedModel
from distill_app.networks.network import fitting_weights
from distill_app.tasks.rehearsal import evaluation_problems
from distill_app.training.assemble import Context, build_slots, build_terms, example_namespace
from distill_app.training.average import WeightAverage
from distill_app.training.experiment import Experiment
from distill_app.training.stage import Stage
from distill_app.words import first_line

Look = Callable[[StagePlan, Stage | None], None]


def refuse_what_does_not_fit(experiment: Experiment, plans: Sequence[StagePlan], *, look: Look | None = None) -> None:
    """Assembles stages on trial, as they will be when their time comes, but for the weights that networks have then.

    Args:
        experiment: Keeps its networks and data as they are; adapters and losses are those of a trial.
        plans: The stages that are left to run.
        look: Is shown each of them, or None in the place of one that is skipped.

    Raises:
        ConfigError: All that does not fit, up to the first stage with an error: what later ones read may be missing.
    """
    trial = experiment.trial()
    changed: set[str] = set()  # networks that will have other weights by then
    for plan in plans:
        if experiment.is_skipped(plan):
            if look is not None:
                look(plan, None)
            continue
        changed |= {plan.network(role) for role in plan.conf.init_from}
        errors = _problems(plan, trial, changed=changed, look=look)
        if errors:
            raise ConfigError(errors)
        changed |= set(plan.trained)
    experiment.assembled = True


def _problems(plan: StagePlan, trial: Experiment, *, changed: set[str], look: Look | None) -> list[str]:
    try:
        for role, source in plan.conf.init_from.items():
            fitting_weights(trial.network(plan.network(role)), trial.network(source))
        with closing(Stage(plan, trial)) as stage:
            stage.frozen.cache.refuse_reuse(unknown=changed)
            if problems := _evaluation_problems(stage):
                return problems
            if look is not None:
                look(plan, stage)
    except ConfigError as error:
        return error.errors
    except (DistillError, ValueError) as error:
        told = str(error)
        return [told if _names_a_key(told) else f"{plan.key}: {told}"]
    except Exception as error:
        if not _of_a_network(error):
            error.add_note(f"while stage {plan.name!r} was assembled on trial, on its first images")
            raise
        images = f"a network of this stage cannot run on {_images(plan, trial)}"
        way = "one that wants others gets them by NETWORK.input.size and channels, such as teacher.input.size=224"
        return [f"{plan.key}: {images}: {first_line(error)}; {way}"]
    return []


def _of_a_network(error: Exception) -> bool:
    """Whether a network raised it while it ran; anything else is a mistake in code, and its traceback says where."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code is TappedModel.forward.__code__ for frame, _ in frames)


def _evaluation_problems(stage: Stage) -> list[str]:
    """What would stop an evaluation of what the stage trains."""
    try:
        batch = stage.data.example_to_judge(device=stage.device)
    except CorruptImageError:  # an image that cannot be read is the business of runtime.corrupt_images
        return []
    trained = [stage.networks[name] for name in stage.plan.trained]
    return evaluation_problems(stage.task, trained, batch, key=f"{stage.plan.data_key}.task")


def _images(plan: StagePlan, trial: Experiment) -> str:
    """The images of a stage as networks get them, with the keys that make them so."""
    batch = trial.data.stage(plan).example_batch(trial.task(plan), device=trial.device)
    shape = tuple(getattr(batch.get("input"), "shape", ()))
    if len(shape) != 4:
        return f"the batches of {plan.data_key}"
    _, channels, height, width = shape
    sides = f"{height} px" if height == width else f"{height} x {width} px"
    return f"images of {channels} channels and {sides} ({plan.data_key}.train_transform, {plan.data_key}.image_size)"


def _names_a_key(text: str) -> bool:
    """Whether a message begins with a config key, `a.b.c: ...`."""
    key, colon, _ = text.partition(": ")
    return bool(colon) and "." in key and all(part.isidentifier() for part in key.split("."))


def revive(experiment: Experiment, *, over: Sequence[StagePlan], ahead: Sequence[StagePlan]) -> None:
    """Builds again, without weights, what lives on of stages that are over: averages, and what later ones read.

    Args:
        experiment: Its networks and data are there.
        over: Stages that a resumed run has behind it.
        ahead: Stages that it has before it.
    """
    adapters = {name for plan in ahead for name in plan.adapters}
    losses = {name for plan in ahead for name in plan.terms}
    for plan in over:
        for name in plan.trained if plan.conf.ema.decay is not None else ():
            WeightAverage.of(name, plan, experiment.parts)
        if not adapters & set(plan.declared) and not losses & plan.terms.keys():
            continue
        data, task, builder = experiment.data.stage(plan), experiment.task(plan), experiment.builder
        batch = data.example_batch(task, device=experiment.device)
        examples = example_namespace(plan, experiment.parts.networks, batch, task.call, builder=builder)
        arguments = data.arguments(num_classes=plan.data.num_classes)
        context = Context(builder, experiment.device, experiment.app.seed, arguments)
        build_slots(plan, adapter_confs(experiment.plans, plan), examples, experiment.parts, context)
        build_terms(plan, examples, experiment.parts, context)
        experiment.parts.forget(plans=ahead)
