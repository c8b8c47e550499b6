"""The networks of runs that exist: their weights, and what they reach."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_app.analysis.cost import costs
from distill_app.analysis.cut import IMAGES, cut_of
from distill_app.analysis.depth import depth, told
from distill_app.config.plan import StagePlan, models_of
from distill_app.data.labels import class_names
from distill_app.errors import UsageError
from distill_app.models.cut import CutReport, bottleneck_of, has_bottleneck
from distill_app.networks.network import Network
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.records import refuse_to_judge_on_other_data
from distill_app.runs.statefile import load_file, weights_hash
from distill_app.tasks import evaluation
from distill_app.training.experiment import Experiment
from distill_app.words import unknown


def evaluate(
    config: Mapping[str, Any], place: Path, *, folder: Path, network: str, split: str, eight_bits: bool = False
) -> dict[str, Any]:
    """Metrics of a network on the test or validation images of the stage that trained it last.

    Args:
        config: The resolved config of the run.
        place: The run, or a checkpoint in it (its folder, or a file of weights).
        folder: The run's folder.
        network: Which network.
        split: test or validation.
        eight_bits: What crosses the cut of the network is quantised, whether or not its config says so.

    Returns:
        The metrics of the task, with what was evaluated.

    Raises:
        UsageError: No such network, no weights of it, or no cut for `eight_bits`.
        ConfigError: The stored config does not fit this version of the program.
        DataError: The data have other classes than the run had, or a test that was drawn anew.
    """
    with Experiment.of(_on_all_images(config)) as experiment:
        loaded, source = stored_network(experiment, place, folder=folder, name=network)
        if eight_bits:
            _quantise(loaded)
        plan = last_plan(experiment.plans, network)
        data = experiment.data
        refuse_to_judge_on_other_data(folder, plan.name, data.stage(plan).identity)
        batches = data.test(plan) if split == "test" else data.stage(plan).judge
        trained = any(loaded.name in plan.trained for plan in experiment.plans)
        found = evaluation.evaluate(experiment.task(plan), loaded, batches, device=experiment.device, trained=trained)
        names = class_names(data.dataset(plan, "test" if split == "test" else "train"))
        cut = None if found.reasons else _cut(experiment, loaded, plan, split=split)
    for name, line in zip(names or (), found.details.get("per_class", ()), strict=False):
        line["class"] = name
    about = {"network": network, "weights": source, "dataset": plan.data.name, "split": split}
    return {**about, **found.figures, **({"cut": cut.described()} if cut else {}), **found.beside}


def evaluate_in_depth(
    config: Mapping[str, Any], place: Path, *, folder: Path, network: str, split: str
) -> dict[str, Any]:
    """The same, with all that `analysis.depth` says of the network, beside the teacher of the run where it has one.

    The teacher has the weights that the run ended with, also where an earlier checkpoint of the student is looked at.

    Raises:
        UsageError: No such network, or no weights of it.
        ConfigError: The stored config does not fit this version of the program.
        DataError: The data have other classes than the run had, or a test that was drawn anew.
    """
    with Experiment.of(_on_all_images(config)) as experiment:
        loaded, source = stored_network(experiment, place, folder=folder, name=network)
        plan = last_plan(experiment.plans, network)
        teacher = None
        if "teacher" in experiment.network_names and loaded.name != "teacher":
            teacher, _ = stored_network(experiment, folder, folder=folder, name="teacher")
        data = experiment.data.stage(plan)
        refuse_to_judge_on_other_data(folder, plan.name, data.identity)
        batches = experiment.data.test(plan) if split == "test" else data.judge
        names = data.identity.get("classes")
        task = experiment.task(plan)
        found = depth(task, loaded, batches, device=experiment.device, teacher=teacher, classes=names)
        found["metrics"] = [metric.described() for metric in task.metrics]
        with told(found["left_out"], "cost"):
            measured = [loaded] if teacher is None else [loaded, teacher]
            example = data.example_to_judge(device=experiment.device, count=1)
            found["costs"] = costs(task, measured, example, device=experiment.device)
    if teacher is None:
        why = "it is the teacher" if loaded.name == "teacher" else "the run has no teacher"
        found["left_out"]["fidelity, similarity, examples"] = why
    return {"network": network, "weights": source, "dataset": plan.data.name, "split": split, **found}


def _on_all_images(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what judged the run itself on a part of them."""
    return {**config, "runtime": {**config["runtime"], "max_eval_batches": None}}


