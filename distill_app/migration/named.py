"""Whether imported stages are those of a method that has a name here, but for weights and settings."""

import inspect
import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from omegaconf import OmegaConf

from distill_app.config.tree import compose

Stages = Mapping[str, Mapping[str, Any]]
# The classes of all terms of a method -> its name.
METHODS: dict[frozenset[str], str] = {
    frozenset(classes.split()): name
    for name, classes in {
        "ce": "CrossEntropyLoss",
        "kd": "CrossEntropyLoss KLDivergence",
        "fitnet": "CrossEntropyLoss KLDivergence MSELoss",
        "at": "CrossEntropyLoss AttentionTransfer",
        "ft": "CrossEntropyLoss MSELoss FactorTransfer",
        "pkt": "CrossEntropyLoss ProbabilisticTransfer",
        "cckd": "CrossEntropyLoss CorrelationCongruence",
        "crd": "CrossEntropyLoss ContrastiveRepresentation",
        "dab": "CrossEntropyLoss KLDivergence ActivationBoundary",
        "dist": "CrossEntropyLoss PearsonDistance",
        "fsp": "CrossEntropyLoss FlowOfSolution",
        "ickd": "CrossEntropyLoss ChannelCorrelation",
        "lskd": "CrossEntropyLoss StandardizedKL",
        "rkd": "CrossEntropyLoss RelationalDistance RelationalAngle",
        "skd_cvpr26": "CrossEntropyLoss KLDivergence DirectionDistance",
        "spkd": "CrossEntropyLoss SimilarityPreserving",
        "srd": "CrossEntropyLoss KLDivergence WhitenedLogDistance",
        "sskd": "CrossEntropyLoss KLDivergence ContrastivePrediction SimilarityKL RotatedKL",
        "vid": "CrossEntropyLoss VariationalInformation",
    }.items()
}
OF_THE_WIRING = ("adapters", "losses")


def named(stages: Stages) -> tuple[str, dict[str, dict[str, Any]]] | None:
    """The method that these stages are, and what is set of its stages; None where they are nobody's.

    Args:
        stages: As in `method.stages`, in the order in which they run.
    """
    classes = frozenset(_class(term["loss"]) for stage in stages.values() for term in stage["losses"].values())
    if (name := METHODS.get(classes)) is None:
        return None
    params = _place_of_hint(name, stages)
    method = _composed(f"method={name}", *(f"method.params.{key}={value}" for key, value in params.items()))
    if len(schedule := method["schedule"]) != len(stages):
        return None
    changes: dict[str, dict[str, Any]] = {}
    for own, stage in zip(schedule, stages.values(), strict=True):
        if (change := _same(method["stages"][own], stage)) is None:
            return None
        changes |= {own: change} if change else {}
    return name, changes | ({"params": params} if params else {})


def _place_of_hint(name: str, stages: Stages) -> dict[str, str]:
    """FitNets learn at one tap, which is a parameter of the method."""
    if name != "fitnet":
        return {}
    (term, *_) = next(iter(stages.values()))["losses"].values()
    found = re.fullmatch(r"teacher\.(\w+)", str(term["inputs"].get("target")))
    return {"tap": found[1]} if found else {}


@cache
def _composed(*overrides: str) -> Mapping[str, Any]:
    """A method of this package as its files say it; nobody changes what is returned."""
    cfg = compose([*overrides, "prelude=none"])
    OmegaConf.resolve(cfg)
    method: Any = OmegaConf.to_container(cfg.method)
    return dict(method)


def _same(method: Mapping[str, Any], stage: Mapping[str, Any]) -> dict[str, Any] | None:
    """What makes a method's stage the imported one; None where its wiring is another."""
    beside = {key: value for key, value in stage.items() if key not in OF_THE_WIRING}
    if (method.get("train") or ["student"]) != beside.pop("train", ["student"]) and method.get("train") != []:
        return None
    if method.get("train") == [] and stage.get("train") != []:
        return None
    wrappers = beside.pop("wrappers", {})
    if set(method.get("wrappers") or {}) != set(wrappers) or method.get("freeze") or method.get("init_from"):
        return None
    changes: dict[str, Any] = dict(beside)
    if wrappers:
        changes["wrappers"] = {name: _changed(method["wrappers"][name], conf) for name, conf in wrappers.items()}
    for part, content in (("adapters", "module"), ("losses", "loss")):
        found = _matched(method, stage, part, content)
        if found is None:
            return None
        changes |= {part: found} if found else {}
    return changes


def _matched(method: Mapping[str, Any], stage: Mapping[str, Any], part: str, content: str) -> dict[str, Any] | None:
    """The changes of each adapter or term; None where one has no counterpart."""
    theirs = {name: conf for name, conf in (method.get(part) or {}).items() if conf is not None}
    ours = dict(stage.get(part) or {})
    changes: dict[str, Any] = {}
    for name, conf in theirs.items():
        like = _signature(conf, method)
        match = next((own for own, other in ours.items() if _signature(other, stage) == like), None)
        if match is None:
            return None
        other = ours.pop(match)
        change = {content: inner} if (inner := _changed(conf[content], other[content])) else {}
        if part == "losses" and (conf.get("weight") or 1.0) != other["weight"]:
            change["weight"] = other["weight"]
        changes |= {name: change} if change else {}
    return None if ours else changes


def _signature(conf: Mapping[str, Any], stage: Mapping[str, Any]) -> Any:
    """What an adapter or a term is, by class and by what it reads, whatever the names of adapters."""
    content = conf.get("module") or conf["loss"]
    reads = conf["inputs"] if "inputs" in conf else {"source": conf["source"], "target": conf.get("target")}
    return content["_target_"], tuple(sorted((key, _read(value, stage)) for key, value in reads.items()))


def _read(value: Any, stage: Mapping[str, Any]) -> str:
    if isinstance(value, list):
        return repr([_read(item, stage) for item in value])
    space, _, rest = str(value).partition(".")
    name, _, inside = rest.partition(".")
    adapter = (stage.get("adapters") or {}).get(name) if space == "adapters" else None
    return str(value) if adapter is None else f"{_signature(adapter, stage)}.{inside}"


def _changed(shipped: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that differ, where those that one of the two does not name are at the default of the class."""
    defaults = _defaults(wanted["_target_"])
    ours, theirs = {**defaults, **wanted}, {**defaults, **shipped}
    return {key: ours[key] for key in {**shipped, **wanted} if key in ours and ours[key] != theirs.get(key)}


def _defaults(target: str) -> dict[str, Any]:
    module, _, name = target.rpartition(".")
    parameters = inspect.signature(getattr(import_module(module), name)).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


def _class(conf: Mapping[str, Any]) -> str:
    return str(conf["_target_"]).rpartition(".")[2]
