"""Networks: what builds them here, where their weights come from, and what their modules are called."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from distill_app.config.groups import conf_dir, options_of
from distill_app.errors import UsageError
from distill_app.migration.ledger import Node

CLASSES = "${dataset.num_classes}"
# Of networks of torchvision that have no file in conf/model: the start of their name -> the file of their taps.
FAMILIES = {"resnet": "resnet", "resnext": "resnet", "wide_resnet": "resnet", "densenet": "densenet"}
# Its own networks of CIFAR for which it has weights to download.
_WIDE = ("densenet_bc_k12_depth100", "wide_resnet40_4", "wide_resnet28_10", "wide_resnet16_8")
PUBLISHED = {
    10: (*(f"resnet{depth}" for depth in (20, 32, 44, 56, 110)), *_WIDE),
    100: _WIDE,
}
RELEASES = "https://github.com/yoshitomo-matsubara/torchdistill/releases/download/v0.1.1"


@dataclass
class Network:
    """A network of an imported experiment.

    Attributes:
        option: Its file in the group `model`.
        content: What to write into that file; None where it comes with this package.
        conf: What the experiment sets beside.
        taps: Name -> path, of the file.
        added: The same, of what the experiment reads besides.
        names: Expressions for the paths of its modules in torchdistill, and what they are here.
    """

    option: str
    content: dict[str, Any] | None
    conf: dict[str, Any]
    taps: dict[str, str]
    added: dict[str, str] = field(default_factory=dict)
    names: tuple[tuple[str, str], ...] = ()
    overwritten: list[str] = field(default_factory=list)  # inputs of ReLUs that it reads

    def path(self, path: str) -> str:
        """The path of a module as it is here."""
        for expression, name in self.names:
            path = re.sub(expression, name, path)
        return path

    def tap(self, path: str, *, entry: bool) -> str:
        """The name of the tap that reads what a module gives, or takes; one is added where none does."""
        here = "" if path == "." else self.path(path)
        if here == "":
            return "logits"
        if (here, entry) == ("avgpool", False) and self.taps.get("pooled") == "fc:in":
            return "pooled"  # flattened
        spec = f"{here}:in" if entry else here
        if entry and "relu" in here.rpartition(".")[2]:
            self.overwritten.append(path)
        for name, known in {**self.taps, **self.added}.items():
            if known.removesuffix(":clone") == spec:
                return name
        name = re.sub(r"\W+", "_", f"{here}_in" if entry else here).strip("_")
        while name in self.taps or name in self.added:
            name += "_"
        self.added[name] = spec
        return name


def network(node: Node, *, num_classes: int, role: str) -> Network:
    """The counterpart of `models.<role>_model`.

    Raises:
        UsageError: Nothing here builds that network.
    """
    key = node.text("key", "name")
    if node.flag("quantized", default=False):
        raise UsageError(f"{node.key}.quantized: quantised networks are not trained here")
    if node.get("repo_or_dir").given() is not None:
        raise UsageError(
            f"{node.key}.repo_or_dir: code of torch.hub is not taken over unasked; write conf/model/{key}.yaml like "
            f"conf/model/hub_local.yaml, and take the key out of the file"
        )
    arguments = node.get("kwargs", "params")
    found = _own(key, arguments, num_classes=num_classes) or _torchvision(key, arguments, num_classes=num_classes)
    if found is None:
        raise UsageError(
            f"{node.key}.key: {key!r} is no network of torchvision or of torchdistill's models for CIFAR; its code "
            f"belongs to a package of yours, or to an older version"
        )
    _weights(node, key, found, num_classes=num_classes, role=role)
    arguments.rest(f"{key} takes no such argument here")
    arguments.use() if not arguments else None
    node.text("experiment", default=None)
    if node.flag("sync_bn", default=False):
        found.conf["sync_bn"] = True
    return found


def _own(key: str, arguments: Node, *, num_classes: int) -> Network | None:
    """torchdistill's networks of CIFAR."""
    if re.fullmatch(r"resnet(20|32|44|56|110|1202)?", key) and (key != "resnet" or arguments.has("depth")):
        depth = int(key.removeprefix("resnet") or arguments.whole("depth"))
        net = {"_target_": "distill_app.models.CifarResNet", "depth": depth}
        _common(arguments, net, num_classes=num_classes)
        # Its blocks use one ReLU twice: a hook keeps what the second call gave.
        names = ((r"(layer\d\.-?\d+)\.relu$", r"\1.relu2"), (r"\.downsample\b", ".shortcut"))
        return _made(f"resnet{depth}", net, taps="cifar_resnet", names=names)
    if found := re.fullmatch(r"wide_resnet(?:(\d+)_(\d+))?", key):
        if found[1] is None and not arguments.has("depth"):
            return None
        depth = int(found[1] or arguments.whole("depth"))
        widening, dropout = int(found[2] or arguments.whole("k")), float(arguments.number("dropout_p", default=0.3))
        net = {"_target_": "distill_app.models.WideResNet", "depth": depth, "widening": widening, "shortcut": "input"}
        net |= {"dropout": dropout} if dropout else {}
        _common(arguments, net, num_classes=num_classes)
        name = f"wrn_{depth}_{widening}_input" + (f"_dropout{dropout:g}".replace(".", "") if dropout else "")
        wide = ((r"(layer\d\.-?\d+)\.relu$", r"\1.relu2"), (r"\.shortcut\.0$", ".shortcut"), (r"^bn1$", "bn"))
        return _made(name, net, taps="wide_resnet", names=wide)
    if found := re.fullmatch(r"densenet_bc_k(\d+)_depth(\d+)", key):
        growth, depth = int(found[1]), int(found[2])
        net = {"_target_": "distill_app.models.CifarDenseNet", "depth": depth, "growth_rate": growth}
        saving = arguments.flag("memory_efficient", default=False)
        net |= {"memory_efficient": True} if saving else {}
        if drop := float(arguments.number("drop_rate", default=0.0)):
            net["drop_rate"] = drop
        _common(arguments, net, num_classes=num_classes)
        name = f"densenet_bc_{depth}_{growth}" + ("_saving" if saving else "") + ("_dropout" if drop else "")
        return _made(name, net, taps="cifar_densenet")
    return None


