"""Networks where they are used: of runs that exist, or of exports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_app.analysis.cut import cut_of
from distill_app.config.plan import StagePlan, models_of
from distill_app.config.schema import RuntimeConf
from distill_app.deploy import timm_files
from distill_app.deploy.card import card, split_card
from distill_app.deploy.deployed import OBJECTS, PIXELS, Deployed
from distill_app.deploy.description import architecture_of, described, loaded, name_in, told_by
from distill_app.deploy.detected import Detector
from distill_app.deploy.export import SAMPLES, Target, Written, description_in, same_bytes
from distill_app.deploy.export import export as write
from distill_app.deploy.formats import FORMATS
from distill_app.deploy.half import Half, load_half, split_in
from distill_app.deploy.preprocessing import Preprocessing
from distill_app.deploy.program import Program, program_of
from distill_app.deploy.split import export_split as write_split
from distill_app.deploy.split import refuse_uncut
from distill_app.errors import DistillError, UsageError
from distill_app.models.cut import CutReport, bottleneck_of
from distill_app.networks.modes import evaluating
from distill_app.networks.network import Network
from distill_app.runs.files import read_object
from distill_app.tasks.images import ImageTask
from distill_app.training.experiment import Experiment
from distill_app.verbs.networks import last_plan, stored_network
from distill_app.verbs.stored import RESOLVED, network_name, refuse_hub, run_folder, stored_config


@dataclass
class _Opened:
    """A network of a run, with what is known of its data; the data themselves may be gone."""

    experiment: Experiment
    network: Network
    source: str
    plan: StagePlan
    preprocessing: Preprocessing
    classes: list[str] | None


def open_network(place: Path, *, network: str | None = None, allow: Sequence[str] = ()) -> Deployed | Detector:
    """A network that is ready to be asked.

    Args:
        place: A run, a checkpoint in one, or an export (its file or its folder). The folder of a run is the run, also
            where an export lies in it.
        network: Which network of a run; None: what takes the student's part in its last stage. An export has one.
        allow: Packages from which its config may build objects.

    Raises:
        UsageError: It is neither, or damaged; an export of another network.
        SettingError: The network takes no images.
    """
    found = None if (place / RESOLVED).is_file() else description_in(place)
    if found is not None:
        file, told = found
        if not file.is_file() or not same_bytes(file, told):
            raise UsageError(f"{file} is not the file that was exported: it is missing, damaged or another one")
        if network not in (None, held := name_in(told)):
            raise UsageError(f"--network: {file} is an export of {held}; for {network} name the run, or leave it out")
        refuse_hub(told.get("net"), allow=allow, place=file)
        return loaded(file, told, allow=[*RuntimeConf().allow, *allow])  # as a stored config has it
    folder = run_folder(place)
    config = _at_home(stored_config(folder, allow=allow))
    with Experiment.of(config) as experiment:
        opened = _open(experiment, place, folder=folder, network=network_name(config, network))
        task = experiment.task(opened.plan)
        if task.scores == OBJECTS:
            task.classes = opened.classes
            return Detector(opened.network.module, opened.preprocessing, task=task, name=opened.network.name)
        if not isinstance(task, ImageTask):
            raise UsageError(f"{type(task).__name__} is no task of images; a network of images is needed here")
        program, scores, preprocessing = Program(opened.network, task.answer), task.scores, opened.preprocessing
        if scores == PIXELS:  # of every pixel: none is cut off
            allowed = experiment.app.runtime.allow
            preprocessing = Preprocessing.of_dataset(opened.plan.data, allow=allowed, fit=None)
        return Deployed(program, preprocessing, classes=opened.classes, scores=scores, name=opened.network.name)


def export(
    config: Mapping[str, Any],
    place: Path,
    *,
    folder: Path,
    network: str,
    to: str,
    output: Path,
    licence: str | None = None,
) -> tuple[Written, str]:
    """Writes a network of a run to a file, with its description and its card.

    Args:
        config: The resolved config of the run.
        place: The run, or a checkpoint in it.
        folder: The run's folder.
        network: Which network.
        to: The format.
        output: The file, or the folder.
        licence: Of the weights.

    Returns:
        What was written, and with which images it was verified.

    Raises:
        UsageError: No such network, or no weights of it; a format of programs, and inputs that are no images.
        ExportError: It cannot be exported, or the export answers something else.
    """
    with Experiment.of(_at_home(config, device="cpu")) as experiment:
        opened = _open(experiment, place, folder=folder, network=network)
        task, allow = experiment.task(opened.plan), experiment.app.runtime.allow
        if not isinstance(task, ImageTask):
            raise UsageError(f"{type(task).__name__} is no task of images: what goes into {network} cannot be told")
        samples, which = _samples(opened)
        bare = opened.network.module.to(memory_format=torch.contiguous_format)
        with evaluating(bare):
            subject = program_of(opened.network, task, samples) if FORMATS[to].is_program else bare
        told = described(
            opened.network,
            models_of(experiment.app)[network.removesuffix("_ema")],
            opened.plan.data,
            preprocessing=opened.preprocessing,
            to=to,
            answer=task.answer,
            scores=task.scores,
            classes=opened.classes,
            run=told_by(folder, config, network=network, source=opened.source),
            licence=licence,
        )
    target = Target.of(output, to=to)
    with_timm = target.whole and to == "safetensors" and timm_files.is_timm(told)
    written = write(
        subject,
        samples,
        to=to,
        target=target,
        about=told,
        card=lambda whole: card(whole, timm=with_timm),
        architecture=architecture_of(told, allow=allow),
        beside=lambda place: timm_files.write_config(place, bare, told, samples) if with_timm else [],
    )
    return written, which


def export_split(
    config: Mapping[str, Any],
    place: Path,
    *,
    folder: Path,
    network: str,
    output: Path,
    eight_bits: bool = False,
    licence: str | None = None,
) -> tuple[Written, str, CutReport]:
    """Writes the head and the tail of a network of a run that has a cut.

    Args:
        config: The resolved config of the run.
        place: The run, or a checkpoint in it.
        folder: The run's folder.
        network: Which network.
        output: The folder.
        eight_bits: Whether what crosses the cut is quantised; where the network itself does it, it is in any case.
        licence: Of the weights.

    Returns:
        What was written, with which images it was verified, and what crosses the cut.

    Raises:
        UsageError: No such network, no weights of it, or a network without a cut.
        ExportError: It cannot be split, or its halves answer something else.
    """
    with Experiment.of(_at_home(config, device="cpu")) as experiment:
        opened = _open(experiment, place, folder=folder, network=network)
        bare = opened.network.module.to(memory_format=torch.contiguous_format)
        refuse_uncut(bare, name=network)
        task, allow = experiment.task(opened.plan), experiment.app.runtime.allow
        images, which = _inputs(opened)
        report = cut_of(task, opened.network, ({"input": images[number : number + 1]} for number in range(len(images))))
        assert report is not None
        told = described(
            opened.network,
            models_of(experiment.app)[network.removesuffix("_ema")],
            opened.plan.data,
            preprocessing=opened.preprocessing,
            to="split",
            answer=None,
            scores=task.scores,
            classes=opened.classes,
            run=told_by(folder, config, network=network, source=opened.source),
            licence=licence,
        )
    written = write_split(
        bare,
        images,
        eight_bits=eight_bits or bottleneck_of(bare)[1].quantized,
        folder=output,
        about={**told, "image": list(images[0].shape), "cut": report.described()},
        card=split_card,
        architecture=architecture_of(told, allow=allow),
    )
    return written, which, report


def open_half(place: Path, part: str, *, allow: Sequence[str] = ()) -> Half:
    """The head or the tail of a split.

    Args:
        place: Its folder.
        part: head or tail.
        allow: Packages from which it may be built, and `torch.export.load` where its files are programs.

    Raises:
        UsageError: There is no split, or no such part of it; a file is another one, or a program nobody allowed.
    """
    told = split_in(place)
    refuse_hub(told.get("net"), allow=allow, place=place)
    trusted = [*RuntimeConf().allow, *allow]
    return load_half(place, part, told, allow=trusted, architecture=architecture_of(told, allow=trusted))


def _inputs(opened: _Opened) -> tuple[Any, str]:
    """Some inputs of a network, as it is asked with them, and what they are."""
    if not opened.experiment.task(opened.plan).own_sizes:
        return _samples(opened)
    try:
        batches = list(opened.experiment.data.test_one_by_one(opened.plan, count=SAMPLES))
        if images := [image for batch in batches for image in batch["input"]]:
            return images, "test images"
    except (DistillError, OSError, RuntimeError, ValueError):
        pass
    side, generator = opened.plan.data.image_size or 96, torch.Generator().manual_seed(0)
    noise = [torch.rand(opened.plan.data.channels, side, side + 32 * n, generator=generator) for n in range(2)]
    return noise, f"images of noise, since those of {opened.plan.data.name} cannot be read"


def _at_home(config: Mapping[str, Any], *, device: str = "auto") -> dict[str, Any]:
    """A run's config on the machine at hand, which need not be like the one that it was trained on."""
    runtime = {**config["runtime"], "device": device, "num_workers": 0, "compile": False}
    return {**config, "runtime": runtime}


