"""`distill import-torchdistill`: files, what it tells, exit codes, and experiments equal to those typed by hand."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine_fixtures import metrics
from migration_fixtures import CE, ENDS, KD, compared, config, pair, side, stage
from torchvision.transforms.v2.functional import to_pil_image

from distill_app import run
from distill_app.cli import main
from distill_app.config.tree import compose
from distill_app.data import BundledImages
from distill_app.models import CifarResNet

CLASSES = 10
QUIET = ("runtime.threads=1", "runtime.device=cpu", "tracker=none", "runtime.max_steps_per_epoch=3")


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """A few real digits as folders of images, and a file of a teacher as torchdistill writes it."""
    root = tmp_path_factory.mktemp("data")
    for split, name, count in (("train", "train", 30), ("test", "val", 20)):
        images = BundledImages(name="digits", split=split, image_size=32)
        for label in range(CLASSES):
            (root / "digits" / name / str(label)).mkdir(parents=True)
        for number in range(count):
            image, _ = images[number]
            # Labels are dealt out: what is compared are losses, not what is learnt.
            to_pil_image(image).convert("RGB").save(root / "digits" / name / str(number % CLASSES) / f"{number:03}.png")
    torch.manual_seed(0)
    state = CifarResNet(20, num_classes=CLASSES).state_dict()
    renamed = {name.replace("shortcut", "downsample"): value for name, value in state.items()}
    torch.save({"model": renamed, "best_value": 0.5}, root / "teacher.pt")
    return root


def told(capsys, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the verb."""
    with pytest.raises(SystemExit) as stopped:
        main(["import-torchdistill", *words])
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def saved(folder: Path, text: str) -> str:
    (folder / "kd-final.yaml").write_text(text, encoding="utf-8")
    return str(folder / "kd-final.yaml")


def test_what_is_taken_over_is_written_and_what_differs_told(tmp_path, capsys):
    code, out, _ = told(capsys, saved(tmp_path, config(stage({"kd": KD}))), "--output", str(tmp_path / "conf"))
    assert code == 0 and (tmp_path / "conf/experiment/kd_final.yaml").is_file()
    assert f"distill --config-dir {tmp_path / 'conf'} experiment=kd_final" in out
    assert "means something else here" in out and "of all of them together" in out and "left out" not in out
    cfg = compose(["experiment=kd_final"], config_dirs=[str(tmp_path / "conf")])
    assert cfg.method.name == "kd" and cfg.method.stages.distill.losses.ce.weight == 0.3


def test_something_left_out_is_exit_code_1_and_nothing_to_take_over_2(tmp_path, capsys):
    folder = ("--output", str(tmp_path / "conf"))
    code, out, _ = told(capsys, saved(tmp_path, config(stage({"kd": KD}, mood="good"))), *folder)
    assert code == 1 and "left out (1):\n  train.mood: nothing here reads this key" in out
    text = config(stage({"kd": KD}), teacher={"key": "maskrcnn_resnet50_fpn", "kwargs": {}})
    code, _, err = told(capsys, saved(tmp_path, text), *folder)
    assert code == 2 and "'maskrcnn_resnet50_fpn' detects objects; only image classification is imported" in err
    assert told(capsys, str(tmp_path / "none.yaml"))[0] == 2


def test_a_value_of_the_wrong_kind_is_an_error_by_its_key(tmp_path, capsys):
    code, _, err = told(capsys, saved(tmp_path, config(stage({"kd": KD}, num_epochs="ten"))))
    assert code == 2 and "error: train.num_epochs: 'ten' is no whole number" in err


def test_files_that_are_there_are_not_written_over(tmp_path, capsys):
    folder = ("--output", str(tmp_path / "conf"))
    file = saved(tmp_path, config(stage({"kd": KD})))
    assert told(capsys, file, *folder)[0] == 0
    assert told(capsys, file, *folder)[0] == 0, "the same text is no other file"
    other = saved(tmp_path, config(stage({"kd": KD}, num_epochs=7)))
    code, _, err = told(capsys, other, *folder)
    assert code == 2 and "is there and is another one" in err
    assert told(capsys, other, *folder, "--name", "longer")[0] == 0


def test_names_that_hydra_would_not_find_are_refused(tmp_path, capsys):
    term = compared("layer1", "layer1", "HuberLoss")
    file = saved(tmp_path, config(stage({"ce": CE, "h": term})))
    code, _, err = told(capsys, file, "--output", str(tmp_path / "conf"), "--name", "at")
    assert code == 2 and "method/at.yaml has the name of a file of this package; choose another by --name" in err
    assert told(capsys, file, "--name", "a b")[0] == 2


