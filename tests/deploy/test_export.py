"""Exports: every format of several families answers as the network, and what does not leaves no file."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from deploy_fixtures import exported, network_of, samples_of
from pixel_fixtures import WithOutputs
from torch import nn

from distill_app.deploy import export as exporting
from distill_app.deploy import formats, timm_files
from distill_app.deploy.description import loaded
from distill_app.deploy.export import Target, description_in
from distill_app.deploy.formats import FORMATS, format_of
from distill_app.errors import ExportError, SettingError, UsageError

SMALL = ("dataset=fake", "dataset.num_classes=6", "dataset.image_size=32")
FAMILIES = {
    "resnet8": ("model@student=resnet8",),
    "vgg": ("model@student=vgg11_bn",),
    "mobilenet": ("model@student=mobilenet_v3_small",),
    "timm": ("model@student=timm", "student.net.model_name=resnet10t"),
}


@pytest.fixture(scope="module")
def tiny_net():
    return network_of("dataset=digits", "model@student=plain_8_16")


def answers(network, images):
    with torch.no_grad():
        return network.module(images)


@pytest.mark.parametrize("to", ["state_dict", "safetensors"])
def test_weights_load_strictly_into_the_bare_architecture(tiny_net, tmp_path, to):
    app, network = tiny_net
    written = exported(app, network, tmp_path / "out", to=to)
    assert written.difference == 0.0
    names = {path.name for path in written.files}
    assert names == {f"model{FORMATS[to].suffixes[0]}", "model.json", "README.md"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    _, fresh = network_of("dataset=digits", "model@student=plain_8_16", "seed=5")
    if to == "state_dict":
        state = torch.load(written.files[0], weights_only=True)
    else:
        from safetensors.torch import load_file

        state = load_file(written.files[0])
    fresh.module.load_state_dict(state, strict=True)
    assert torch.equal(answers(fresh, samples_of(app)), answers(network, samples_of(app)))


@pytest.mark.slow
@pytest.mark.parametrize("to", ["state_dict", "torchscript"])
def test_of_a_network_with_several_outputs_the_one_that_is_judged_is_exported(to, tmp_path, distill):
    net = ("model@student=own", "student.net._target_=pixel_fixtures.WithOutputs", "student.find_taps=false")
    data = ("dataset=fashion_seg", "dataset.image_size=48", "dataset.train.count=8", "dataset.test.count=8")
    brief = ("stage=fashion_seg", "stage.epochs=1", "runtime.threads=1", "runtime.allow=[pixel_fixtures]")
    run = tmp_path / "run"
    code, _, err = distill("method=seg_ce", "prelude=none", *data, *net, *brief, "tracker=none", f"hydra.run.dir={run}")
    assert code == 0, err
    code, out, err = distill(
        "export", str(run), "--to", to, "--output", str(tmp_path / "out"), "--allow", "pixel_fixtures"
    )
    assert code == 0 and "next:     distill predict" in out, err
    (file,) = (path for path in (tmp_path / "out").iterdir() if path.stem == "model" and path.suffix != ".json")
    told = json.loads((tmp_path / "out" / "model.json").read_text())
    other = loaded(file, told, allow=["pixel_fixtures", "torch.jit.load"])
    bare = WithOutputs(11).eval()
    bare.load_state_dict(torch.load(run / "student.pt", weights_only=True), strict=True)
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.allclose(other(images), bare(images)["out"], atol=1e-5)
    assert told["scores"] == "pixels" and [each["_target_"] for each in told["preprocessing"]["transforms"]] == [
        "torchvision.transforms.v2.Resize"
    ], "images of other sizes are stretched, so that no pixel is without a class"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_of_a_family_runs_in_onnxruntime_on_any_batch(family, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    app, network = network_of(*SMALL, *FAMILIES[family])
    written = exported(app, network, tmp_path / "net.onnx", to="onnx", classes=list("abcdef"))
    session = ort.InferenceSession(str(written.files[0]), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert given.name == "images" and given.shape == ["batch", 3, 32, 32]
    told = json.loads(session.get_modelmeta().custom_metadata_map["distill_app"])
    assert told["classes"] == list("abcdef") and told["preprocessing"]["size"] == 32
    images = torch.cat([samples_of(app)] * 2)
    for size in (1, 3, 16):
        (found,) = session.run(None, {"images": images[:size].numpy()})
        expected = answers(network, images[:size]).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4 * abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("to", ["torch_export", "torchscript"])
@pytest.mark.parametrize("family", ["resnet8", "mobilenet", "timm"])
def test_programs_of_torch_answer_without_this_package(family, to, tmp_path):
    app, network = network_of(*SMALL, *FAMILIES[family])
    file = exported(app, network, tmp_path / "out", to=to).files[0]
    extra = {"distill_app.json": ""}
    if to == "torchscript":
        program = torch.jit.load(str(file), _extra_files=extra)
    else:
        program = torch.export.load(file, extra_files=extra).module()
    assert json.loads(extra["distill_app.json"])["preprocessing"]["size"] == 32
    images = torch.cat([samples_of(app)] * 2)
    torch.testing.assert_close(program(images), answers(network, images), rtol=1e-4, atol=1e-5)


def test_metadata_of_safetensors_says_how_images_are_prepared(tiny_net, tmp_path):
    from safetensors import safe_open

    file = exported(*tiny_net, tmp_path / "w.safetensors", to="safetensors").files[0]
    with safe_open(file, "pt") as content:
        told = json.loads(content.metadata()["distill_app"])
    assert told["preprocessing"]["mean"] == [0.3058] * 3 and told["num_classes"] == 10
    assert {path.name for path in tmp_path.iterdir()} == {"w.safetensors", "w.json", "w.md"}


class OfTwo(nn.Module):
    """A network that looks at how many images there are, as a trace cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, 10)

    def forward(self, images):
        logits = self.fc(images.flatten(1))
        return logits if len(images) == 2 else logits + 1.0


