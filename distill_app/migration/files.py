"""An experiment as files of a config folder."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import yaml

from distill_app.migration.common import Common
from distill_app.migration.data import Data
from distill_app.migration.ledger import Ledger
from distill_app.migration.named import named
from distill_app.migration.networks import Network
from distill_app.migration.stages import CONSTANT

# What a recipe says of the first stage, and a later stage again where it is another: with the schema's defaults.
SCALARS: dict[str, Any] = {
    "epochs": None,
    "lr": None,
    "batch_size": None,
    "drop_last": False,
    "clip_grad_norm": None,
    "accumulation_steps": 1,
}
OPTIMIZERS = {"SGD": "sgd", "Adam": "adam", "AdamW": "adamw"}
UNSET = {"sgd": {"momentum": 0.0, "weight_decay": 0.0}, "adam": {"weight_decay": 0.0}, "adamw": {"weight_decay": 0.01}}


@dataclass
class Imported:
    """What came of a config.

    Attributes:
        name: Of the experiment.
        files: Path below the config folder -> text.
        method: A method of this package, or the imported one.
        ledger: What is left out, and what means something else.
    """

    name: str
    files: dict[str, str]
    method: str
    ledger: Ledger


@dataclass
class Files:
    """Puts an experiment together.

    Attributes:
        name: Of the experiment.
        source: The name of the file that it is made of.
        data: Its data set.
        common: Its networks, and what is said of the machine.
        stages: Its stages in order; what the recipe says is taken out of them.
    """

    name: str
    source: str
    data: Data
    common: Common
    stages: dict[str, dict[str, Any]]

    def write(self) -> Imported:
        """The files; the experiment itself is the last of them."""
        files: dict[str, str] = {}
        networks = {"student": self.common.student} | ({"teacher": self.common.teacher} if self.common.teacher else {})
        for found in networks.values():
            if found.content is not None:
                files[f"model/{found.option}.yaml"] = _text(
                    found.content, [f"imported from {self.source} of torchdistill"]
                )
        if self.data.content is not None:
            files[f"dataset/{self.data.option}.yaml"] = _text(
                self.data.content, [f"imported from {self.source} of torchdistill"]
            )
        recipe, overrides = self._recipe()
        method, conf = self._method(files)
        defaults: list[Any] = ["_self_", {"override /dataset": self.data.option}]
        defaults += [{f"override /model@{role}": found.option} for role, found in networks.items()]
        defaults += [{"override /method": method}, {"override /prelude": "none"}, *overrides]
        content: dict[str, Any] = {"defaults": defaults}
        content |= {"dataset": self.data.conf} if self.data.conf else {}
        for role, found in networks.items():
            content |= self._network(role, found)
        content |= {"method": conf} if conf else {}
        content["stage"] = recipe
        content |= {"runtime": self.common.runtime} if self.common.runtime else {}
        content |= {"cache": self.common.cache} if self.common.cache else {}
        head = ["@package _global_", f"distill --config-dir FOLDER experiment={self.name}"]
        head += [f"imported from {self.source} of torchdistill"]
        files[f"experiment/{self.name}.yaml"] = _text(content, head)
        return Imported(self.name, files, method, self.common.ledger)

    def _network(self, role: str, found: Network) -> dict[str, Any]:
        conf = dict(found.conf)
        if conf.pop("sync_bn", False):
            self.common.runtime["sync_batch_norm"] = True
        conf |= {"taps": found.added} if found.added else {}
        return {role: conf} if conf else {}

    def _recipe(self) -> tuple[dict[str, Any], list[dict[str, str]]]:
        """What the recipe says, by the first stage, whose own settings go; and the options that it builds on."""
        first, *later = self.stages.values()
        before = deepcopy(first)
        recipe = {key: first.pop(key) for key in SCALARS if key in first}
        overrides = [{"override /stage": "imagenet_sgd"}]
        optimizer = first.get("optimizer", {})
        option = OPTIMIZERS.get(str(optimizer.get("_target_")).rpartition(".")[2])
        if option:
            del first["optimizer"]
            given = {key: value for key, value in optimizer.items() if not key.startswith("_")}
            recipe["optimizer"] = UNSET[option] | given
            overrides.append({"override /optimizer@stage.optimizer": option})
        scheduler = first.pop("scheduler", deepcopy(CONSTANT))
        if scheduler != CONSTANT:
            recipe["scheduler"] = scheduler
        overrides.append({"override /scheduler@stage.scheduler": "constant"})
        if not later:
            recipe["select"] = "best"
        for conf in later:
            for key, default in SCALARS.items():
                if key in recipe and key not in conf and default is not None:
                    conf[key] = default
                elif conf.get(key, default) == recipe.get(key, default):
                    conf.pop(key, None)
            for key in ("optimizer", "scheduler"):
                if conf.get(key) == before.get(key):
                    conf.pop(key, None)
            before |= {key: conf[key] for key in ("optimizer", "scheduler") if key in conf}
        if later and later[-1].get("train") != []:
            later[-1]["select"] = "best"
        return recipe, overrides

    def _method(self, files: dict[str, str]) -> tuple[str, dict[str, Any]]:
        """A method that has a name here, with what is set of it; or a file of its own."""
        found = named(self.stages)
        if found is not None:
            name, changes = found
            params = changes.pop("params", None)
            conf: dict[str, Any] = {"params": params} if params else {}
            return name, conf | ({"stages": changes} if changes else {})
        about = {"title": self.name, "learns": f"what {self.source} of torchdistill says"}
        content = {"name": self.name, "about": about, "schedule": list(self.stages), "stages": self.stages}
        files[f"method/{self.name}.yaml"] = _text(content, [f"distill --config-dir FOLDER method={self.name}"])
        return self.name, {}


class _Plain(yaml.SafeDumper):
    """Without anchors: what is said twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(content: dict[str, Any], comments: list[str]) -> str:
    head = "".join(f"# {line}\n" for line in comments)
    return head + yaml.dump(content, Dumper=_Plain, sort_keys=False, default_flow_style=None, width=118)
