"""Whole runs: what they leave behind, that they repeat themselves, and what they say when something goes wrong."""

import inspect
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from engine_fixtures import (
    DIGITS,
    GOLDENS,
    QUIET,
    equal,
    metrics,
    network,
    networks,
    refusal,
    run,
    runner,
    snapshot,
    stage,
    train,
)
from PIL import Image

from distill_app.api import run as run_config
from distill_app.cli import main
from distill_app.config.schema import NormalizeConf
from distill_app.config.tree import compose
from distill_app.errors import NonFiniteLoss, TapError
from distill_app.models import PlainCNN
from distill_app.networks.network import Network
from distill_app.runs.files import read_object
from distill_app.runs.statefile import load_file
from distill_app.runs.status import Status
from distill_app.tasks import Classification
from distill_app.tasks.evaluation import evaluate
from distill_app.training import runner as runner_module
from distill_app.training.optimize import Optimization

FAKE = (
    "dataset=fake",
    "dataset.train.size=24",
    "dataset.test.size=16",
    "dataset.validation_fraction=0.0",
    "stage.batch_size=8",
    "prelude=none",
    "teacher.allow_random=true",
)
SMALL = ("runtime.max_epochs=1", "runtime.max_steps_per_epoch=1")


@pytest.fixture
def command(capfd, monkeypatch):
    """Runs a command line in this process: exit code, stdout, stderr."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def call(*words: str):
        with pytest.raises(SystemExit) as exit_:
            main([*words, *QUIET])
        out, err = capfd.readouterr()
        return exit_.value.code, out, err

    return call


def test_a_run_leaves_weights_metrics_summary_plot_and_records(tmp_path):
    summary = run(tmp_path, "prelude=comparison", *SMALL)
    for name in (
        "config_resolved.yaml",
        "command.txt",
        "git.json",
        "env.json",
        "data.json",
        "train.log",
        "metrics.jsonl",
        "student.pt",
        "summary.json",
        "status.json",
        "curves.png",
        "checkpoints/last.mark",
    ):
        assert (tmp_path / name).stat().st_size > 0, name
    assert read_object(tmp_path / "summary.json") == json.loads(json.dumps(summary))
    assert [row["network"] for row in summary["rows"]] == ["teacher", "baseline", "student"]
    assert all(0 <= row["accuracy"] <= 1 and row["parameters"] > 0 for row in summary["rows"])
    assert "agreement" in summary["rows"][2]


@pytest.mark.slow
def test_the_same_run_twice_gives_the_same_bits(tmp_path):
    overrides = ("method=ft", "prelude=comparison", "runtime.max_epochs=2", "runtime.max_steps_per_epoch=2")
    for name in ("first", "second"):
        torch.rand(len(name))  # what the process drew before plays no part
        run(tmp_path / name, *overrides)
    assert metrics(tmp_path / "first") == metrics(tmp_path / "second")
    for network_name in ("student", "teacher", "baseline"):
        first, second = (load_file(tmp_path / name / f"{network_name}.pt") for name in ("first", "second"))
        assert equal(first, second)


@pytest.mark.slow
def test_another_seed_gives_another_run(tmp_path):
    run(tmp_path / "first", *SMALL)
    run(tmp_path / "second", "seed=1", *SMALL)
    assert not equal(load_file(tmp_path / "first" / "student.pt"), load_file(tmp_path / "second" / "student.pt"))


@pytest.mark.slow
def test_loader_workers_do_not_change_a_bit(tmp_path):
    for workers in (0, 2):
        run(tmp_path / str(workers), f"runtime.num_workers={workers}", "dataset.resident=false")
    assert equal(load_file(tmp_path / "0" / "student.pt"), load_file(tmp_path / "2" / "student.pt"))
    assert metrics(tmp_path / "0") == metrics(tmp_path / "2")


@pytest.mark.slow
def test_other_stages_do_not_change_the_students_start_or_data(tmp_path):
    run(tmp_path / "alone", "method=ce", *SMALL)
    run(tmp_path / "after", "method=ce", "prelude=comparison", *SMALL)
    assert equal(load_file(tmp_path / "alone" / "student.pt"), load_file(tmp_path / "after" / "student.pt"))


@pytest.mark.slow
def test_training_without_a_teacher_builds_none(tmp_path):
    with runner(tmp_path, "method=ce", *SMALL) as made:
        summary = made.run()
        assert list(networks(made)) == ["student"]
    assert summary["teacher"] is None
    assert [row["network"] for row in summary["rows"]] == ["student"]


@pytest.mark.slow
def test_a_teacher_with_a_checkpoint_is_not_trained_again(tmp_path):
    run(tmp_path / "first", "prelude=teacher", *SMALL)
    checkpoint = tmp_path / "first" / "teacher.pt"
    summary = run(tmp_path / "second", "prelude=teacher", f"teacher.checkpoint={checkpoint}", *SMALL)
    log = (tmp_path / "second" / "train.log").read_text()
    assert f"teacher: 94,762 parameters, checkpoint {checkpoint}" in log
    assert "stage teacher: skipped, teacher came with weights" in log
    assert list(summary["stages"]) == ["distill"]
    assert {record["stage"] for record in metrics(tmp_path / "second") if record["kind"] == "epoch"} == {"distill"}
    with runner(tmp_path / "third", "prelude=teacher", f"teacher.checkpoint={checkpoint}") as made:
        assert equal(snapshot(networks(made)["teacher"]), load_file(checkpoint))


@pytest.mark.slow
def test_a_skipped_stage_stays_skipped_after_a_resume(tmp_path, monkeypatch):
    run(tmp_path / "first", "prelude=teacher", *SMALL)
    overrides = ("prelude=teacher", f"teacher.checkpoint={tmp_path / 'first' / 'teacher.pt'}")
    run(tmp_path / "whole", *overrides)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(runner_module.StageRunner, "conclude", lambda self: 1 / 0)
        run(tmp_path / "resumed", *overrides)
    run(tmp_path / "resumed", *overrides)
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("arch", [pytest.param("resnet18", marks=pytest.mark.slow), "mnasnet1_0"])
def test_the_exported_student_loads_into_the_bare_architecture(tmp_path, arch):
    overrides = (f"model@student={arch}", "model@teacher=plain_8_16", *SMALL)
    run(tmp_path, *overrides, base=FAKE)
    state = torch.load(tmp_path / "student.pt", weights_only=True)
    bare = torchvision.models.get_model(arch, num_classes=10)
    bare.load_state_dict(state, strict=True)
    if arch == "mnasnet1_0":  # one that reads the versions of its modules, and changes itself when there are none
        assert state._metadata[""]["version"] == bare.state_dict()._metadata[""]["version"] == 2
    assert equal(snapshot(bare), state)


@pytest.mark.slow
def test_the_exported_student_answers_as_the_table_says(tmp_path):
    summary = run(tmp_path)
    bare = PlainCNN([8, 16], num_classes=10)
    bare.load_state_dict(torch.load(tmp_path / "student.pt", weights_only=True), strict=True)
    with runner(tmp_path / "again") as made:
        plan = made.plans[-1]
        task, batches = made.experiment.task(plan), list(made.experiment.data.test(plan))
        with torch.no_grad():
            right = [
                bare.eval()(task.prepare(batch, device=torch.device("cpu"))["input"]).argmax(1) == batch["target"]
                for batch in batches
            ]
    assert float(torch.cat(right).double().mean()) == summary["rows"][0]["accuracy"]


def test_accuracies_equal_the_goldens():
    golden = np.load(GOLDENS / "topk_accuracy.npz")
    logits, labels = (torch.from_numpy(golden[f"in/{name}"]) for name in ("logits", "labels"))
    task = Classification(normalize=NormalizeConf(), num_classes=20)
    batches = [{"input": logits[i : i + 30], "target": labels[i : i + 30]} for i in range(0, 64, 30)]
    task.prepare = lambda batch, device: batch  # type: ignore[method-assign]
    student, teacher = (Network(name, torch.nn.Identity(), {}) for name in ("student", "teacher"))
    found = evaluate(task, student, batches, device=torch.device("cpu"), reference=teacher).figures
    assert found["accuracy"] == pytest.approx(golden["out/top1"] / 100)
    assert found["top5"] == pytest.approx(golden["out/top5"] / 100)
    assert found["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-6)
    assert found["agreement"] == 1.0


def test_evaluation_gives_every_module_its_own_mode_back(tmp_path):
    with stage(tmp_path, "method.stages.distill.freeze=[student.features.0]") as built:
        built.begin_epoch(0)
        before = {name: module.training for name, module in network(built, "student").named_modules()}
        assert before["features.1"]
        assert not before["features.0.1"]
        built.judge()
        assert {name: module.training for name, module in network(built, "student").named_modules()} == before


@pytest.mark.slow
def test_a_later_stage_inherits_data_and_may_replace_it(tmp_path):
    overrides = (
        "method=fitnet",
        "+dataset@method.stages.hint.data=fake",
        "method.stages.hint.data.image_size=8",
        "method.stages.hint.labels_per_class=3",
    )
    with runner(tmp_path, *overrides) as made:
        names = [plan.data.name for plan in made.plans]
        sizes = [made.experiment.data.stage(plan).identity["train"] for plan in made.plans]
    assert names == ["fake", "fake"]
    assert sizes == [30, 100]  # the label budget is a scalar, and does not pass from stage to stage
    with runner(tmp_path, "method=fitnet", "+dataset@method.stages.distill.data=fake") as made:
        assert [plan.data.name for plan in made.plans] == ["digits", "fake"]


# What goes wrong, and what is said then.


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kd", "fitnet"])
def test_a_loss_that_is_not_finite_stops_before_the_optimiser_with_all_there_is_to_know(tmp_path, monkeypatch, method):
    weights = []
    original = Optimization.step

    def step(self):
        original(self)
        weights[:] = [[parameter.detach().clone() for parameter in self.parameters]]

    monkeypatch.setattr(Optimization, "step", step)
    with stage(tmp_path, f"method={method}", "stage.lr=1e30", "scheduler@stage.scheduler=constant") as built:
        with pytest.raises(NonFiniteLoss) as caught:
            train(built, epochs=2)
        assert all(map(torch.equal, built.optimization.parameters, weights[0]))
    told = str(caught.value)
    name = built.plan.name
    assert told.startswith(f"the loss is not finite in stage {name!r}, epoch 1, step 2: ")
    for term in built.plan.terms:
        assert f"{term} = " in told
    assert "lr 1e+30" in told
    indices = json.loads(told.split("sample indices ")[1].split(". The weights")[0])
    assert sorted(indices) == sorted(set(indices) & set(built.data.indices.tolist()))
    assert len(indices) == 36  # the second batch


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_command_with_1_and_without_a_traceback(tmp_path, command):
    words = (*DIGITS, "stage.lr=1e30", "scheduler@stage.scheduler=constant", "method=ce")
    code, _, err = command(*words, f"hydra.run.dir={tmp_path}")
    assert code == 1
    assert "error: the loss is not finite in stage 'train', epoch 1, step 2: ce" in err
    assert "Traceback" not in err
    status = Status(tmp_path).read()
    assert status["state"] == "failed"
    assert status["reason"].startswith("NonFiniteLoss: the loss is not finite")
    assert not (tmp_path / "student.pt").exists()


# The last block of this student has one pixel on images of 8x8: batch norm sees one value per channel and sample.
ONE_PIXEL = ("model@student=plain_32_64_128", "method=ce")


def test_a_last_batch_of_one_is_refused_before_training_and_the_cause_named(tmp_path):
    told = refusal(tmp_path, *ONE_PIXEL, "stage.batch_size=33")
    assert told.startswith("method.stages.train.batch_size: 100 samples in batches of 33 leave a batch of one sample")
    assert "batch norm" in told
    assert "stage.drop_last=true" in told


def test_dropping_the_last_batch_mends_it(tmp_path):
    with stage(tmp_path, *ONE_PIXEL, "stage.batch_size=33", "stage.drop_last=true") as built:
        assert len(built.batch_sizes) == 3
        assert np.isfinite(train(built)["total"])


def test_batches_of_one_are_refused_with_a_size_that_works(tmp_path):
    told = refusal(tmp_path, *ONE_PIXEL, "stage.batch_size=1")
    assert "batch norm" in told
    assert "set stage.batch_size=32" in told


@pytest.mark.slow
def test_a_batch_of_one_is_fine_where_batch_norm_sees_several_pixels_or_is_frozen(tmp_path):
    with stage(tmp_path / "pixels", "method=ce", "stage.batch_size=33") as built:
        assert np.isfinite(train(built)["total"])
    frozen = "method.stages.train.freeze=['student:BatchNorm2d']"
    with stage(tmp_path / "frozen", *ONE_PIXEL, "stage.batch_size=33", frozen) as built:
        assert np.isfinite(train(built)["total"])


def test_a_hook_that_never_fires_is_an_error_with_module_and_stage(tmp_path):
    with stage(tmp_path) as built:
        tapped = built.tapped["student"]
        tapped.model.forward = lambda images: images.mean((2, 3))
        with pytest.raises(TapError, match=r"'logits' of student in stage 'distill': module fc:out never ran"):
            train(built)


@pytest.fixture
def folders(tmp_path):
    """A data set of image folders: 2 classes of 12 training and 4 test images of 32 pixels."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for name in ("cat", "dog"):
            place = tmp_path / "data" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number:02}.png")
    return tmp_path / "data"


