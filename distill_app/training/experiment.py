"""One experiment, opened once: config, plans, builder, device, data, parts."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from distill_app.config.build import Builder
from distill_app.config.plan import AVERAGE, StagePlan, networks_read
from distill_app.config.planning import plan_stages
from distill_app.config.schema import AppConf, to_app
from distill_app.data.source import DataSource
from distill_app.errors import CheckpointError, ConfigError
from distill_app.machine.device import choose_device, set_up
from distill_app.networks.network import Network, build_network
from distill_app.runs.statefile import weights_hash
from distill_app.tasks.base import Task
from distill_app.tasks.build import task_of
from distill_app.world import ALONE, World


@dataclass
class Parts:
    """Everything with weights that outlives a stage; a later stage finds it here by name."""

    networks: dict[str, Network] = field(default_factory=dict)
    adapters: dict[str, nn.Module] = field(default_factory=dict)
    losses: dict[str, nn.Module] = field(default_factory=dict)
    averages: dict[str, nn.Module] = field(default_factory=dict)  # of a network's weights over the steps
    confs: dict[str, Any] = field(default_factory=dict)  # what an adapter or a loss was built from
    hashes: dict[str, str] = field(default_factory=dict)  # of the weights of networks that no stage changes

    def state(self, *, frozen: Iterable[str] = ()) -> dict[str, Any]:
        """The state dicts of all of it, by kind and name.

        Args:
            frozen: Networks that no stage changes: a hash stands for their weights.
        """
        groups = {kind: {name: module.state_dict() for name, module in of.items()} for kind, of in self._groups()}
        hashes = {name: self._hash(name) for name in frozen if name in self.networks}
        for name in hashes:
            del groups["networks"][name]
        return {**groups, "frozen": hashes}

    def _hash(self, name: str) -> str:
        """Of weights that do not change; taken once."""
        if name not in self.hashes:
            self.hashes[name] = weights_hash(self.networks[name].module)
        return self.hashes[name]

    def _groups(self) -> list[tuple[str, Mapping[str, nn.Module]]]:
        networks = {name: network.module for name, network in self.networks.items()}
        return [
            ("networks", networks),
            ("adapters", self.adapters),
            ("losses", self.losses),
            ("averages", self.averages),
        ]

    def load(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Restores what `state` returned, strictly; what exists only here keeps its weights.

        Raises:
            CheckpointError: A frozen network has other weights now.
        """
        for kind, group in self._groups():
            for name, module in group.items():
                if name in state[kind]:
                    module.load_state_dict(state[kind][name])
        for name, expected in state["frozen"].items():
            if name in self.networks and weights_hash(self.networks[name].module) != expected:
                raise CheckpointError(
                    f"the weights of {name!r} are not those that the run began with ({self.networks[name].origin}); "
                    f"put its file back, or start the run anew in another folder"
                )

    def forget(self, *, plans: Iterable[StagePlan]) -> None:
        """Gives up the adapters and losses that none of these stages reads: memories of losses are large."""
        adapters = {name for plan in plans for name in plan.adapters}
        losses = {name for plan in plans for name in plan.terms}
        for group, living in ((self.adapters, adapters), (self.losses, losses)):
            for name in [name for name in group if name not in living]:
                del group[name]


class Experiment:
    """What the stages of a run share. Networks and data sets are built once, when they are first asked for.

    Args:
        app: The typed config.
        plans: Its stages.
        world: The processes that carry it out together; this one is one of them.

    Raises:
        SettingError: The device that the config asks for is not there.
    """

    def __init__(self, app: AppConf, plans: list[StagePlan], *, world: World = ALONE):
        set_up(app.runtime, world)
        self.app, self.plans, self.world = app, plans, world
        self.device, self.builder = choose_device(app.runtime, world), Builder(app.runtime.allow)
        self.data = DataSource(
            builder=self.builder,
            runtime=app.runtime,
            device=self.device,
            seed=app.seed,
            task_of=task_of,
            cache=app.cache,
            world=world,
        )
        self.parts = Parts()
        self.assembled = False  # whether all stages have been assembled on trial

    @classmethod
    def of(cls, config: Mapping[str, Any], *, world: World = ALONE) -> "Experiment":
        """The experiment of a resolved config in plain containers, carried out by the processes of a world.

        Raises:
            ConfigError: The config does not fit this version of the program.
        """
        app = to_app(config)
        plans, errors = plan_stages(app)
        if errors:
            raise ConfigError(errors)
        return cls(app, plans, world=world)

    def __enter__(self) -> "Experiment":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def network(self, name: str) -> Network:
        """A network with its weights.

        Raises:
            ConfigError: It cannot be built.
            SettingError: Its weights cannot be loaded.
        """
        if name not in self.parts.networks:
            self.parts.networks[name] = build_network(self.app, name, builder=self.builder, device=self.device)
        return self.parts.networks[name]

    @property
    def network_names(self) -> list[str]:
        """The networks that any stage runs, trains, or takes weights or modules from, each once."""
        return networks_read(self.plans)

    @property
    def frozen(self) -> set[str]:
        """The networks whose weights no stage changes."""
        changed = {name for plan in self.plans for name in plan.trained}
        changed |= {plan.network(role) for plan in self.plans for role in plan.conf.init_from}
        return set(self.network_names) - changed

    def data_notes(self) -> list[str]:
        """What of the data may be a mistake and lets a run go on, each thing once."""
        return list(dict.fromkeys(note for plan in self.plans for note in self.data.notes(plan)))

    def build_networks(self) -> dict[str, Network]:
        """All networks of the stages, by name."""
        return {name: self.network(name) for name in self.network_names}

    def task(self, plan: StagePlan) -> Task:
        """The task that the data of a stage is for."""
        return self.data.task(plan)

    def is_skipped(self, plan: StagePlan) -> bool:
        """Whether a stage would train only what already came trained, and may be left out then."""
        trained = [self.network(name) for name in plan.trained]
        return plan.conf.skip_if_loaded and bool(trained) and all(network.loaded for network in trained)

    def origin(self, name: str, plan: StagePlan) -> str:
        """Where the weights come from with which a network begins a stage."""
        text = str(self.network(name).origin)
        for each in self.plans[: self.plans.index(plan) + 1]:
            starts = {each.network(role): source for role, source in each.conf.init_from.items()}
            if not self.is_skipped(each) and name in starts:
                text = f"as {starts[name]}"
            if each is not plan and not self.is_skipped(each) and name in each.trained:
                text = f"from stage {each.name}"
        return text

    def start_of_average(self, name: str, plan: StagePlan) -> dict[str, Tensor] | None:
        """Random weights of its own for an average that teaches; None where the network begins with others."""
        network = self.network(name)
        if name not in plan.average_taps or network.loaded or self.origin(name, plan) != str(network.origin):
            return None
        drawn = f"{name}{AVERAGE}"
        own = build_network(self.app, name, builder=self.builder, device=self.device, drawn_as=drawn)
        return own.module.state_dict()

    def trial(self) -> "Experiment":
        """The same experiment with adapters and losses of its own, to assemble stages on trial."""
        other, parts = copy.copy(self), self.parts
        other.parts = Parts(parts.networks, dict(parts.adapters), dict(parts.losses), confs=dict(parts.confs))
        return other

    def close(self) -> None:
        """Ends the processes that load images."""
        self.data.close()