def _quantise(network: Network) -> None:
    """Has what crosses the cut of a network go in 8 bits."""
    if not has_bottleneck(network.module):
        raise UsageError(f"--eight-bits: {network.name} has no cut, so that nothing crosses one")
    bottleneck_of(network.module)[1].quantized = True


def _cut(experiment: Experiment, network: Network, plan: StagePlan, *, split: str) -> CutReport | None:
    """What crosses the cut of a network on the first images of a split."""
    data = experiment.data
    if split == "test":
        alone = data.test_one_by_one(plan, count=IMAGES)
    else:
        alone = data.stage(plan).one_by_one(device=experiment.device, count=IMAGES)
    return cut_of(experiment.task(plan), network, alone)


def stored_network(experiment: Experiment, place: Path, *, folder: Path, name: str) -> tuple[Network, str]:
    """A network of a run with the weights that a path stands for, and where those were found.

    Args:
        experiment: That of the run.
        place: The run, or a checkpoint in it (its folder, or a file of weights).
        folder: The run's folder.
        name: Which network; `<name>_ema` is the average of its weights.

    Raises:
        UsageError: No such network, or no weights of it.
    """
    bare, models = name.removesuffix("_ema"), models_of(experiment.app)
    if bare not in models:
        raise UsageError(f"--network: {unknown('network', name, models)}")
    state, source = _weights(place, folder=folder, name=name)
    if state is None:  # no stage changes it, so that the run has a hash in the place of its weights
        network = experiment.network(bare)
        if weights_hash(network.module) != source:
            raise UsageError(
                f"{name!r} was not trained in this run and so is not stored in it, and its weights are other ones now "
                f"({network.origin}); put the file back that the run began with"
            )
        return network, f"{network.origin}, as in {folder}"
    # The run's own weights follow: what the network started from is not looked for again.
    models[bare].checkpoint = models[bare].weights = models[bare].starts_like = None
    network = experiment.network(bare)
    try:
        network.module.load_state_dict(state)
    except RuntimeError as error:
        first = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise UsageError(f"{source} does not hold the weights of {name!r} (see --network): {first}") from error
    return network, source


def _weights(place: Path, *, folder: Path, name: str) -> tuple[Mapping[str, Any] | None, str]:
    """The state dict that a path stands for, and where it was found; of a frozen network None and its hash."""
    if place.is_file() and place.name != "state.pt":
        return load_file(place), str(place)
    if place != folder:
        checkpoints = Checkpoints(folder / "checkpoints")
        inside = place.parent if place.name == "state.pt" else place
        mark = inside.relative_to(checkpoints.folder).as_posix() if checkpoints.folder in inside.parents else ""
        known = [*checkpoints.marks(), *checkpoints.names()]
        if mark not in known:
            there = ", ".join(known) or "none"
            raise UsageError(f"{place} is no checkpoint of {folder}; below {checkpoints.folder} there are: {there}")
        return _from_checkpoint(checkpoints, mark, name, source=f"{folder}, checkpoint {mark}")
    exported = folder / f"{name}.pt"
    if exported.is_file():
        return load_file(exported), str(exported)
    checkpoints, source = Checkpoints(folder / "checkpoints"), f"{folder}, its last checkpoint"
    return _from_checkpoint(checkpoints, "last", name, source=source)


def _from_checkpoint(
    checkpoints: Checkpoints, mark: str, name: str, *, source: str
) -> tuple[Mapping[str, Any] | None, str]:
    parts = checkpoints.load(mark)["parts"]
    if name in parts["frozen"]:
        return None, parts["frozen"][name]
    averages = {f"{of}_ema": _bare(state) for of, state in parts["averages"].items()}
    networks = {**parts["networks"], **averages}
    if name not in networks:
        raise UsageError(f"--network: {unknown('network', name, [*networks, *parts['frozen']])} in checkpoint {mark}")
    return networks[name], source


def _bare(state: Mapping[str, Any]) -> dict[str, Any]:
    """The averaged network's own weights."""
    return {key.removeprefix("module."): value for key, value in state.items() if key.startswith("module.")}


def last_plan(plans: list[StagePlan], network: str) -> StagePlan:
    """The stage that trained a network last; of one that none trains, the last of all."""
    trained = [plan for plan in plans if network.removesuffix("_ema") in plan.trained]
    return (trained or plans)[-1]
