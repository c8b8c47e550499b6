"""What is told of an exported network: how it is built and fed, and the run that it comes from; as plain values."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from distill_app import __version__
from distill_app.config.build import Builder
from distill_app.config.schema import DatasetConf, ModelConf
from distill_app.config.start import ASKING
from distill_app.deploy.deployed import Deployed
from distill_app.deploy.export import KIND
from distill_app.deploy.formats import FORMATS, quiet, require
from distill_app.deploy.preprocessing import Preprocessing
from distill_app.deploy.program import Program
from distill_app.errors import DistillError, UsageError
from distill_app.networks.answers import entry_of
from distill_app.networks.inputs import OwnInput
from distill_app.networks.network import Network, channel_arguments
from distill_app.report.results import aggregate
from distill_app.runs.collect import collect
from distill_app.runs.files import read_object
from distill_app.runs.lost_points import SWEEP
from distill_app.runs.metrics import metrics_of
from distill_app.words import first_line

VERSION = 1


def described(
    network: Network,
    conf: ModelConf,
    data: DatasetConf,
    *,
    preprocessing: Preprocessing,
    to: str,
    answer: str | None,
    scores: str | None,
    classes: Sequence[str] | None,
    run: Mapping[str, Any],
    licence: str | None,
) -> dict[str, Any]:
    """The description of an export.

    Args:
        network: The network.
        conf: What it was built from.
        data: What it was trained on last.
        preprocessing: Of its input.
        to: The format.
        answer: The tap that answers.
        scores: How answers become probabilities.
        classes: Their names, where the run knows them.
        run: What `told_by` says.
        licence: Of the weights, as the user names it.
    """
    path = "" if entry_of(answer) else network.taps.get(answer or "")
    return {
        "kind": KIND,
        "version": VERSION,
        "format": to,
        "network": network.name,
        "architecture": conf.name or str(conf.net["_target_"]).rsplit(".", 1)[-1],
        "net": without_asking(conf.net),
        "answer": None if path is None else {"tap": answer, "path": path},
        "parameters": sum(parameter.numel() for parameter in network.module.parameters()),
        "preprocessing": preprocessing.described(),
        "input": None if network.input is None else network.input.described(),
        "num_classes": data.num_classes,
        "classes": list(classes) if classes else None,
        "scores": scores,
        "dataset": data.name,
        "licence": licence,
        "run": dict(run),
        "created_by": f"distill-app {__version__}",
    }


def without_asking(net: Any) -> Any:
    """The config of a network whose constructor loads no weights: those of the file take their place."""
    if isinstance(net, Mapping):
        off = {"pretrained": False, "checkpoint_path": ""}
        return {key: off.get(key) if key in ASKING and value else without_asking(value) for key, value in net.items()}
    return [without_asking(each) for each in net] if isinstance(net, list | tuple) else net


def architecture_of(described: Mapping[str, Any], *, allow: Iterable[str]) -> Callable[[], nn.Module]:
    """What builds the bare network of a description, with its own input in front of it where it has one."""

    def build() -> nn.Module:
        net: Any = described.get("net")
        own = described.get("input")
        channels = int((own or {}).get("channels") or described["preprocessing"]["channels"])
        built: nn.Module = Builder(allow).build(net, key="student.net", **channel_arguments(channels))
        if own:
            OwnInput.of(own).before(built)
        return built

    return build


def loaded(file: Path, described: Mapping[str, Any], *, allow: Sequence[str] = ()) -> Deployed:
    """The network of an export, ready to be asked.

    Args:
        file: The file.
        described: Its description.
        allow: Packages of which it may be built, and the functions of torch that may run a file's code.

    Raises:
        UsageError: The file is of no known format, runs code that nobody allowed, or does not fit its description.
        SettingError: A package is missing.
        ConfigError: The architecture cannot be built.
    """
    name = str(described.get("format"))
    if name not in FORMATS:
        raise UsageError(f"{file}: its description says the format {name!r}; there are {', '.join(FORMATS)}")
    require(name)
    kind = FORMATS[name]
    if kind.code and kind.code not in allow:
        raise UsageError(f"{file} is a program, which {kind.code} runs; if you trust it: --allow {kind.code}")
    preprocessing = Preprocessing.of(described.get("preprocessing"), allow=allow, source=str(file))
    try:
        with quiet():
            module = kind.read(file, architecture_of(described, allow=allow))
    except DistillError:
        raise
    except Exception as error:  # a damaged or hostile file can fail in any part of a reader
        raise UsageError(f"{file} cannot be read as {name}: {first_line(error)}") from None
    answer = described.get("answer")
    if not kind.is_program and isinstance(answer, Mapping):
        tap, path = str(answer.get("tap")), str(answer.get("path"))
        module = Program(Network(str(described.get("network")), module, {tap: path}), tap)
    classes, scores = described.get("classes"), described.get("scores")
    names = [str(each) for each in classes] if isinstance(classes, list) else None
    scored = str(scores) if scores else None
    return Deployed(module, preprocessing, classes=names, scores=scored, name=name_in(described))


def name_in(described: Mapping[str, Any]) -> str:
    """Which network of its run an export is."""
    return str(described.get("network") or "student")


def told_by(folder: Path, config: Mapping[str, Any], *, network: str, source: str) -> dict[str, Any]:
    """What a run says of itself and of one of its networks: what its card tells.

    Args:
        folder: Of the run.
        config: Its resolved config.
        network: Which network.
        source: Where its weights were found.
    """
    summary = read_object(folder / "summary.json") or {}
    git, records = read_object(folder / "git.json") or {}, read_object(folder / "data.json") or {}
    data = [each for each in records.values() if isinstance(each, Mapping)]
    images = ("dataset", "train", "validation", "labels_per_class")
    return {
        "method": summary.get("method") or (config.get("method") or {}).get("name"),
        "dataset": (config.get("dataset") or {}).get("name"),
        "seed": config.get("seed"),
        "student": summary.get("student"),
        "teacher": summary.get("teacher"),
        "teacher_weights": _teacher_weights(summary),
        "weights": _place(source, folder),
        "data": {key: data[-1].get(key) for key in images} if data else {},
        "figures": figures_of(folder, network=network, summary=summary),
        "commit": git.get("commit"),
        "settings": summary.get("settings"),
    }


def _teacher_weights(summary: Mapping[str, Any]) -> str | None:
    """Where the teacher's weights are from: a stage of the run, or whatever it began with."""
    for name, stage in (summary.get("stages") or {}).items():
        if "teacher" in (stage.get("trained") or ()):
            return f"of stage {name} of the same run"
    return (summary.get("origins") or {}).get("teacher")


