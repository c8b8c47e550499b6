"""`distill taps`: the tree of a network, and where its taps sit."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill_app.check.command_line import composition_errors
from distill_app.check.quick import fill_in, missing_keys
from distill_app.config.groups import options_of
from distill_app.config.plan import ROLES
from distill_app.config.schema import ModelConf, RuntimeConf
from distill_app.config.tree import compose
from distill_app.errors import ConfigError, UsageError, is_of_composition
from distill_app.verbs.list import add_config_dirs, check_config_dirs

_HELP = """\
distill taps resnet18                              an option of the group model, or a classifier of torchvision
distill taps timm/convnext_tiny                    a network of timm
distill taps mypkg.Net --allow mypkg               one of your own
distill taps teacher model@teacher=vit_b_16 dataset=imagenet
distill taps student experiment=imagenet/kd_r34_r18    a network as a line of overrides has it
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _HELP
    parser.add_argument("model", help="a network, or teacher or student of the overrides that follow")
    parser.add_argument("overrides", nargs="*", help="key=value, as after distill")
    parser.add_argument("--depth", type=int, default=2, help="levels of the tree; taps further down are shown (2)")
    parser.add_argument("--size", type=int, help="side of the images in pixels; default: what the network is for")
    parser.add_argument("--json", action="store_true", help="all modules and taps, as JSON")
    add_config_dirs(parser)
    parser.add_argument("--allow", action="append", default=[], help="a package from which it may be built")


def run(arguments: argparse.Namespace) -> int:
    """Prints the tree.

    Raises:
        UsageError: No such network, or one that cannot run on these images.
        ConfigError: All that is wrong with the overrides, or with the network.
    """
    if arguments.depth < 0 or (arguments.size is not None and arguments.size < 1):
        raise UsageError(f"--depth and --size: want positive numbers, got {arguments.depth} and {arguments.size}")
    check_config_dirs(arguments.config_dir)
    role, overrides = line_of(arguments.model, arguments.overrides, config_dirs=arguments.config_dir)
    cfg = _composed(overrides, arguments.config_dir)
    conf = _network(cfg, role)
    allow = [*RuntimeConf().allow, *arguments.allow]
    data = cfg.dataset
    channels, side = conf.input.channels or data.channels, conf.input.size or data.image_size
    about = described(conf, channels, side, data.num_classes, allow, role, arguments.size)
    print(json.dumps(about, indent=2) if arguments.json else text_of(about, depth=arguments.depth))
    return 0


def line_of(model: str, more: Sequence[str], *, config_dirs: Sequence[str] = ()) -> tuple[str, list[str]]:
    """Which network of which line of overrides is meant.

    Args:
        model: What stands behind the verb.
        more: The overrides that follow.
        config_dirs: Folders with groups of the user's own.
    """
    if "=" in model:
        return "student", [model, *more]
    if model in ROLES:
        return model, list(more)
    if model.startswith("timm/"):
        return "student", ["model@student=timm", f"student.net.model_name={model.removeprefix('timm/')}", *more]
    if model in options_of("model", config_dirs):
        return "student", [f"model@student={model}", *more]
    if "." in model:
        return "student", ["model@student=own", f"student.net._target_={model}", *more]
    return "student", ["model@student=torchvision", f"student.net.name={model}", *more]


def _composed(overrides: Sequence[str], config_dirs: Sequence[str]) -> DictConfig:
    try:
        cfg = compose(overrides, config_dirs=config_dirs)
    except Exception as error:
        if not is_of_composition(error):
            raise
        raise ConfigError(list(composition_errors(error, overrides, config_dirs=config_dirs, quick=True))) from error
    fill_in(cfg)
    return cfg


def _network(cfg: DictConfig, role: str) -> ModelConf:
    """The config of one network, whatever is open in the rest.

    Raises:
        ConfigError: Something is open in it, or refers to what is not there.
    """
    try:
        if OmegaConf.is_missing(cfg.dataset, "num_classes"):
            cfg.dataset.num_classes = 1000
        if missing := sorted(missing_keys(cfg[role], role)):
            raise ConfigError([f"{key}: is missing; set it: '{key}=...'" for key in missing])
        conf = OmegaConf.to_object(cfg[role])
    except OmegaConfBaseException as error:
        raise ConfigError([f"{error.full_key or role}: {str(error).splitlines()[0]}"]) from error
    assert isinstance(conf, ModelConf)  # for the type checker: the schema has it there
    return conf


