"""Somebody's folder of images, a teacher's weights as another trainer wrote them: the README's path, word for word."""

import json

import pytest
import torch
import torchvision
from data_fixtures import COLOURS, stranger_folder
from docs_fixtures import ROOT, commands

from distill_app import load

pytestmark = pytest.mark.slow
# Small and short; the student of timm in the place of the README's.
SMALL = ["dataset.image_size=32", "stage.epochs=3", "stage.batch_size=20", "runtime.threads=1", "tracker=none"]
STUDENTS = {
    "mobilenet_v3_small": [],
    "timm": ["model@student=timm", "student.net.model_name=mobilenetv4_conv_small_050"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stranger")
    stranger_folder(folder / "photos")
    weights = torchvision.models.resnet18(num_classes=len(COLOURS)).state_dict()
    nested = {"epoch": 7, "state_dict": {f"module.{name}": value for name, value in weights.items()}}
    torch.save(nested, folder / "resnet18.pth")
    return folder


@pytest.mark.parametrize("student", STUDENTS)
def test_the_path_of_the_readme_ends_with_a_verified_file(student, place, distill, monkeypatch):
    monkeypatch.chdir(place)
    run = f"outputs/{student}"
    typed = [words for words in commands(ROOT / "README.md") if "photos" in " ".join(words) or "outputs/mine" in words]
    assert [words[0] for words in typed] == ["data", "dataset=imagefolder", "predict", "export"]
    check, train, predict, export = [[word.replace("outputs/mine", run) for word in words] for words in typed]
    if STUDENTS[student]:
        train = [word for word in train if not word.startswith("model@student=")]

    code, out, err = distill(*check, "dataset.image_size=32")
    assert code == 0 and "nothing is wrong" in out, out + err
    code, out, err = distill(*train, *STUDENTS[student], *SMALL)
    assert code == 0 and "distill predict" in out, err
    code, out, err = distill(*predict, "--json")
    assert code == 0, err
    guesses = json.loads(out)
    assert len(guesses) == 200 and all(each["classes"][0]["class"] in COLOURS for each in guesses)
    code, out, err = distill(*export)
    assert code == 0 and "verified: its answers to test images" in out, err
    images = load(f"{run}/export/onnx").preprocessing.batch([place / "photos" / "ant" / "01.png"])
    expected, got = load(run)(images), load(f"{run}/export/onnx")(images)
    assert torch.allclose(expected, got, atol=1e-4)