def folder_words(folders) -> tuple[str, ...]:
    transform = "{_target_: torchvision.transforms.v2.PILToTensor}"
    return (
        "dataset=imagenet",
        f"dataset.root={folders}",
        "dataset.num_classes=2",
        "dataset.image_size=32",
        f"dataset.train_transform=[{transform}]",
        f"dataset.eval_transform=[{transform}]",
        "method=ce",
        "prelude=none",
        "model@student=plain_8_16",
        "stage.batch_size=8",
        "runtime.max_epochs=2",
    )


@pytest.mark.slow
def test_a_run_on_image_folders(tmp_path, folders):
    summary = run_config(compose([*folder_words(folders), *QUIET]), output_dir=str(tmp_path / "run"))
    assert summary["rows"][0]["accuracy"] in [number / 8 for number in range(9)]
    identity = json.loads((tmp_path / "run" / "data.json").read_text())["train"]
    assert identity["train"] == 24
    assert identity["label_counts"] == [12, 12]


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "position"), [(0, 7), pytest.param(0, 0, marks=pytest.mark.slow), (2, 7)])
def test_a_corrupt_image_ends_the_run_with_its_name(tmp_path, folders, command, workers, position):
    bad = folders / "train" / "cat" / f"{position:02}.png"
    bad.write_bytes(bad.read_bytes()[:60])
    run_dir = f"hydra.run.dir={tmp_path / 'run'}"
    code, _, err = command(*folder_words(folders), run_dir, f"runtime.num_workers={workers}")
    assert f"image {position} ({bad}) cannot be read" in err
    assert "runtime.corrupt_images=skip" in err
    assert "Traceback" not in err
    if position == 0:  # on which every stage is assembled on trial
        assert code == 2 and not (tmp_path / "run" / "status.json").exists()
    else:
        assert code == 1 and Status(tmp_path / "run").read()["state"] == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_corrupt_images_can_be_skipped(tmp_path, folders, workers):
    for name in ("train/cat/03.png", "train/dog/05.png", "val/dog/00.png"):
        (folders / name).write_bytes(b"not an image")
    words = (*folder_words(folders), "runtime.corrupt_images=skip", f"runtime.num_workers={workers}")
    summary = run_config(compose([*words, *QUIET]), output_dir=str(tmp_path / "run"))
    assert summary["rows"][0]["network"] == "student"
    assert Status(tmp_path / "run").read()["state"] == "done"


