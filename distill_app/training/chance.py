"""Which stages would learn from networks whose weights are chance."""

from contextlib import suppress

from distill_app.config.plan import StagePlan, model_key, models_of
from distill_app.config.schema import AppConf
from distill_app.errors import TapError
from distill_app.networks.network import Network
from distill_app.networks.taps import Tap, resolve
from distill_app.training.experiment import Experiment
from distill_app.words import warn


def random_errors(experiment: Experiment) -> list[str]:
    """What stages would learn from chance: networks that they read and do not train, with random weights.

    A classifier that alone is random is warned of.
    """
    app, networks = experiment.app, experiment.build_networks()
    models = models_of(app)
    errors: dict[str, str] = {}
    trained = {name for name in networks if models[name].allow_random}
    ready = trained | {name for name, network in networks.items() if _has_weights(network)}
    # A file that is not there is an error of its own.
    ready |= {name for name in networks if models[name].checkpoint and not models[name].checkpoint_optional}
    for plan in experiment.plans:
        if experiment.is_skipped(plan):
            continue
        for role, source in plan.conf.init_from.items():
            if source in ready:
                ready.add(plan.network(role))
        for name in dict.fromkeys([*plan.taps, *plan.parts]):
            if name in plan.trained:
                continue
            if name not in ready:
                errors.setdefault(name, _nothing_loaded(app, plan, name))
            elif name not in trained and (taps := _of_a_random_head(networks[name], plan)):
                warn(_random_head(app, plan, networks[name], taps))  # its other taps may be what one is after
        trained.update(plan.trained)
        ready.update(plan.trained)
    return list(errors.values())


def _has_weights(network: Network) -> bool:
    return network.loaded or next(network.module.parameters(), None) is None


def _nothing_loaded(app: AppConf, plan: StagePlan, name: str) -> str:
    key = model_key(app, name)
    train = " prelude=teacher trains it first," if name == "teacher" else ""
    ours = str(models_of(app)[name].net["_target_"]).startswith("torchvision.models.")
    weights = f" or {key}.weights=NAME" if ours else ""
    return (
        f"{key}: its weights are random, nothing loads them and no stage trains them before stage "
        f"{plan.name!r} learns from it;"
        f"{train} {key}.checkpoint=FILE{weights} loads some, {key}.allow_random=true lets it be"
    )


def _of_a_random_head(network: Network, plan: StagePlan) -> list[str]:
    """Those taps that read what a random classifier says, and those parts that it is in."""
    head = network.origin.head
    if not head or not any(name.rpartition(".")[0] == head for name in network.origin.random):
        return []
    module, reading = network.module.get_submodule(head), []
    for name, path in network.paths(plan.taps.get(network.name, ())).items():
        tap = Tap.parse(name, path)
        if tap.edge == "out" and any(part is module for part in resolve(network.module, tap.path).modules()):
            reading.append(name)
    for path in plan.parts.get(network.name, ()):
        with suppress(TapError):  # told where it is looked up
            reading += [path] if any(part is module for part in network.part(path).modules()) else []
    return list(dict.fromkeys(reading))


def _random_head(app: AppConf, plan: StagePlan, network: Network, taps: list[str]) -> str:
    key, skipped = model_key(app, network.name), "prelude.stages.teacher.skip_if_loaded=false"
    train = f" {skipped} trains it first," if network.name == "teacher" and "teacher" in app.prelude.schedule else ""
    return (
        f"{key}: its classifier {network.origin.head} is random ({network.origin}), and stage {plan.name!r} learns "
        f"from {', '.join(f'{network.name}.{tap}' for tap in taps)};{train} {key}.checkpoint=FILE with a classifier "
        f"of as many classes loads one"
    )