def described(
    conf: ModelConf, channels: int, side: int | None, classes: int, allow: Sequence[str], role: str, size: int | None
) -> dict[str, Any]:
    """A network in plain values: the images it ran on, its modules, its taps with their shapes, and those missing.

    Args:
        conf: The network.
        channels: Of the images.
        side: Of the images of the data.
        classes: How many there are.
        allow: Packages beside those of the program from which it may be built.
        role: Its config key.
        size: The side of the images to run on; None: what the network is for.

    Raises:
        UsageError: It cannot run on such images.
        ConfigError: It cannot be built.
    """
    from distill_app.check.taps import opened_up
    from distill_app.errors import SettingError
    from distill_app.networks.finding import find_taps
    from distill_app.networks.tree import rows, tap_shapes

    try:
        module, trace = opened_up(
            conf, channels=channels, side=size or side, allow=allow, key=role, only=size is not None
        )
    except SettingError as error:
        raise UsageError(f"{conf.net.get('_target_')}: {error}; --size N tries other images") from error
    taps, missing = dict(conf.taps), {}
    if conf.find_taps or (conf.find_taps is None and not taps):
        found = find_taps(module, trace, num_classes=classes)
        taps = {**found.taps, **taps}
        missing = {name: reason for name, reason in found.missing.items() if name not in taps}
    shapes = tap_shapes(module, trace, taps)
    return {
        "network": conf.name or str(conf.net.get("_target_")),
        "images": list(trace.shape[1:]),
        "modules": [asdict(row) | {"depth": row.depth} for row in rows(module, trace, taps)],
        "taps": {name: {"path": path, "shape": shapes[name]} for name, path in taps.items()},
        "written": sorted(conf.taps),
        "missing": missing,
    }


def text_of(about: Mapping[str, Any], *, depth: int) -> str:
    """The tree down to a depth, and further where a tap sits; then the taps."""
    modules = about["modules"]
    deep = [row["path"] for row in modules if row["taps"]]
    kept = [
        row
        for row in modules
        if row["depth"] <= depth or any(path == row["path"] or path.startswith(f"{row['path']}.") for path in deep)
    ]
    lines = [("module", "type", "output", "parameters", "taps")]
    for row in kept:
        name = "  " * row["depth"] + (row["path"].rpartition(".")[2] or "(whole network)")
        output = "-" if row["output"] is None else _shape(row["output"])
        lines.append((name, row["kind"], output, f"{row['parameters']:,}", ", ".join(row["taps"])))
    sides = " x ".join(map(str, about["images"]))
    text = [f"{about['network']} on images of {sides}; B stands for the batch", "", *_table(lines, right=3), ""]
    taps = [("tap", "path", "shape")]
    for name, tap in about["taps"].items():
        shape = tap["shape"]
        taps.append((name, tap["path"] or "(whole network)", shape if isinstance(shape, str) else _shape(shape)))
    text += _table(taps)
    text += [f"{name}: not found, {reason}" for name, reason in about["missing"].items()]
    if left := len(modules) - len(kept):
        text += ["", f"{left} further modules: --depth {depth + 1}"]
    return "\n".join(text)


def _shape(value: Any) -> str:
    """(B, 64, 56, 56); of nested values as they are nested."""
    if isinstance(value, tuple):
        return "(" + ", ".join(["B", *map(str, value[1:])]) + ")"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shape(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(_shape, value)) + "]" if isinstance(value, list) else "-"


def _table(lines: Sequence[tuple[str, ...]], *, right: int | None = None) -> list[str]:
    """Columns as wide as what is in them; one of them at the right."""
    wide = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(f"{cell:>{wide[n]}}" if n == right else f"{cell:<{wide[n]}}" for n, cell in enumerate(line)).rstrip()
        for line in lines
    ]