def _torchvision(key: str, arguments: Node, *, num_classes: int) -> Network | None:
    from torchvision import models

    if key not in models.list_models(module=models):
        return None
    net: dict[str, Any] = {"_target_": f"torchvision.models.{key}"}
    net |= arguments.handed_on("num_classes", "weights", "pretrained", "progress")
    _common(arguments, net, num_classes=num_classes)
    taps = next((taps for start, taps in FAMILIES.items() if key.startswith(start)), None)
    plain = set(net) == {"_target_", "num_classes"}
    return _made(key if plain else f"{key}_own", net, taps=taps)


def _common(arguments: Node, net: dict[str, Any], *, num_classes: int) -> None:
    classes = arguments.whole("num_classes", default=num_classes)
    net["num_classes"] = CLASSES if classes == num_classes else classes
    arguments.flag("progress", default=None)


def _made(option: str, net: dict[str, Any], *, taps: str | None, names: tuple[tuple[str, str], ...] = ()) -> Network:
    """The file of this package that builds just this, or one to write."""
    if option in options_of("model"):
        shipped = _yaml("model", option)
        if shipped.get("net") == net:
            paths = _yaml("model/taps", next(entry["taps"] for entry in shipped["defaults"] if "taps" in entry))
            return Network(option, None, {}, paths, names=names)
        option += "_imported"
    paths = _yaml("model/taps", taps) if taps else {"logits": ""}
    content = {"defaults": [{"taps": taps}], "name": option, "net": net} if taps else {"name": option, "net": net}
    return Network(option, content if taps else {**content, "taps": paths}, {}, paths, names=names)


def _yaml(group: str, option: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(Path(conf_dir(), group, f"{option}.yaml").read_text(encoding="utf-8"))
    return content


def _weights(node: Node, key: str, network: Network, *, num_classes: int, role: str) -> None:
    """Where its weights come from, and where they went."""
    arguments, own = node.get("kwargs", "params"), key not in _torchvision_names()
    weights, pretrained = arguments.get("weights"), arguments.flag("pretrained", default=False)
    if weights:
        _enum(weights, network)
    elif pretrained and not own:
        network.conf["weights"] = "IMAGENET1K_V1"
    elif pretrained and key in PUBLISHED.get(num_classes, ()):
        published = f"cifar{num_classes}-{key}.pt"
        network.conf["checkpoint"] = f"${{oc.env:DISTILL_WEIGHTS,weights}}/{published}"
        node.differ(f"nothing is downloaded: put {RELEASES}/{published} there, or set {role}.checkpoint to the file")
    elif pretrained:
        arguments.get("pretrained").leave(f"there are no weights of {key} for {num_classes} classes")
    names = ("src_ckpt", "ckpt") if role == "teacher" else ("src_ckpt",)
    file: str | None = node.text(*names, default=None)
    if file:
        if file.startswith(("http://", "https://")):
            node.get(*names).leave(f"nothing is downloaded: fetch the file and set {role}.checkpoint to it")
        elif "checkpoint" not in network.conf:
            # There a file that is not there is passed over, and the network stays as its constructor left it.
            network.conf["checkpoint"] = home(file)
            network.conf |= {"checkpoint_optional": True} if "weights" in network.conf or role == "student" else {}
        else:
            node.get(*names).differ(
                f"the published weights are read; set {role}.checkpoint to this file for those in it"
            )
    if role == "student" and node.has("dst_ckpt", "ckpt"):
        node.text("dst_ckpt", "ckpt", default=None)
        node.get("dst_ckpt", "ckpt").differ(
            "weights go to student.pt in the run's folder; distill resume RUN goes on, student.checkpoint=FILE starts "
            "from a file"
        )


def _enum(weights: Node, network: Network) -> None:
    """torchvision's weights: an attribute of an enum, or a name."""
    value = weights.value
    if isinstance(value, str):
        network.conf["weights"] = value.rpartition(".")[2]
        weights.use()
    elif weights.tag == "!getattr" and isinstance(value["of"], Mapping):
        network.conf["weights"] = weights.text("name")
        weights.get("of").text("key")
    elif weights.tag == "!import_get" and "_Weights." in str(value.get("key")):
        network.conf["weights"] = weights.text("key").rpartition(".")[2]
    else:
        weights.leave("what the tag gives is known only when it is run; write the name of torchvision's weights")


def _torchvision_names() -> list[str]:
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def home(path: str) -> str:
    """A path with ~ as whoever runs the experiment has it."""
    return "${oc.env:HOME}" + path[1:] if path == "~" or path.startswith("~/") else path