def _open(experiment: Experiment, place: Path, *, folder: Path, network: str) -> _Opened:
    loaded_network, source = stored_network(experiment, place, folder=folder, name=network)
    plan = last_plan(experiment.plans, network)
    task, allow = experiment.task(plan), experiment.app.runtime.allow
    if task.own_sizes:
        preprocessing = Preprocessing.in_own_size(plan.data, allow=allow)
    else:
        fit = "stretch" if task.scores == PIXELS else "crop"
        preprocessing = Preprocessing.of_dataset(plan.data, allow=allow, fit=fit)
    records = (read_object(folder / "data.json") or {}).get(plan.name)
    names = records.get("classes") if isinstance(records, Mapping) else None
    classes = [str(name) for name in names] if isinstance(names, list) else None
    return _Opened(experiment, loaded_network, source, plan, preprocessing, classes)


def _samples(opened: _Opened) -> tuple[Tensor, str]:
    """Some inputs of the network, and what they are: test images, or noise of their size where the data are gone."""
    task, plan = opened.experiment.task(opened.plan), opened.plan
    try:
        batch = next(iter(opened.experiment.data.test(plan)))
        images = task.prepare(batch, device=torch.device("cpu"))["input"]
        if len(images) >= SAMPLES:
            return images[:SAMPLES].contiguous(), "test images"
    except (DistillError, OSError, RuntimeError, ValueError, StopIteration):
        pass
    size = plan.data.image_size
    if size is None:
        raise UsageError(f"{plan.data_key}.image_size is null, and the data cannot be read: what goes in is not known")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(SAMPLES, plan.data.channels, size, size, generator=generator)
    return noise, f"images of noise, since those of {plan.data.name} cannot be read"