@pytest.mark.slow
def test_the_whole_check_needs_the_data_and_says_so(tmp_path, capsys, digits):
    folder = ("--output", str(tmp_path / "conf"), "--check")
    missing = config(stage({"kd": KD}), root=str(tmp_path / "none"), student=None)
    code, out, err = told(capsys, saved(tmp_path, missing), *folder)
    assert code == 2 and "teacher.checkpoint: there is no file t.pt" in out + err
    teacher = {"key": "resnet20", "kwargs": {"num_classes": CLASSES}, "src_ckpt": str(digits / "teacher.pt")}
    code, out, _ = told(
        capsys,
        saved(tmp_path, config(stage({"kd": KD}), root=str(tmp_path / "none"), teacher=teacher)),
        *folder,
        "--name",
        "second",
    )
    assert code == 0 and "checked but for what needs the data: dataset.root" in out
    text = config(stage({"kd": KD}), root=str(digits), teacher=teacher)
    code, out, _ = told(capsys, saved(tmp_path, text), *folder, "--name", "third")
    assert code == 0 and "checked: it can run" in out


@pytest.mark.slow
def test_the_check_without_data_and_checkpoint_tells_all_else_in_the_same_list(tmp_path, capsys):
    train = stage({"kd": KD}, scheduler={"key": "StepLR", "kwargs": {"step_size": 1, "bogus": 1}})
    train["optimizer"]["kwargs"]["bogus"] = 1
    text = config(train, root=str(tmp_path / "none"))
    code, out, err = told(capsys, saved(tmp_path, text), "--output", str(tmp_path / "conf"), "--check")
    assert code == 2
    for error in ("there is no file t.pt", "dataset.root", "stage.optimizer", "stage.scheduler.schedule"):
        assert error in err
    assert err.count("unknown argument 'bogus'") == 2
    assert "image-net.org" not in out + err, "the images are one's own"


def losses_of(folder: Path, overrides: list[str], config_dirs: list[str] | None = None) -> list[dict]:
    """The losses of every step, as recorded."""
    run(compose([*overrides, *QUIET], config_dirs=config_dirs or []), output_dir=str(folder))
    return [
        {key: record[key] for key in ("stage", "total", "losses", "lr")}
        for record in metrics(folder)
        if record["kind"] == "step"
    ]


def by_hand(digits: Path) -> list[str]:
    """The same experiment as a user of this program types it."""
    return [
        *("dataset=imagefolder", f"dataset.root={digits / 'digits'}", f"dataset.num_classes={CLASSES}"),
        *("dataset.train_transform=[]", "dataset.eval_transform=[]", "dataset.validation_fraction=0"),
        "dataset.normalize={mean: [0.3, 0.3, 0.3], std: [0.4, 0.4, 0.4]}",
        *("model@teacher=resnet20", "model@student=resnet20", f"teacher.checkpoint={digits / 'teacher.pt'}"),
        *(
            "prelude=none",
            "stage=imagenet_sgd",
            "stage.epochs=1",
            "stage.batch_size=8",
            "stage.lr=0.05",
            "runtime.log_every=1",
        ),
        *("stage.optimizer.weight_decay=0.0005", "scheduler@stage.scheduler=constant", "runtime.num_workers=0"),
    ]


def criterion(key: str, weight: float, **arguments):
    return {"criterion": {"key": key, "kwargs": arguments}, "weight": weight}


def hint_stages() -> dict:
    """A hint through a regressor, then KD with another optimiser."""
    path = ["conv1", "bn1", "relu", "layer1", "layer2"]
    sizes = {"num_input_channels": 32, "num_output_channels": 32, "kernel_size": 1, "stride": 1, "padding": 0}
    student = side(
        hooks=("+convreg",), requires_grad=True, adaptations={"convreg": {"key": "ConvReg", "kwargs": sizes}}
    )
    first = stage(
        {"hint": compared("+convreg", "layer2")},
        teacher=side(hooks=("layer2",), requires_grad=False) | {"sequential": path},
        student=student | {"sequential": [*path, "+convreg"]},
    )
    second = stage({"kd": KD}, optimizer={"key": "Adam", "kwargs": {"lr": 0.001}})
    del second["train_data_loader"]
    return {"log_freq": 1, "stage1": first, "stage2": second}


