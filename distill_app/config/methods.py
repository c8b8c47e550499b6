"""The methods there are, and each as text: what is told of it, and what its stages train and minimise."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from distill_app.config.each import written_out
from distill_app.config.groups import conf_dir
from distill_app.config.inherit import inherit
from distill_app.config.parts import texts_of
from distill_app.config.plan import StagePlan
from distill_app.config.planning import plan_stages
from distill_app.config.schema import AboutConf, AdapterConf, LossTermConf
from distill_app.config.tree import compose
from distill_app.errors import ConfigError, UsageError, one_line

# What the text beside a method's file, NAME.md, begins its paragraphs with; the first one says what the method does.
PARAGRAPHS = {"know": "Before using it: ", "matches": "Same numbers as: "}
MEASURED = "measured.yaml"  # beside config.yaml; written with the pages of results
ABOUT = tuple(field.name for field in fields(AboutConf))


@dataclass(frozen=True)
class Method:
    """A method as its file and the text beside it tell it.

    Args:
        name: The option of the group `method`.
        about: What these themselves say; what it inherits is about another method.
        shipped: Whether it comes with this package, and not from a folder of the user's.
    """

    name: str
    about: AboutConf
    shipped: bool

    @property
    def year(self) -> int | None:
        """The year of the paper."""
        years = re.findall(r"\b(?:19|20)\d\d\b", self.authors)
        return int(years[-1]) if years else None

    @property
    def authors(self) -> str:
        """Authors and year of the paper; empty if there is none."""
        return re.sub(r"[,:;]?\s*https?://.*", "", self.about.paper or "", flags=re.DOTALL).strip()

    @property
    def link(self) -> str:
        """The address of the paper; empty if there is none."""
        found = re.search(r"https?://\S+?(?=[,:;]?(\s|$))", self.about.paper or "")
        return found[0] if found else ""


def methods_of(config_dirs: Sequence[str] = ()) -> list[Method]:
    """All methods by the year of their paper; without one, the package's come first and the user's last.

    Raises:
        UsageError: A file that cannot be read, or is no YAML.
    """
    found: dict[str, Method] = {}
    for root in (conf_dir(), *config_dirs):
        folder = Path(root, "method")
        for file in sorted(folder.glob("**/*.yaml")):
            name = file.relative_to(folder).with_suffix("").as_posix()
            # Of two files of one name Hydra takes that of the package.
            found.setdefault(name, Method(name, _about(file), shipped=root == conf_dir()))
    return sorted(found.values(), key=lambda method: (_year(method), method.name))


def _about(file: Path) -> AboutConf:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{file}: {one_line(error)}") from error
    about = content.get("about") if isinstance(content, Mapping) else None
    told = {**_text(file.with_suffix(".md")), **(about if isinstance(about, Mapping) else {})}
    return AboutConf(**{key: str(told[key]).strip() for key in ABOUT if told.get(key) is not None})


def _text(file: Path) -> dict[str, str]:
    """The paragraphs of the text beside a method's file, if there is one: does, formula (indented), know, matches.

    Raises:
        UsageError: It cannot be read, or two paragraphs are of one kind.
    """
    found: dict[str, str] = {}
    try:
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: {one_line(error)}") from error
    for paragraph in filter(str.strip, text.split("\n\n")):
        line = " ".join(paragraph.split())
        named = [key for key, words in PARAGRAPHS.items() if line.startswith(words)]
        key = named[0] if named else "formula" if paragraph.lstrip("\n").startswith("    ") else "does"
        if key in found:
            raise UsageError(f"{file}: two paragraphs say {key!r}: {line[:60]!r}")
        found[key] = line.removeprefix(PARAGRAPHS.get(key, "")).removesuffix("." if key == "matches" else "")
    return found


def _year(method: Method) -> int:
    return method.year or (0 if method.shipped else 9999)


def gains() -> dict[str, dict[str, float]]:
    """What methods were measured to give over the student alone, as docs/results.md has it.

    Returns:
        Data set -> method -> the difference in points, the mean over seeds.
    """
    file = Path(conf_dir(), MEASURED)
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}


def presets_of(name: str, config_dirs: Sequence[str] = ()) -> list[str]:
    """The experiments that choose a method."""
    found = set()
    for root in (conf_dir(), *config_dirs):
        folder = Path(root, "experiment")
        for file in folder.glob("**/*.yaml"):
            content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            if {"override /method": name} in content.get("defaults", []):
                found.add(file.relative_to(folder).with_suffix("").as_posix())
    return sorted(found)


@dataclass(frozen=True)
class StageText:
    """A stage in words: what it trains, its weighted terms, and through what, a line each."""

    name: str
    trains: str
    minimises: list[str]
    through: list[str]


def stages_of(name: str, config_dirs: Sequence[str] = ()) -> list[StageText]:
    """The stages of a method with the defaults of its config, in the order in which they run.

    Raises:
        ConfigError: A stage is like one that is not there.
    """
    cfg = compose([f"method={name}"], config_dirs=config_dirs)
    OmegaConf.set_struct(cfg, False)
    if errors := list(inherit(cfg)):
        raise ConfigError(errors)
    OmegaConf.resolve(cfg)
    app: Any = written_out(OmegaConf.to_object(cfg))
    plans, _ = plan_stages(app)
    return [_stage(plan, app.stage.lr) for plan in plans if plan.key.startswith("method.")]


def _stage(plan: StagePlan, lr: float) -> StageText:
    conf = plan.conf
    adapters = {key: adapter for key, adapter in conf.adapters.items() if adapter is not None}
    built = [key for key, adapter in adapters.items() if adapter.part is None]
    trained = [*(plan.network(entry) for entry in conf.train or ()), *built]
    optimiser = f"; {_target(conf.optimizer)}" if conf.optimizer else ""
    rate = f" (lr {conf.lr:g}{optimiser})" if conf.lr != lr else ""
    notes = [f"{role} is {network}" for role, network in conf.roles.items()]
    notes += [f"{role} starts from {source}" for role, source in conf.init_from.items()]
    notes += [f"frozen: {', '.join(conf.freeze)}"] if conf.freeze else []
    notes += ["images without targets too"] if conf.unlabelled else []
    notes += [f"images through {_target(wrapper)}" for wrapper in conf.wrappers.values() if wrapper is not None]
    return StageText(
        plan.name,
        trains=", ".join(trained) + rate,
        minimises=[_term(term) for term in plan.terms.values()],
        through=[*(_adapter(key, adapter) for key, adapter in adapters.items()), *notes],
    )


def _term(term: LossTermConf) -> str:
    inputs = ", ".join(f"{name}={_address(source)}" for name, source in term.inputs.items())
    weight = _call(term.weight) if isinstance(term.weight, Mapping) else f"{term.weight:g}"
    return f"{weight} x {_call(term.loss)} of {inputs}"


def _adapter(name: str, adapter: AdapterConf) -> str:
    if adapter.part is not None:
        chain = " -> ".join(texts_of(adapter.part))
        return f"{name} = {chain} of {_address(adapter.source)}, frozen"
    target = f", as {_address(adapter.target)}" if adapter.target else ""
    borrowed = f", with the module at {adapter.borrows}" if adapter.borrows else ""
    fills = f", in the place of batch.{adapter.fills}" if adapter.fills else ""
    return f"{name} = {_call(adapter.module)} of {_address(adapter.source)}{target}{borrowed}{fills}"


def _address(source: Any) -> str:
    if isinstance(source, Mapping):
        return ", ".join(f"{name}={_address(each)}" for name, each in source.items())
    return "[" + ", ".join(source) + "]" if isinstance(source, list) else str(source)


def _call(conf: Mapping[str, Any]) -> str:
    arguments = [f"{name}={value}" for name, value in conf.items() if not name.startswith("_")]
    return f"{_target(conf)}({', '.join(arguments)})" if arguments else _target(conf)


def _target(conf: Mapping[str, Any]) -> str:
    return str(conf["_target_"]).rsplit(".", 1)[-1]
