"""`distill export RUN --to FORMAT`, of real runs: networks as they are deployed, their JSON and their cards."""

import json

import pytest
import torch
import yaml

import distill_app
from distill_app.api import run as run_config
from distill_app.config.tree import compose
from distill_app.data.bundled_images import BundledImages

pytestmark = pytest.mark.slow
SHORT = ("stage.epochs=2", "prelude=none", "seed=3")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny):
    """Finished runs by method, each made when it is first asked for."""
    made = {}

    def run(method, *more):
        if (method, *more) not in made:
            folder = tmp_path_factory.mktemp("runs") / method
            run_config(compose([*tiny, *SHORT, f"method={method}", *more]), output_dir=str(folder))
            made[method, *more] = folder
        return made[method, *more]

    return run


def accuracy(network):
    """On the test images, as they come from the data set."""
    data = BundledImages("digits", split="test", image_size=8)
    images = torch.stack([network.preprocessing(data[i][0]) for i in range(len(data))])
    labels = torch.tensor([data[i][1] for i in range(len(data))])
    with torch.no_grad():
        return float((network(images).argmax(dim=1) == labels).float().mean())


def row(folder, network="student"):
    summary = json.loads((folder / "summary.json").read_text())
    return next(row for row in summary["rows"] if row["network"] == network)


# SimKD's student ends in the teacher's classifier behind a projector; FitNet's had an adapter that stays behind.
@pytest.mark.parametrize(
    ("method", "to"), [("simkd", "state_dict"), ("simkd", "onnx"), ("simkd", "torch_export"), ("fitnet", "safetensors")]
)
def test_the_network_that_was_tested_is_the_one_that_is_deployed(method, to, distill, runs):
    if to == "onnx":
        pytest.importorskip("onnxruntime")
    folder = runs(method)
    code, out, err = distill("export", str(folder), "--to", to)
    assert code == 0, err
    assert "verified: its answers to test images" in out
    allow = ["torch.export.load"] if to == "torch_export" else []
    expected = row(folder, "reused" if method == "simkd" else "student")["accuracy"]
    assert accuracy(distill_app.load(folder / "export" / to, allow=allow)) == pytest.approx(expected)
    assert accuracy(distill_app.load(folder)) == pytest.approx(expected)


# What a network's own input changes is in front of it: a hook, which a file of weights does not hold.
@pytest.mark.parametrize("to", ["safetensors", "onnx"])
def test_a_student_with_an_input_of_its_own_is_deployed_with_it(to, distill, runs):
    if to == "onnx":
        pytest.importorskip("onnxruntime")
    folder = runs("ce", "student.input={size: 16, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}")
    code, _, err = distill("export", str(folder), "--to", to)
    assert code == 0, err
    exported = folder / "export" / to
    assert accuracy(distill_app.load(exported)) == pytest.approx(row(folder)["accuracy"])
    assert "changed in front of the network, by itself" in (exported / "README.md").read_text()


def test_the_json_and_the_card_say_what_the_run_knows(distill, runs):
    folder = runs("kd")
    assert distill("export", str(folder), "--to", "safetensors", "--licence", "mit")[0] == 0
    place = folder / "export" / "safetensors"
    told, text = json.loads((place / "model.json").read_text()), (place / "README.md").read_text()
    assert told["classes"] == [str(digit) for digit in range(10)] and told["preprocessing"]["size"] == 8
    assert told["preprocessing"]["mean"] == [0.3058] * 3 and told["parameters"] == row(folder)["parameters"]
    assert told["verified"]["batch_sizes"] == [1, 2, 5, 8]
    front, body = text.removeprefix("---\n").split("\n---\n", 1)
    metadata = yaml.safe_load(front)
    assert metadata["license"] == "mit" and metadata["pipeline_tag"] == "image-classification"
    assert metadata["datasets"] == ["digits"] and "knowledge-distillation" in metadata["tags"]
    (entry,) = metadata["model-index"]
    figure = entry["results"][0]["metrics"][0]
    assert figure["type"] == "accuracy" and figure["value"] == row(folder)["accuracy"] and "seed 3" in figure["name"]
    for part in ("plain_32_64_128", "| method | kd |", "| seed | 3 |", "distill_app.load", "| these weights | mit |"):
        assert part in body
    assert str(folder) not in text and str(folder.parent) not in (place / "model.json").read_text()


def test_the_code_of_the_card_runs(distill, runs, tmp_path, monkeypatch):
    assert distill("export", str(runs("kd")), "--to", "state_dict", "--output", str(tmp_path))[0] == 0
    from deploy_fixtures import write_images

    for path, name in zip(write_images(tmp_path, count=2), ("a.jpg", "b.jpg"), strict=True):
        path.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    blocks = (tmp_path / "README.md").read_text().split("```python\n")[1:]
    for block in blocks:
        exec(block.split("```")[0], space := {})
    assert set(space["weights"]) == set(torch.load("model.pt", weights_only=True))