def contrast_stage() -> dict:
    """CRD, with its wrappers."""

    def embedded(**more):
        linear = {"in_features": 64, "out_features": 16, "bias": True}
        conf = {"input_module_path": "model.avgpool", "linear_kwargs": linear, "power": 2}
        wrapper = {"key": "Linear4CRD", "kwargs": conf}
        return side(requires_grad=True, auxiliary_model_wrapper=wrapper, **more) | {
            "forward_proc": "forward_batch_supp_dict"
        }

    paths = {f"{role}_norm_module_path": "normalizer" for role in ("student", "teacher")}
    sizes = {"input_size": 16, "output_size": 30, "num_samples": 30, "num_negative_samples": 20}
    term = criterion("CRDLoss", 0.8, **paths, **sizes, student_empty_module_path="empty", temperature=0.07)
    train = stage({"ce": CE, "crd": term}, teacher=embedded(frozen_modules=["model"]), student=embedded())
    wrapper = {"num_negative_samples": 20, "mode": "exact", "ratio": 1.0}
    train["train_data_loader"]["dataset_wrapper"] = {"key": "CRDDatasetWrapper", "kwargs": wrapper}
    return train


AT = {"a": pair("layer2", "layer2"), "b": pair("layer3", "layer3")}
FC = {key: "fc" if key.endswith("path") else "input" for key in ENDS}
MAPS = {"student_output_path": "layer3", "teacher_output_path": "layer3"}
RKD = {"dist_factor": 25, "angle_factor": 50, "reduction": "mean"}
KD_BY_HAND = "method.stages.distill.losses={ce: {weight: 0.3}, kd: {weight: 0.7, loss: {temperature: 3.0}}}"
HINT = "method.stages.hint.adapters.regressor.module"
# What is imported, and what a user of this program types for the same.
SAME = {
    "kd": (lambda: stage({"kd": KD}), ["method=kd", KD_BY_HAND]),
    "at": (lambda: stage({"ce": CE, "at": criterion("ATLoss", 1000.0, at_pairs=AT)}), ["method=at"]),
    "pkt": (lambda: stage({"ce": CE, "pkt": criterion("PKTLoss", 30000.0, **FC)}), ["method=pkt"]),
    "crd": (
        contrast_stage,
        ["method=crd", "method.params.embedding.out_features=16", "method.stages.distill.losses.crd.loss.negatives=20"],
    ),
    # Of maps, which is no method's: its terms are written out.
    "rkd": (
        lambda: stage({"ce": CE, "rkd": criterion("RKDLoss", 1.0, **MAPS, **RKD)}),
        [
            "method=rkd",
            *(
                f"method.stages.distill.losses.{term}={{weight: {weight}, "
                f"inputs: {{student: student.stage4, teacher: teacher.stage4}}}}"
                for term, weight in (("distance", 25.0), ("angle", 50.0))
            ),
        ],
    ),
    "fitnet": (
        hint_stages,
        [
            *(
                "method=fitnet",
                "method.params.tap=stage3",
                KD_BY_HAND,
                "+optimizer@method.stages.distill.optimizer=adam",
            ),
            *(f"+{HINT}.{key}=true" for key in ("pointwise", "bias", "norm", "activation")),
            "method.stages.distill.lr=0.001",
        ],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME)
def test_three_steps_have_the_losses_of_the_same_experiment_typed_by_hand(tmp_path, capsys, digits, name):
    train, typed = SAME[name]
    teacher = {"key": "resnet20", "kwargs": {"num_classes": CLASSES}, "src_ckpt": str(digits / "teacher.pt")}
    text = config({"log_freq": 1, **train()}, root=str(digits), teacher=teacher)
    code, out, _ = told(capsys, saved(tmp_path, text), "--output", str(tmp_path / "conf"), "--name", f"its_{name}")
    assert code == 0, out
    theirs = losses_of(tmp_path / "imported", [f"experiment=its_{name}"], [str(tmp_path / "conf")])
    ours = losses_of(tmp_path / "typed", [*by_hand(digits), *typed])
    assert len(theirs) == (6 if name == "fitnet" else 3)
    assert theirs == ours, "to the bit"


@pytest.mark.slow
def test_it_runs_as_a_command(tmp_path):
    file = saved(tmp_path, config(stage({"kd": KD})))
    done = subprocess.run(
        [sys.executable, "-m", "distill_app", "import-torchdistill", file], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and Path(tmp_path, "imported/experiment/kd_final.yaml").is_file(), done.stderr


@pytest.mark.slow
def test_the_commands_of_the_page_run_on_its_example(tmp_path, digits):
    page = (Path(__file__).parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "kd.yaml").write_text(example, encoding="utf-8")
    shutil.copytree(digits / "digits", tmp_path / "data" / "digits")
    shutil.copy(digits / "teacher.pt", tmp_path)
    commands = [line.split("  #")[0].split() for line in re.findall(r"^ {4}distill (.*)", page, re.MULTILINE)]
    assert len(commands) == 4
    for words in commands:
        quiet = [] if words[0] == "import-torchdistill" else ["runtime.device=cpu", "tracker=none"]
        line = [sys.executable, "-m", "distill_app", *words, *quiet]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    summaries = list(tmp_path.glob("outputs/*/*/summary.json"))
    assert len(summaries) == 1, "one of them trains"