@pytest.mark.slow
def test_a_program_that_is_right_for_one_batch_size_alone_is_an_error(tiny_net, tmp_path):
    app, network = tiny_net
    wrong = dataclasses.replace(network, module=OfTwo().eval(), taps={"logits": "fc"})
    for to in ("torchscript", "torch_export"):
        with pytest.raises(ExportError, match="batch"):
            exported(app, dataclasses.replace(wrong, taps={}), tmp_path / "out", to=to)
        assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("damage", ["values", "shape", "nan", "crash"])
def test_an_export_that_answers_something_else_leaves_what_was_there(tiny_net, tmp_path, monkeypatch, damage):
    app, network = tiny_net
    first = exported(app, network, tmp_path / "out", to="state_dict").files[0]
    before = {path.name: path.read_bytes() for path in first.parent.iterdir()}

    class Wrong(nn.Module):
        def forward(self, images):
            right = network.module(images)
            if damage == "crash":
                raise RuntimeError("no kernel")
            return {"values": right + 1e-3, "shape": right[:, :9], "nan": right * float("nan")}[damage]

    kind = dataclasses.replace(FORMATS["state_dict"], read=lambda file, architecture: Wrong())
    monkeypatch.setitem(formats.FORMATS, "state_dict", kind)
    with pytest.raises(ExportError, match="no kernel" if damage == "crash" else "is wrong: on a batch of 1"):
        exported(app, network, tmp_path / "out", to="state_dict")
    assert {path.name: path.read_bytes() for path in first.parent.iterdir()} == before


def test_a_network_that_cannot_be_traced_is_told_in_one_line(tiny_net, tmp_path):
    app, network = tiny_net

    class Refusing(nn.Module):
        def forward(self, images):
            if torch.jit.is_tracing():
                raise RuntimeError("not for tracing\nand much more")
            return images.flatten(1)

    refusing = dataclasses.replace(network, module=Refusing(), taps={})
    with pytest.raises(
        ExportError, match=r"^Refusing cannot be exported to torchscript: RuntimeError: not for tracing$"
    ):
        exported(app, refusing, tmp_path / "out", to="torchscript")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("to", "output", "found"),
    [
        (None, None, "state_dict"),
        ("onnx", None, "onnx"),
        (None, "a.onnx", "onnx"),
        (None, "a.PT2", "torch_export"),
        ("state_dict", "a.pth", "state_dict"),
        ("onnx", "a folder", "onnx"),
    ],
)
def test_a_format_is_what_was_named_or_what_the_suffix_says(to, output, found, tmp_path):
    assert format_of(to, output and tmp_path / output) == found


@pytest.mark.parametrize(
    ("to", "output", "says"),
    [
        ("onnx", "a.pt", r"says state_dict, and --to says onnx; name it a.onnx, or take --to state_dict"),
        ("torchscript", "a.pt2", "says torch_export, and --to says torchscript"),
        (None, "a.h5", "says no format; allowed: .pt"),
        ("onnx", "a.bin2", r"allowed: .onnx \(onnx\)"),
        ("onxx", None, "did you mean 'onnx'"),
    ],
)
def test_a_suffix_that_says_something_else_is_refused(to, output, says, tmp_path):
    with pytest.raises(UsageError, match=says):
        format_of(to, output and tmp_path / output)


def test_cards_and_descriptions_of_others_are_not_replaced(tiny_net, tmp_path):
    for name in ("README.md", "model.json"):
        folder = tmp_path / f"of {name}"
        folder.mkdir()
        (folder / name).write_text("{}" if name.endswith("json") else "# mine\n")
        with pytest.raises(UsageError, match="is there and no export's"):
            exported(*tiny_net, folder, to="state_dict")
        assert len(list(folder.iterdir())) == 1