def _place(source: str, folder: Path) -> str:
    """A place in a run, without the folders of this machine."""
    return source.replace(f"{folder}/", "").replace(str(folder), folder.name)


def figures_of(folder: Path, *, network: str, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of a network on the test set: of this run, and over the seeds of its sweep."""
    row = next((each for each in summary.get("rows") or () if each.get("network") == network), None)
    if row is None:
        return []
    over_seeds = _over_seeds(folder, network=network)
    found = []
    for metric in metrics_of(summary):
        value = row.get(metric.name)
        if isinstance(value, int | float) and metric.table:
            entry = {"name": metric.name, "value": value, "shown": metric.text(value), "seed": summary.get("seed")}
            found.append(entry | over_seeds.get(metric.name, {}))
    return found


def _over_seeds(folder: Path, *, network: str) -> dict[str, dict[str, Any]]:
    if not (folder.parent / SWEEP).is_file():  # the runs of a sweep differ in seeds, too
        return {}
    for result in aggregate(collect(folder.parent)):
        if any(run["folder"] == str(folder) and row.get("network") == network for run, row in result.members):
            spreads = {name: (figure.metric, figure.spread) for name, figure in result.figures.items()}
            return {
                name: {
                    "seeds": spread.n,
                    "mean": spread.mean,
                    "mean_shown": metric.text(spread.mean, deviation=spread.std),
                }
                for name, (metric, spread) in spreads.items()
                if spread is not None and spread.n > 1
            }
    return {}