def test_metrics_over_the_seeds_of_a_sweep_are_on_the_card(distill, tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    overrides = ["method=ce", "prelude=none", "debug=one_batch", "hydra.sweep.dir=sweep"]
    small = [each for each in tiny if not each.startswith("teacher.")]
    assert distill("-m", *small, *overrides, "seed=0,1")[0] == 0
    assert distill("export", "sweep/1", "--output", "out")[0] == 0
    figures = json.loads((tmp_path / "out/model.json").read_text())["run"]["figures"]
    values = [row(tmp_path / "sweep" / str(seed))["accuracy"] for seed in (0, 1)]
    assert figures[0]["seeds"] == 2 and figures[0]["mean"] == pytest.approx(sum(values) / 2)
    assert "(n = 2)" in (tmp_path / "out/README.md").read_text()


def test_a_run_with_an_export_in_its_folder_is_still_the_run(distill, runs):
    folder = runs("ce", "stage.epochs=1")
    assert distill("export", str(folder), "--output", str(folder / "deployed.pt"))[0] == 0
    assert distill_app.load(folder / "deployed.pt").preprocessing.size == 8
    code, _, err = distill("export", str(folder), "--output", str(folder / "student.pt"))
    assert code == 2 and "student.pt is there, and no student.json beside it" in err
    torch.load(folder / "student.pt", weights_only=True)
    (folder / "deployed.pt").write_bytes(b"of another time")
    assert accuracy(distill_app.load(folder)) == pytest.approx(row(folder)["accuracy"])
    code, _, err = distill("predict", str(folder), str(folder), "--network", "nonsense")
    assert code == 2 and "nonsense" in err


def test_a_teacher_and_an_early_checkpoint_have_folders_of_their_own(distill, runs):
    folder = runs("kd")
    code, out, err = distill("export", str(folder / "checkpoints/distill/epoch_0000"))
    assert code == 0 and "export/state_dict_distill-epoch_0000/model.pt" in out, err
    assert distill("export", str(folder), "--network", "teacher")[0] == 0
    told = json.loads((folder / "export/state_dict_teacher/model.json").read_text())
    assert told["architecture"] == "plain_32_64_128"


def test_an_export_works_where_the_data_are_gone(distill, tmp_path, tiny):
    folder = tmp_path / "run"
    data = ["dataset=fake", "dataset.num_classes=10", "stage.epochs=1"]
    run_config(compose([*tiny, *data, "prelude=none", "debug=one_batch"]), output_dir=str(folder))
    text = (folder / "config_resolved.yaml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    changed = "\n".join(lines).replace(
        "_target_: distill_app.data.FakeImages\n", "_target_: distill_app.data.ImageFolder\n"
    )
    (folder / "config_resolved.yaml").write_text(changed)
    code, out, err = distill("export", str(folder))
    assert code == 0 and "images of noise, since those of fake cannot be read" in out, err


def test_an_export_that_was_changed_or_runs_code_is_refused(distill, runs, tmp_path):
    folder = runs("kd")
    assert distill("export", str(folder), "--to", "torchscript", "--output", str(tmp_path / "net.ts"))[0] == 0
    from deploy_fixtures import write_images

    images = str(write_images(tmp_path / "images")[0].parent)
    code, _, err = distill("predict", str(tmp_path / "net.ts"), images)
    assert code == 2 and "is a program, which torch.jit.load runs; if you trust it: --allow torch.jit.load" in err
    assert distill("predict", str(tmp_path / "net.ts"), images, "--allow", "torch.jit.load")[0] == 0
    with open(tmp_path / "net.ts", "ab") as file:
        file.write(b"more")
    code, _, err = distill("predict", str(tmp_path / "net.ts"), images, "--allow", "torch.jit.load")
    assert code == 2 and "is not the file that was exported" in err


def test_a_timm_student_of_ones_own_images_goes_out_to_timm_and_names_its_classes(
    distill, tmp_path, monkeypatch, capsys
):
    timm = pytest.importorskip("timm")
    from deploy_fixtures import write_images

    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 8), ("val", 4)):
        for name in ("cat", "dog", "owl"):
            write_images(tmp_path / "photos" / split / name, count=count)
    data = ["dataset=imagefolder", "dataset.root=photos", "dataset.image_size=32", "dataset.validation_fraction=0"]
    student = ["model@student=timm", "student.net.model_name=resnet10t", "method=ce", "prelude=none"]
    short = ["stage=digits", "stage.epochs=1", "stage.batch_size=8", "tracker=none", "runtime.threads=1"]
    assert distill(*data, *student, *short, "hydra.run.dir=run")[0] == 0
    capsys.readouterr()
    code, out, err = distill("export", "run", "--to", "safetensors")
    assert code == 0 and "written: " in out and "config.json" in out, err
    network = timm.create_model("local-dir:run/export/safetensors", pretrained=True).eval()
    ours = distill_app.load("run/export/safetensors")
    images = ours.preprocessing.batch([tmp_path / "photos/val/cat/0.png", tmp_path / "photos/val/owl/2.png"])
    with torch.no_grad():
        assert torch.equal(network(images), ours(images))
    assert network.pretrained_cfg["label_names"] == ["cat", "dog", "owl"]
    assert "local-dir:." in (tmp_path / "run/export/safetensors/README.md").read_text()
    guesses = json.loads(distill("predict", "run", "photos/val", "--json", "--top", "3")[1])
    assert len(guesses) == 12
    assert {each["class"] for entry in guesses for each in entry["classes"]} == {"cat", "dog", "owl"}