def test_a_file_that_no_description_names_is_not_replaced(tiny_net, tmp_path):
    precious = tmp_path / "net.pt"
    precious.write_bytes(b"weeks of work")
    with pytest.raises(UsageError, match=r"net\.pt is there, and no net\.json beside it says that it is an export"):
        exported(*tiny_net, precious, to="state_dict")
    exported(*tiny_net, tmp_path / "net.safetensors", to="safetensors")  # net.json is of this one
    with pytest.raises(UsageError, match=r"net\.pt is there, and no net\.json"):
        exported(*tiny_net, precious, to="state_dict")
    assert precious.read_bytes() == b"weeks of work"
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "model.pt").write_bytes(b"weeks of work")
    with pytest.raises(UsageError, match=r"model\.pt is there, and no model\.json"):
        exported(*tiny_net, tmp_path / "whole", to="state_dict")
    again = [exported(*tiny_net, tmp_path / "net.safetensors", to="safetensors") for _ in range(2)]
    assert again[0].files == again[1].files


def test_exports_of_several_formats_into_one_folder_are_written_again(tiny_net, tmp_path):
    for to in ("state_dict", "safetensors", "torchscript", "state_dict", "safetensors"):
        written = exported(*tiny_net, tmp_path, to=to)
        described = json.loads((tmp_path / "model.json").read_text())
        assert described["file"] == written.files[0].name
    assert described["earlier"] == ["model.pt", "model.ts"]
    (tmp_path / "model.ts").unlink()
    exported(*tiny_net, tmp_path, to="state_dict")
    (tmp_path / "model.ts").write_bytes(b"weeks of work")
    with pytest.raises(UsageError, match=r"model\.ts is there, and no model\.json"):
        exported(*tiny_net, tmp_path, to="torchscript")


def test_what_lies_beside_an_export_replaces_no_file_of_others(tmp_path):
    target = Target.of(tmp_path, to="safetensors")
    (tmp_path / "config.json").write_text("{}")
    target.refuse_others()
    with pytest.raises(UsageError, match=r"config\.json is there, and no model\.json"):
        target.refuse_others(["config.json"])


def test_without_its_packages_a_format_says_which_extra_to_install(tiny_net, tmp_path, monkeypatch):
    monkeypatch.setattr("distill_app.extras.find_spec", lambda name: None)
    with pytest.raises(
        SettingError, match=r"onnx needs onnx, onnxruntime, onnxscript: pip install 'distill-app\[onnx\]'"
    ):
        exported(*tiny_net, tmp_path / "out", to="onnx")
    assert not (tmp_path / "out").exists()


def test_an_export_is_found_by_its_file_and_by_its_folder(tiny_net, tmp_path):
    file = exported(*tiny_net, tmp_path / "out", to="state_dict").files[0]
    for place in (file, file.parent):
        found, described = description_in(place)
        assert found == file and described["architecture"] == "plain_8_16"
    assert description_in(tmp_path) is None and description_in(tmp_path / "nothing.pt") is None
    (tmp_path / "other.json").write_text(json.dumps({"kind": exporting.KIND, "file": "../out/model.pt"}))
    assert description_in(tmp_path) is None


def test_a_path_with_a_suffix_is_a_file_and_any_other_a_folder(tmp_path):
    file, folder = Target.of(tmp_path / "a.onnx", to="onnx"), Target.of(tmp_path / "a", to="onnx")
    assert (file.file, file.description, file.card) == tuple(tmp_path / f"a.{end}" for end in ("onnx", "json", "md"))
    assert (folder.file, folder.card) == (tmp_path / "a" / "model.onnx", tmp_path / "a" / "README.md")


@pytest.mark.slow
def test_timm_loads_a_network_of_its_own_from_the_folder(tmp_path):
    timm = pytest.importorskip("timm")
    from deploy_fixtures import about

    app, network = network_of(*SMALL, *FAMILIES["timm"])
    told = about(app, network, to="safetensors", classes=list("abcdef"))
    assert timm_files.is_timm(told)
    exported(app, network, tmp_path, to="safetensors")
    timm_files.write_config(tmp_path, network.module, told, samples_of(app))
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(loaded(samples_of(app)), answers(network, samples_of(app)))
    data = timm.data.resolve_model_data_config(loaded)
    assert data["input_size"] == (3, 32, 32) and list(data["mean"]) == app.dataset.normalize.mean
    with torch.no_grad():
        network.module.fc.bias += 1
    with pytest.raises(ExportError, match="what timm loads from the export answers something else"):
        timm_files.write_config(tmp_path, network.module, told, samples_of(app))


@pytest.mark.slow
def test_the_core_imports_none_of_what_only_exports_need():
    script = """
import sys
import distill_app.verbs.deployment, distill_app.verbs.predict, distill_app.verbs.export, distill_app.training.runner
extras = {"onnx", "onnxruntime", "onnxscript", "timm", "huggingface_hub"} & set(sys.modules)
assert not extras, extras
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_verb_names_the_formats_that_there_are():
    from distill_app.verbs import export as verb

    assert (*FORMATS, verb.SPLIT) == verb._FORMATS
