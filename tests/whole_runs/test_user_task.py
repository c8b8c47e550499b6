"""Tasks of the user's own, in a package and a config folder of theirs: numbers from images, classes from texts."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill_app.runs.journal import Journal

pytestmark = pytest.mark.slow

TASKS = '''
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from distill_app.tasks import ImageTask, Metric, Task


class Brightness(ImageTask):
    """One number for each image."""

    metrics = (Metric("mse", direction="min", decimals=3, unit="lx^2"), Metric("bias"), Metric("gap", direction="min"))

    def start(self):
        return {"squares": 0.0, "sum": 0.0, "count": 0, "gaps": 0.0}

    def add(self, sums, answer, batch):
        difference = (answer - batch["target"]).double()
        sums["squares"] += difference.square().sum()
        sums["sum"] += difference.sum()
        sums["count"] += len(answer)

    def compare(self, sums, answer, other, batch):
        sums["gaps"] += (answer - other).double().abs().sum()

    def figures(self, sums):
        found = {"mse": sums["squares"] / sums["count"], "bias": sums["sum"] / sums["count"]}
        return found | ({"gap": sums["gaps"] / sums["count"]} if sums["gaps"] else {})


class Sentences(Task):
    """Token ids in, of several lengths; a class out. The teacher wants the padding, the student the words."""

    metrics = (Metric("error_rate", direction="min", percent=True, decimals=1),)

    def collate(self, samples):
        return pad(samples)

    def call(self, network, batch, *, name):
        if name == "teacher":
            return network(batch["input"], padding=~batch["mask"])
        return network(batch["input"], words=batch["mask"])

    def start(self):
        return {"wrong": 0, "count": 0}

    def add(self, sums, answer, batch):
        sums["wrong"] += (answer.argmax(1) != batch["target"]).sum()
        sums["count"] += len(answer)

    def figures(self, sums):
        return {"error_rate": int(sums["wrong"]) / sums["count"]}


def pad(samples, value=0):
    texts = [sample["input"] for sample in samples]
    mask = pad_sequence([torch.ones(len(text), dtype=torch.bool) for text in texts], batch_first=True)
    ids = pad_sequence(texts, batch_first=True, padding_value=value)
    return {"input": ids, "mask": mask, "target": torch.tensor([sample["target"] for sample in samples])}


class Teacher(nn.Module):
    """A transformer; also gives its hidden states, first."""

    def __init__(self, num_classes, width=16):
        super().__init__()
        self.embed = nn.Embedding(11, width)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(width, num_classes)

    def forward(self, ids, padding):
        hidden = self.encoder(self.embed(ids), src_key_padding_mask=padding)
        words = (~padding).unsqueeze(2)
        return hidden, self.head((hidden * words).sum(1) / words.sum(1))


class Student(nn.Module):
    def __init__(self, num_classes, width=8):
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, ids, words):
        words = words.unsqueeze(2)
        return self.head((self.embed(ids) * words).sum(1) / words.sum(1))
'''
DATA = '''
import torch
from torch.utils.data import Dataset


class Images(Dataset):
    def __init__(self, size, seed):
        generator = torch.Generator().manual_seed(seed)
        levels = torch.randint(20, 236, (size, 1, 1, 1), generator=generator)
        noise = torch.randint(-20, 20, (size, 3, 8, 8), generator=generator)
        self.images = (levels + noise).to(torch.uint8)
        self.targets = self.images.float().mean((1, 2, 3)).div(255).unsqueeze(1)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.targets[index]


class Texts(Dataset):
    """Texts of 2 to 9 tokens; the class says whether there is a 1 among them."""

    def __init__(self, size, seed):
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(2, 10, (size,), generator=generator)
        self.texts = [torch.randint(1, 11, (int(length),), generator=generator) for length in lengths]

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, index):
        return {"input": self.texts[index], "target": int((self.texts[index] == 1).any())}
'''
CONFIG = {
    "dataset/brightness.yaml": """
name: brightness
num_classes: 1
image_size: 8
train: {_target_: ownpkg.data.Images, size: 96, seed: 0}
test: {_target_: ownpkg.data.Images, size: 48, seed: 1}
validation_fraction: 0.25
task: {_target_: ownpkg.tasks.Brightness}
""",
    "dataset/texts.yaml": """
