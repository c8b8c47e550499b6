"""Every command of the README and of docs, carried out at small size: a batch a stage, small networks, no cluster.

What pages speak of is there: a finished run and a finished sweep in the place of `outputs/2026-11-22/14-03-11`, images
in folders, the package and the configs that the pages themselves show.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from docs_fixtures import PAGES, ROOT, block_after, commands, strangers
from PIL import Image

from distill_app.cli import main

SMALL = {
    "runtime.max_epochs": "1",
    "runtime.max_steps_per_epoch": "1",
    "runtime.max_eval_batches": "1",
    "runtime.threads": "1",
    "runtime.log_every": "1",
}
SWEEPS = ("cluster.md", "sweeps.md")  # what these call outputs/2026-11-22/14-03-11 is a sweep
LARGE = re.compile(r"^(model@\w+|experiment)=(resnet\d+$|mobilenet|vit|vgg|convnext|timm|imagenet|cifar100)")
VALUES = {
    "launcher.tasks_per_node": "2",
    "hydra.sweeper.n_trials": "2",
    "cache.views": "2",
    "tracker.mlflow.uri": "sqlite:///mlflow.db",
    "teacher.weights": "null",  # of networks of hundreds of megabytes
}
# Each is run as a whole, in a test of its own.
OWN_TEST = ("data.md", "deploy.md", "split.md", "migration.md", "cifar100.md")
OWN_IMAGES = ("photos", "outputs/mine")  # the README's path from images to a file: whole_runs/test_stranger.py
NET = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self, num_classes):
        stages = [nn.Sequential(nn.Conv2d(3 if not n else 8, 8, 3, 2, 1), nn.ReLU()) for n in range(3)]
        super().__init__(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""


def call(words: list[str]) -> None:
    """The command line in this process.

    Raises:
        AssertionError: It ends otherwise than well.
    """
    before = list(sys.path)
    try:
        with pytest.raises(SystemExit) as stopped:
            main(words)
    finally:
        sys.path[:] = before
    assert not stopped.value.code, f"distill {' '.join(words)}: exit code {stopped.value.code}"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with what the pages speak of."""
    folder = tmp_path_factory.mktemp("user")
    for split in ("train", "val", "test"):
        for shade, name in ((40, "cats"), (200, "dogs")):
            (folder / "images" / split / name).mkdir(parents=True)
            for number in range(8):
                image = Image.new("RGB", (40, 36), (shade + number, shade, shade))
                image.save(folder / "images" / split / name / f"{number}.png")
    package = folder / "mypkg"
    package.mkdir()
    (package / "losses.py").write_text(block_after("own_method.md", "python", "CosineGap"))
    (package / "tasks.py").write_text(block_after("own_method.md", "python", "class Depth"))
    own = [block_after("loading.md", "python", "WithBrightness"), block_after("trackers.md", "python", "class Lines")]
    own.append(NET)
    (package / "__init__.py").write_text("\n".join(own))
    methods = folder / "myconf" / "method"
    methods.mkdir(parents=True)
    (methods / "cosine.yaml").write_text(block_after("own_method.md", "yaml", "name: cosine"))
    site = folder / "mysite" / "launcher"
    site.mkdir(parents=True)
    (site / "mycluster.yaml").write_text(block_after("cluster.md", "yaml", "slurm"))
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    hub = folder / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), hub / Path(weights.url).name)
    return folder


@pytest.fixture(scope="module")
def made(place) -> dict[str, Path]:
    """A finished run, and a finished sweep of two points."""
    before = Path.cwd()
    os.chdir(place)
    try:
        brief = ["prelude.params.epochs=1", "stage.epochs=1"]
        call(small([*brief, "hydra.run.dir=made/run"]))
        digits = ["experiment=digits/kd", *brief, "tracker=none", "runtime.threads=1"]
        call(["-m", *digits, "prelude=none", "teacher.allow_random=true", "seed=0,1", "hydra.sweep.dir=made/sweep"])
    finally:
        os.chdir(before)
    return {"run": place / "made" / "run", "sweep": place / "made" / "sweep"}


