"""Networks of runs that were never trained, with what an export says of them; and images of all kinds in a folder."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine_fixtures import resolved
from PIL import Image
from torch import Tensor

from distill_app.config.build import Builder
from distill_app.config.schema import AppConf, to_app
from distill_app.deploy.card import card
from distill_app.deploy.description import architecture_of, described
from distill_app.deploy.export import Target, Written, export
from distill_app.deploy.formats import FORMATS
from distill_app.deploy.preprocessing import Preprocessing
from distill_app.deploy.program import program_of
from distill_app.networks.network import Network, build_network
from distill_app.tasks.classification import Classification

RUN: dict[str, Any] = {"method": "kd", "teacher": "resnet50", "figures": []}


def network_of(*overrides: str) -> tuple[AppConf, Network]:
    """A student as a config builds it, in eval mode; its batch norms have seen something."""
    app = to_app(resolved("runtime.channels_last=false", *overrides, base=("prelude=none",)))
    network = build_network(app, "student", builder=Builder(app.runtime.allow), device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for part in network.module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.normal_(std=0.1)
                part.running_var.uniform_(0.5, 2.0)
    network.module.eval()
    return app, network


def samples_of(app: AppConf) -> Tensor:
    """Inputs of noise."""
    size = app.dataset.image_size
    return torch.randn(8, app.dataset.channels, size, size, generator=torch.Generator().manual_seed(1))


def about(app: AppConf, network: Network, *, to: str, **more: Any) -> dict[str, Any]:
    """The description of a student."""
    task = Classification(normalize=app.dataset.normalize, num_classes=app.dataset.num_classes)
    told = {"classes": None, "run": RUN, "licence": None, **more}
    preprocessing = Preprocessing.of_dataset(app.dataset)
    return described(
        network,
        app.student,
        app.dataset,
        preprocessing=preprocessing,
        to=to,
        answer=task.answer,
        scores=task.scores,
        **told,
    )


def exported(app: AppConf, network: Network, output: Path, *, to: str, **more: Any) -> Written:
    """A student, exported."""
    told, samples = about(app, network, to=to, **more), samples_of(app)
    task = Classification(normalize=app.dataset.normalize, num_classes=app.dataset.num_classes)
    subject = program_of(network, task, samples) if FORMATS[to].is_program else network.module
    return export(
        subject,
        samples,
        to=to,
        target=Target.of(output, to=to),
        about=told,
        card=card,
        architecture=architecture_of(told, allow=["timm"]),
    )


def write_images(folder: Path, *, count: int = 4) -> list[Path]:
    """Images of several modes and sizes: RGB, grey, RGBA and a palette; in order."""
    folder.mkdir(parents=True, exist_ok=True)
    random, paths = np.random.default_rng(0), []
    for number in range(count):
        pixels = random.integers(0, 255, (20 + 7 * number, 31 + 3 * number, 3), np.uint8)
        mode = ("RGB", "L", "RGBA", "P")[number % 4]
        paths.append(folder / f"{number}.png")
        Image.fromarray(pixels).convert(mode).save(paths[-1])
    return paths