@pytest.mark.slow
def test_more_corrupt_images_than_allowed_end_the_run(tmp_path, folders, command):
    for number in range(4):
        (folders / "train" / "dog" / f"{number:02}.png").write_bytes(b"not an image")
    words = (*folder_words(folders), "runtime.corrupt_images=skip", "runtime.max_skipped=3")
    code, _, err = command(*words, f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 1
    assert "that makes 4, and runtime.max_skipped is 3" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_debugging_cuts_every_stage_to_one_batch(tmp_path):
    run(tmp_path, "prelude=comparison", "method=ft", "debug=one_batch")
    steps = [(r["stage"], r["epoch"], r["step"]) for r in metrics(tmp_path) if r["kind"] == "step"]
    assert steps == [(name, 0, 0) for name in ("teacher", "alone", "paraphrase", "distill")]


@pytest.mark.slow
@pytest.mark.parametrize(("batches", "counts"), [(1, [50, 50]), (3, [120, 150]), (None, [120, 597])])
def test_an_evaluation_may_be_cut_short_and_says_so(tmp_path, monkeypatch, batches, counts):
    seen, figures = [], Classification.figures
    monkeypatch.setattr(Classification, "figures", lambda self, sums: seen.append(sums["count"]) or figures(self, sums))
    most = f"runtime.max_eval_batches={batches or 'null'}"
    run(tmp_path, "method=ce", "prelude=none", "dataset.eval_batch_size=50", *SMALL, most)
    assert seen[-2:] == counts  # before them the check judges two
    told = (tmp_path / "train.log").read_text().count(f"{most}: epochs and results are judged on {batches} batch")
    assert told == (batches is not None)


@pytest.mark.slow
def test_a_script_composes_and_runs(tmp_path):
    code = inspect.cleandoc(
        """
        import sys
        from distill_app import compose, run
        overrides = ["dataset=digits", "model@teacher=plain_8_16", "prelude=none", "debug=one_batch"]
        summary = run(compose(overrides), output_dir=sys.argv[1])
        print(summary["rows"][0]["network"])
        """
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "student"