@pytest.fixture
def adapted(place, made, tmp_path, monkeypatch) -> Callable[[list[str], str], list[str]]:
    """A command as it is carried out: places that are there, and small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(place / "torch"))
    monkeypatch.setenv("DISTILL_DATA", str(place / "data"))
    for name in ("mypkg", "myconf", "mysite"):
        (tmp_path / name).symlink_to(place / name)
    (tmp_path / "ck").mkdir()
    for name, folder in made.items():  # each page its own, since some commands change them
        shutil.copytree(folder, tmp_path / "outputs" / name)
    shutil.copy(made["run"] / "teacher.pt", tmp_path / "ck" / "epoch=2 (best).pt")

    def words_of(words: list[str], page: str) -> list[str]:
        run, sweep = "outputs/run", "outputs/sweep"
        named = {
            "outputs/2026-11-22/14-03-11": sweep if page in SWEEPS else run,
            "outputs/.../teacher.pt": f"{run}/teacher.pt",
            "outputs/...": sweep,
            "RUN": run,
            "SWEEP": sweep,
            "PATH": str(place / "images"),
            "DIR": str(place / "images"),
        }
        if words[:1] == ["resume"]:  # a run in any case
            named["outputs/2026-11-22/14-03-11"] = run
        text = "\0".join(words)
        for name, there in named.items():
            text = re.sub(rf"(?<![\w/.]){re.escape(name)}(?![\w.])", there, text)
        found = text.split("\0") if words else []
        return found if found and found[0].isidentifier() and "=" not in found[0] else small(found)

    return words_of


def small(words: list[str]) -> list[str]:
    """An experiment of a batch a stage; of large networks, and on a cluster, what would be done."""
    found = [f"{key}={VALUES[key]}" if (key := word.split("=")[0]) in VALUES else word for word in words]
    if "teacher.net.pretrained=true" in found:  # its weights cannot be had here; what they bring along can
        found = [word for word in found if word != "teacher.net.pretrained=true"] + ["teacher.input.find=true"]
    if "-m" in found:  # two values of each key are a sweep
        found = [re.sub(r"^([\w@.]+=\w+,\w+)(,\w+)+$", r"\1", word) for word in found]
    if {"--help", "--version", "--cfg"} & set(found):
        return found
    typed = {word.split("=")[0].lstrip("+") for word in found}
    added = [f"{key}={value}" for key, value in SMALL.items() if key not in typed]
    added += [] if any("tracker" in key for key in typed) else ["tracker=none"]
    # A teacher that only a checkpoint of other networks could give is a random one here.
    added += [] if "teacher.checkpoint" in typed else ["teacher.allow_random=true"]
    if "launcher=slurm" in found or "launcher=mycluster" in found:
        added += [] if "launcher.dry_run" in typed else ["launcher.dry_run=true"]
    elif "launcher=submitit_local" in found:
        added.append("launcher.wait=true")  # else it would go on behind the test
    elif any(map(LARGE.match, found)) and "dry_run" not in typed:
        added.append("dry_run=true")
    if "hydra/sweeper=search" in found and "hydra.sweeper.n_trials" not in typed:
        added.append("hydra.sweeper.n_trials=2")
    return [*found, *added]


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page) and page.name not in OWN_TEST], ids=lambda page: page.stem
)
def test_every_command_of_a_page_runs(page, adapted, monkeypatch):
    failed = []
    for words in commands(page):
        if any(mark in " ".join(words) for mark in OWN_IMAGES):
            continue
        there = adapted(words, page.name)
        try:
            call(there)
        except AssertionError as error:
            failed.append(f"{page.relative_to(ROOT)}: distill {' '.join(words)}\n    as {error}")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_no_command_that_is_not_run(page):
    assert not strangers(page)


@pytest.mark.slow
def test_the_python_of_the_page_about_it_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text()
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        block = block.replace('"stage=digits"', '"stage=digits", "stage.epochs=2", "prelude.params.epochs=2"')
        exec(compile(block, "python.md", "exec"), {})
    assert (tmp_path / "outputs" / "from_python" / "summary.json").is_file()
