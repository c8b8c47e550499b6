"""`distill taps` prints what a network is made of, and where its taps sit."""

import json

import pytest

NET = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self, num_classes=10):
        super().__init__(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, num_classes))
"""


def test_the_tree_has_names_types_outputs_parameters_and_taps(distill):
    code, out, _ = distill("taps", "plain_8_16", "dataset=digits", "--size", "8", "--depth", "1")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0 and out.startswith("plain_8_16 on images of 3 x 8 x 8; B stands for the batch\n")
    assert ["fc", "Linear", "(B,", "10)", "170", "pooled", "(its", "input),", "logits"] in lines
    assert ["stage4_pre", "features.1.-1:in", "(B,", "16,", "2,", "2)"] in lines
    assert any(line[:2] == ["2", "ReLU"] and "stage4_pre" in line for line in lines)  # further down than the depth
    assert not any(line[:2] == ["0", "Conv2d"] for line in lines) and "further modules: --depth 2" in out


def test_a_network_of_a_line_of_overrides(distill):
    line = ["model@teacher=plain_8_16", "dataset=digits", "teacher.taps.stage4=features.0"]
    code, out, _ = distill("taps", "teacher", *line, "--size", "8", "--json")
    about = json.loads(out)
    assert code == 0 and about["taps"]["stage4"] == {"path": "features.0", "shape": [2, 8, 4, 4]}
    assert about["images"] == [3, 8, 8] and about["missing"] == {} and "stage4" in about["written"]
    assert about["modules"][0] == {
        "path": "", "kind": "PlainCNN", "output": [2, 10], "parameters": 1586, "taps": [], "depth": 0
    }  # fmt: skip


def test_a_network_of_ones_own_in_this_folder(distill, tmp_path, monkeypatch):
    (tmp_path / "taps_of_mine.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    code, out, _ = distill("taps", "taps_of_mine.Net", "--allow", "taps_of_mine", "--size", "16")
    assert code == 0 and "4:in" in out and "taps_of_mine.Net on images of 3 x 16 x 16" in out
    code, _, err = distill("taps", "taps_of_mine.Net")
    assert code == 2 and "--allow taps_of_mine" in err


def test_a_network_with_an_input_of_its_own_is_shown_on_its_images(distill):
    code, out, _ = distill(
        "taps", "plain_8_16", "dataset=digits", "student.input={size: 48, channels: 1}", "--size", "16"
    )
    assert code == 0 and out.startswith("plain_8_16 on images of 1 x 16 x 16;")


@pytest.mark.slow
@pytest.mark.parametrize(("model", "tap"), [("squeezenet1_1", "features.12"), ("timm/convnext_atto", "stages.3")])
def test_networks_of_the_libraries(model, tap, distill):
    code, out, _ = distill("taps", model)
    assert code == 0 and any(line.split()[:2] == ["stage4", tap] for line in out.splitlines())
    assert ("pooled: not found, the classifier" in out) == (model == "squeezenet1_1")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nosuchnet"], "Unknown model nosuchnet"),
        (["model@student=own"], "student.net._target_: is missing"),
        (["plain_8_16", "student.net.width=3"], "width"),
        (["resnet18", "--depth", "-1"], "--depth"),
        (["resnet18", "dataset.channels=1", "--size", "32"], "does not run on images of 1 x 32 x 32"),
    ],
)
def test_what_cannot_be_shown_says_why(words, told, distill):
    code, _, err = distill("taps", *words)
    assert code == 2 and told in err