name: texts
num_classes: 2
train: {_target_: ownpkg.data.Texts, size: 96, seed: 0}
test: {_target_: ownpkg.data.Texts, size: 48, seed: 1}
validation_fraction: 0.25
task: {_target_: ownpkg.tasks.Sentences}
""",
    "model/text_teacher.yaml": """
name: text_teacher
net: {_target_: ownpkg.tasks.Teacher, num_classes: "${dataset.num_classes}"}
taps: {logits: head}
""",
    "model/text_student.yaml": """
name: text_student
net: {_target_: ownpkg.tasks.Student, num_classes: "${dataset.num_classes}"}
taps: {logits: head}
""",
    "method/imitate.yaml": """
name: imitate
schedule: [distill]
stages:
  distill:
    losses:
      fit: {loss: {_target_: torch.nn.MSELoss}, inputs: {input: student.logits, target: batch.target}}
      imitate:
        loss: {_target_: torch.nn.MSELoss}
        inputs: {input: student.logits, target: teacher.logits}
        weight: 0.1
""",
}
SHORT = (
    "prelude=none",
    "teacher.allow_random=true",
    "stage=digits",
    "stage.epochs=4",
    "stage.batch_size=16",
    "runtime.threads=1",
    "stage.lr=0.05",
)
TINY = ("model@teacher=plain_32_64_128", "model@student=plain_8_16")


@pytest.fixture
def home(tmp_path) -> Iterator[Path]:
    """A folder outside the repository with a package and a config folder."""
    package = tmp_path / "code" / "ownpkg"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "tasks.py").write_text(TASKS)
    (package / "data.py").write_text(DATA)
    for name, text in CONFIG.items():
        (tmp_path / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / name).write_text(text)
    return tmp_path


@pytest.fixture
def own(home, distill_process):
    """Runs the program in that folder, and gives what it printed."""

    def start(*arguments: str) -> str:
        front = ("--config-dir", str(home / "conf"), "runtime.allow=[ownpkg]") if "=" in arguments[0] else ()
        done = distill_process(*front, *arguments, cwd=home, PYTHONPATH=str(home / "code"))
        assert done.returncode == 0, done.stderr
        return done.stdout

    return start


def test_numbers_from_images_are_learnt_judged_and_reported(home, own):
    options = ("dataset=brightness", *TINY, "method=imitate", "stage.select=best", *SHORT)
    out = own(*options, "hydra.run.dir=runs/a")
    summary = json.loads((home / "runs/a/summary.json").read_text())
    epochs = [
        record["metrics"] for record in Journal.read(home / "runs/a/metrics.jsonl").records if record["kind"] == "epoch"
    ]
    errors = [metrics["validation_mse"] for metrics in epochs]
    assert summary["objective"] == min(errors) < max(errors)
    student, teacher = summary["rows"]
    assert student["gap"] > 0 and student["mse"] > 0 and "gap" not in teacher
    assert [metric["name"] for metric in summary["metrics"]] == ["mse", "bias", "gap"]
    assert f"{student['mse']:.3f} lx^2" in out
    marked = json.loads(
        own("evaluate", "runs/a/checkpoints/distill/best", "--allow", "ownpkg", "--split", "validation")
    )
    assert marked["mse"] == pytest.approx(min(errors), rel=1e-6)

    own(*options, "seed=1", "hydra.run.dir=runs/b")
    table = own("report", "runs")
    assert "mse" in table and "lx^2" in table and " +- " in table and "agreement" not in table
    assert "mse,mse_std" in (home / "runs/report.csv").read_text()


def test_texts_of_several_lengths_are_padded_and_every_network_is_asked_in_its_way(home, own):
    options = ("dataset=texts", "model@teacher=text_teacher", "model@student=text_student", "method=kd", *SHORT)
    own(*options, "hydra.run.dir=runs/a", "dataset.eval_batch_size=7", "runtime.num_workers=1")
    summary = json.loads((home / "runs/a/summary.json").read_text())
    student, teacher = summary["rows"]
    assert 0 <= student["error_rate"] <= 1 and 0 <= teacher["error_rate"] <= 1
    # Nothing of it depends on how samples are put into batches for the evaluation.
    own(*options, "hydra.run.dir=runs/b", "+dataset.collate={_target_: ownpkg.tasks.pad, value: 5}")
    other = json.loads((home / "runs/b/summary.json").read_text())["rows"]
    assert [row["error_rate"] for row in other] == [student["error_rate"], teacher["error_rate"]]
    assert "error rate" in own("report", "runs/a")
