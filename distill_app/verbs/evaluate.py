"""Evaluating and exporting networks of runs that exist."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_app.config.build import Builder
from distill_app.config.plan import StagePlan, models_of, plan_stages
from distill_app.data.stage_data import DataSource
from distill_app.errors import ConfigError, UsageError
from distill_app.machine.device import choose_device, set_up
from distill_app.networks.network import Network, build_network
from distill_app.runs.checkpoint import Checkpoints
from distill_app.runs.statefile import load_file
from distill_app.training.experiment import to_app
from distill_app.training.stage import Stage
from distill_app.words import unknown


def evaluate(config: Mapping[str, Any], place: Path, *, folder: Path, network: str, split: str) -> dict[str, Any]:
    """Metrics of a network on the test or validation images of the stage that trained it last.

    Args:
        config: The resolved config of the run.
        place: The run, or a checkpoint in it (its folder, or a file of weights).
        folder: The run's folder.
        network: Which network.
        split: test or validation.

    Returns:
        The metrics of the task, with what was evaluated.

    Raises:
        UsageError: No such network, or no weights of it.
        ConfigError: The stored config does not fit this version of the program.
    """
    app = to_app(config)
    set_up(app.runtime)
    device, builder = choose_device(app.runtime), Builder(app.runtime.allow)
    plans, errors = plan_stages(app)
    if errors:
        raise ConfigError(errors)
    loaded, source = _network(config, place, folder=folder, name=network)
    loaded.module.to(device)
    plan = _last_plan(plans, network)
    data = DataSource(builder=builder, runtime=app.runtime, device=device, seed=app.seed)
    batches = data.test(plan) if split == "test" else data.stage(plan).judge
    metrics = Stage.task_of(plan, builder).evaluate(loaded.module, batches, device=device)
    return {"network": network, "weights": source, "dataset": plan.data.name, "split": split, **metrics}


def _network(config: Mapping[str, Any], place: Path, *, folder: Path, name: str) -> tuple[Network, str]:
    app = to_app(config)
    if name not in models_of(app):
        raise UsageError(f"--network: {unknown('network', name, models_of(app))}")
    conf = models_of(app)[name]
    state, source = _weights(place, folder=folder, name=name)
    # The run's own weights follow: what the network started from is not looked for again.
    conf.checkpoint, conf.weights = None, None
    network = build_network(app, name, builder=Builder(app.runtime.allow), device="cpu")
    try:
        network.module.load_state_dict(state)
    except RuntimeError as error:
        first = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise UsageError(f"{source} does not hold the weights of {name!r} (see --network): {first}") from error
    return network, source


def _weights(place: Path, *, folder: Path, name: str) -> tuple[Mapping[str, Any], str]:
    """The state dict that a path stands for, and where it was found."""
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
        return _from_checkpoint(checkpoints, mark, name), f"{folder}, checkpoint {mark}"
    exported = folder / f"{name}.pt"
    if exported.is_file():
        return load_file(exported), str(exported)
    return _from_checkpoint(Checkpoints(folder / "checkpoints"), "last", name), f"{folder}, its last checkpoint"


def _from_checkpoint(checkpoints: Checkpoints, mark: str, name: str) -> Mapping[str, Any]:
    networks = checkpoints.load(mark)["parts"]["networks"]
    if name not in networks:
        raise UsageError(f"--network: {unknown('network', name, networks)} in checkpoint {mark}")
    return networks[name]


def _last_plan(plans: list[StagePlan], network: str) -> StagePlan:
    trained = [plan for plan in plans if network in plan.trained]
    return (trained or plans)[-1]
