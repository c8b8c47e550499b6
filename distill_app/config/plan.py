"""What is known of a stage before anything is built: all that it inherits, reads and trains. Imports no torch."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from distill_app.config.addresses import Address, addresses
from distill_app.config.schema import AppConf, DatasetConf, ModelConf, SchedulerConf, StageConf

ROLES = ("student", "teacher")
AVERAGE = "_ema"  # behind the name of a network: the average of its weights


@dataclass
class StagePlan:
    """One stage of the schedule with its inheritance resolved and its needs known."""

    name: str
    key: str  # where it stands in the config, for messages
    conf: StageConf
    data: DatasetConf
    data_key: str
    optimizer: dict[str, Any]
    optimizer_key: str
    scheduler: SchedulerConf
    scheduler_key: str = "stage.scheduler"
    roles: dict[str, str] = field(default_factory=dict)
    taps: dict[str, list[str]] = field(default_factory=dict)  # network -> taps that are read
    shape_taps: dict[str, list[str]] = field(default_factory=dict)  # read once, for the shape of an adapter's target
    average_taps: dict[str, list[str]] = field(default_factory=dict)  # network -> taps read of its average of weights
    parts: dict[str, list[str]] = field(default_factory=dict)  # network -> modules that adapters work with
    adapters: list[str] = field(default_factory=list)  # those that are read, sources before readers
    declared: list[str] = field(default_factory=list)  # the adapters that this stage itself declares
    trained: list[str] = field(default_factory=list)  # networks
    trained_adapters: list[str] = field(default_factory=list)

    def network(self, role: str) -> str:
        """The network that plays a role here."""
        return self.roles.get(role, role)

    def redesign(self, network: str) -> list[Any] | None:
        """What runs in the place of a network, None where nothing is said."""
        found = (entries for role, entries in self.conf.redesign.items() if self.network(role) == network)
        return next(found, None)

    @property
    def terms(self) -> dict[str, Any]:
        """The loss terms that are switched on."""
        return {name: term for name, term in self.conf.losses.items() if term is not None}

    def reads_average(self, term: str) -> bool:
        """Whether a term reads an average of weights, which begins where the network does."""
        read = addresses(self.terms[term].inputs)
        return any(Address.parse(text, self.roles).space.removesuffix(AVERAGE) in self.average_taps for text in read)

    @property
    def wrappers(self) -> dict[str, tuple[Any, str]]:
        """What wraps the training samples, the data set's first: name -> config and its key."""
        own = {name: (conf, f"{self.key}.wrappers.{name}") for name, conf in self.conf.wrappers.items()}
        given = {name: (conf, f"{self.data_key}.wrappers.{name}") for name, conf in self.data.wrappers.items()}
        return {name: (conf, key) for name, (conf, key) in {**given, **own}.items() if conf is not None}


def models_of(app: AppConf) -> dict[str, ModelConf]:
    """Every network of the experiment by the name that addresses use."""
    extra = {**app.prelude.extra_models, **app.method.extra_models, **app.extra_models}
    return {"student": app.student, "teacher": app.teacher, **extra}


def model_key(app: AppConf, network: str) -> str:
    """The config key of a network."""
    if network in ROLES:
        return network
    for part, owner in (("", app), ("method.", app.method), ("prelude.", app.prelude)):
        if network in owner.extra_models:
            return f"{part}extra_models.{network}"
    return f"extra_models.{network}"


def networks_read(plans: Iterable[StagePlan]) -> list[str]:
    """The networks that any stage runs, trains, or takes weights or modules from, each once."""
    names: dict[str, None] = {}
    for plan in plans:
        names.update(dict.fromkeys([*plan.taps, *plan.parts, *plan.trained, *plan.conf.init_from.values()]))
    return list(names)


def finds_taps(conf: ModelConf) -> bool:
    """Whether taps that a network's config does not have are looked for in the network."""
    return not conf.taps if conf.find_taps is None else conf.find_taps


def taps_to_find(app: AppConf, plans: list[StagePlan]) -> dict[str, list[str]]:
    """The taps that stages read and no config has, by network; none of one whose parts may be called by a tap."""
    wanted: dict[str, list[str]] = {}
    models = models_of(app)
    for plan in plans:
        for taps in (plan.taps, plan.shape_taps):
            for network, names in taps.items():
                open_names = [name for name in names if name not in (*models[network].taps, "output")]
                wanted.setdefault(network, []).extend(open_names)
    found = {network: list(dict.fromkeys(names)) for network, names in wanted.items() if names}
    for network, paths in ((network, paths) for plan in plans for network, paths in plan.parts.items()):
        # A word without dots may be the name of a tap, or of a module, which only the network knows.
        if finds_taps(models[network]) and any("." not in path and path not in models[network].taps for path in paths):
            found.setdefault(network, [])
    return found


def adapter_confs(plans: list[StagePlan], upto: StagePlan) -> dict[str, Any]:
    """The adapters that are known in a stage: its own and those of the stages before."""
    confs: dict[str, Any] = {}
    for plan in plans:
        confs.update({name: plan.conf.adapters[name] for name in plan.declared})
        if plan is upto:
            break
    return confs
