"""Everything wrong with a config is told before the first batch: key, what was given, nearest match, what to type."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from distill_app.app import carry_out
from distill_app.check.quick import check, read
from distill_app.config.tree import compose
from distill_app.errors import ConfigError

KD = "method.stages.distill.losses.kd"
TAPS = (
    "(there are: stem, stage1, stage1_pre, stage2, stage2_pre, stage3, stage3_pre, stage4, stage4_pre, pooled, logits"
)

# override -> what its one message must say; told together, since one wrong thing must not hide another
COMPOSITION = {
    "method=fitent": ["method: unknown option 'fitent'; did you mean 'fitnet'? (there are: afd, at, "],
    "model@student=resnet19": ["model@student: unknown option 'resnet19'; did you mean 'resnet18'?"],
    "models@teacher=resnet18": ["models@teacher: unknown group 'models'; did you mean 'model'?"],
    "model@studnet=resnet18": ["unknown key 'model@studnet'; did you mean 'model@student'?"],
    "optimizer@stage.optimizer=adamm": ["optimizer@stage.optimizer: unknown option 'adamm'; did you mean 'adam'?"],
    "sede=3": ["sede: unknown key 'sede'; did you mean 'seed'?"],
    "student.net.num_clases=3": [
        "student.net.num_clases: unknown key",
        "did you mean 'student.net.num_classes'?",
        "write '+student.net.num_clases=3'",
    ],
    "stage.lr=abc": ["stage.lr: cannot be 'abc': Value 'abc' of type 'str' could not be converted to Float"],
    "stage.epochs=null": ["stage.epochs: cannot be 'null'", "not Optional"],
    "runtime.allow=os": ["runtime.allow: cannot be 'os'", "not a ListConfig, list or tuple"],
    "+stage.batch_size=3": ["stage.batch_size: is there already; write 'stage.batch_size=3', without +"],
    "+loss@method.stages.distill.losses.x=klx": [
        "loss@method.stages.distill.losses.x: unknown option 'klx'; did you mean 'kl'?"
    ],
    "+extra_models.x.net._target_=torch.nn.Identity": ["extra_models.x", "'+model@extra_models.x=NAME'"],
    "method.stages.distill.roles={teacher:student}": ["write '+method.stages.distill.roles={teacher:student}'"],
    "~stage.patience": [
        "stage.patience: is null, and Hydra takes out only what has a value; write stage.patience=0 '~"
    ],
    "~stage.lr=5": ["stage.lr: is 0.", " and not 5, so that nothing is taken out; write '~stage.lr'"],
    "~stage.lr": ["stage.lr: cannot be taken out, since it is always there; write stage.lr=VALUE"],
    "~method": ["method: cannot be taken out, since there has to be one; write method=NAME"],
    f"~{KD}.inputs": [f"{KD}.inputs: cannot be taken out; take out its entries: '~{KD}.inputs.student', '~"],
    "prelude.params.epoch=3": ["prelude.params.epoch: unknown key", "write 'prelude.params.epochs=3'"],
    "~prelud": ["prelud: unknown key 'prelud'; did you mean 'prelude'?, so there is nothing to take out"],
    "stage": ["'stage' is no override; write key=value"],
    "seed=0,1": ["seed: '0,1' are several values; sweep over them with -m"],
    "+deda=1": ["deda: unknown key 'deda'; did you mean 'seed'?"],
}
QUICK = {
    "+sede=3": ["sede: unknown key 'sede'; did you mean 'seed'? (there are: dataset, teacher,"],
    "+student.chekpoint=x": ["student.chekpoint: unknown key 'chekpoint'; did you mean 'checkpoint'?"],
    f"{KD}.inputs.student=student.logist": [
        f"{KD}.inputs: student.logist: unknown tap 'logist'; did you mean 'logits'? {TAPS}",
        "in student.taps",
    ],
    f"{KD}.inputs.teacher=techer.logits": [
        f"{KD}.inputs: techer.logits: unknown network 'techer'; did you mean 'teacher'?"
    ],
    "method.stages.distill.losses.ce.inputs.input=logits": [
        "losses.ce.inputs: 'logits' is no address; write student.<tap>, teacher.<tap>, batch.<key> or adapters.<name>"
    ],
    "method.stages.distill.losses.ce.inputs.target=adapters.fit": ["unknown adapter 'fit' (there are: none)"],
    "+loss@method.stages.distil.losses.more=dkd": ["method.stages.distil: unknown stage 'distil'; did you mean 'dis"],
    "prelude.schedule=[techer]": ["prelude.schedule: unknown stage 'techer'; did you mean 'teacher'?"],
    "method.stages.distill.train=[studnet]": ["distill.train: unknown network 'studnet'; did you mean 'student'?"],
    "+method.stages.distill.roles.teacher=assistant": [
        "method.stages.distill.roles.teacher: unknown network 'assistant'; did you mean 'student'?"
    ],
    "+method.stages.distill.init_from.studnet=teacher": ["distill.init_from: unknown network 'studnet'"],
    "method.stages.distill.epochs=0": ["method.stages.distill.epochs: must be at least 1, got 0"],
    "method.stages.distill.lr=-1": ["method.stages.distill.lr: must be above 0, got -1.0"],
    "method.stages.distill.select=bets": [
        "select: unknown choice 'bets'; did you mean 'best'? (there are: last, best)"
    ],
    "+stage.optimizer.lr=0.3": ["stage.optimizer.lr: the learning rate belongs to the stage; set 'stage.lr=0.3'"],
    "stage.scheduler.interval=batch": ["stage.scheduler.interval: unknown interval 'batch' (there are: epoch, step)"],
    "runtime.corrupt_images=skp": ["runtime.corrupt_images: unknown policy 'skp'; did you mean 'skip'?"],
    "runtime.num_workers=-1": ["runtime.num_workers: must be 0 or more, got -1"],
    "runtime.max_skipped=-1": ["runtime.max_skipped: must be 0 or more, got -1"],
    "runtime.max_epochs=0": ["runtime.max_epochs: must be at least 1, or null for all, got 0"],
    "runtime.max_steps_per_epoch=0": ["runtime.max_steps_per_epoch: must be at least 1, or null for all, got 0"],
    "runtime.max_eval_batches=-2": ["runtime.max_eval_batches: must be at least 1, or null for all, got -2"],
    "dataset.validation_fraction=2": ["dataset.validation_fraction: must be in [0, 1), got 2.0"],
    f"{KD}.loss.temperature=nan": [f"{KD}.loss.temperature: must be a number, got nan"],
    "method.stages.distill.losses.ce.weight=nan": ["losses.ce.weight: must be finite, got nan"],
    "stage.optimizer.momentum=nan": ["stage.optimizer.momentum: must be a number, got nan"],
    f"{KD}.weight=heavy": [f"{KD}.weight: must be a number, or a schedule with a _target_, got 'heavy'"],
    "dataset.root=/nowhere/images": ["dataset.root: /nowhere/images is not there", "; to get the data: fetch it"],
    "dataset.get=fetch it": [],
}
TARGETS = {
    "student.net._target_=distill_app.models.PlainCN": [
        "student.net._target_: cannot import 'distill_app.models.PlainCN'",
        "unknown name 'PlainCN'; did you mean 'PlainCNN'? in distill_app.models",
    ],
    "teacher.net._target_=torchvision.modles.resnet18": [
        "unknown name 'modles'; did you mean 'models'? in torchvision"
    ],
    f"{KD}.loss._target_=os.system": [f"{KD}.loss._target_: 'os.system' is outside what may be built"],
    "+method.stages.distill.losses.ce.loss.label_smoothin=0.1": [
        "losses.ce.loss.label_smoothin: unknown argument 'label_smoothin'; did you mean 'label_smoothing'?"
    ],
    "+stage.optimizer.momentun=0.1": [
        "stage.optimizer.momentun: unknown argument 'momentun'; did you mean 'momentum'?"
    ],
    "~stage.scheduler.schedule._target_": ["stage.scheduler.schedule: needs a _target_"],
    "launcher._target_=distill_app.launch.Lokal": ["launcher._target_", "did you mean 'Local'?"],
    "dataset.train_transform=[{_target_:torchvision.transforms.v2.RandomCrop}]": [
        "dataset.train_transform[0].size: torchvision.transforms.v2.RandomCrop needs this argument",
        "'dataset.train_transform[0].size=...'",
    ],
    "dataset.eval_transform=[{_target_:torchvision.transforms.v2.RandomCrop,size:[1,2,3]}]": [
        "dataset.eval_transform[0]: torchvision.transforms.v2.RandomCrop: ValueError"
    ],
    "dataset.train._target_=distill_app.data.BundledImage": ["dataset.train._target_", "did you mean 'BundledImages'?"],
    "+dataset.test.splitt=test": ["dataset.test.splitt: unknown argument 'splitt'; did you mean 'split'?"],
    "runtime.device=gpu": ["runtime.device: unknown device 'gpu'; did you mean 'cpu'?"],
}


@pytest.fixture(scope="module")
def told(tiny, errors_of):
    """The errors of all overrides of a table at once."""
    found = {}

    def tell(table, *more):
        if id(table) not in found:
            found[id(table)] = errors_of(*tiny, *more, *table)
        return found[id(table)]

    return tell


def one_says(errors, fragments):
    return len([error for error in errors if all(fragment in error for fragment in fragments)]) == 1


@pytest.mark.parametrize("override", COMPOSITION)
def test_what_cannot_be_composed_is_told(override, told):
    assert one_says(told(COMPOSITION), COMPOSITION[override]), told(COMPOSITION)


def test_one_error_of_composition_hides_no_other(told):
    assert len(told(COMPOSITION)) == len(COMPOSITION)


@pytest.mark.parametrize("override", [override for override, fragments in QUICK.items() if fragments])
def test_what_reads_wrong_is_told(override, told):
    assert one_says(told(QUICK), QUICK[override]), told(QUICK)


def test_one_wrong_key_or_value_hides_no_other_and_causes_no_second_message(told):
    assert len(told(QUICK)) == sum(map(bool, QUICK.values()))


@pytest.mark.parametrize("override", TARGETS)
def test_what_cannot_be_built_is_told(override, told):
    assert one_says(told(TARGETS), TARGETS[override]), told(TARGETS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "network", "param"),
    [("takd", "unused", "assistants"), ("multi_teacher", "teacher_2", "teachers"), ("dml", "wide", "peers")],
)
def test_a_network_that_is_on_no_list_is_told_with_the_list(tiny, errors_of, method, network, param):
    (error,) = errors_of(*tiny, f"method={method}", f"+model@method.extra_models.{network}=plain_8_16")
    told = f"no stage reads or trains this network; name it in 'method.params.{param}=[...]'"
    assert error == f"method.extra_models.{network}: {told}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["student.net.widths=[8.5,16]"],
            "student.net.widths: distill_app.models.PlainCNN wants a list of whole numbers",
        ),
        (["method=wkd", "++method.stages.distill.losses.logits.loss.iterations=2.5"], "wants a whole number, got 2.5"),
        (
            ["method=cat_kd", "++method.stages.distill.losses.cat_kd.loss.resolution=2.0"],
            "wants a whole number, got 2.0",
        ),
    ],
)
def test_what_has_to_be_a_whole_number_is_told(tiny, errors_of, overrides, told):
    assert any(told in error for error in errors_of(*tiny, *overrides))


def test_a_network_of_nobody_is_told(tiny, errors_of):
    (error,) = errors_of(*tiny, "+model@extra_models.other=plain_8_16")
    assert error == "extra_models.other: no stage reads or trains this network"


def test_of_a_method_of_ones_own_what_nothing_reads_is_a_warning(tiny, errors_of, caplog):
    """Its file may have more stages and networks than a run of it takes."""
    more = ("+loss@method.stages.later.losses.more=dkd", "+model@method.extra_models.other=plain_8_16")
    assert errors_of(*tiny, "method.name=mine", *more) == []
    stage = "method.stages.later: does not run, since method.schedule does not name it"
    assert {stage, "method.extra_models.other: no stage reads or trains this network"} <= set(caplog.messages)


def test_a_number_that_is_none_is_told_once(tiny, errors_of):
    (error,) = errors_of(*tiny, "method=ban", "method.params.generations=-2")
    assert error.startswith("method.params.generations: must be a number from 0 to 100")


def test_one_wrong_target_hides_no_other(told):
    assert len(told(TARGETS)) == len(TARGETS)


@pytest.mark.slow
def test_errors_of_all_kinds_are_told_together(tiny, errors_of):
    overrides = ["sede=3", "+deda=1", "student.net._target_=os.system", "dataset.root=/nowhere"]
    overrides += ["method.stages.distill.losses.ce.inputs.input=student.logist"]
    kinds = ["unknown key 'sede'", "unknown key 'deda'", "outside what may be built", "is not there", "unknown tap"]
    errors = errors_of(*tiny, *overrides)
    assert len(errors) == len(kinds) and all(one_says(errors, [kind]) for kind in kinds)


@pytest.mark.slow
def test_a_stage_is_assembled_though_another_key_is_wrong(tiny, errors_of):
    errors = errors_of(*tiny, "+deda=1", f"{KD}.inputs.student=student.pooled")
    assert one_says(errors, ["deda"]) and one_says(errors, [KD, "(2, 16)", "(2, 10)"]) and len(errors) == 2


@pytest.mark.parametrize(
    ("overrides", "fragments"),
    [
        (
            ["method.stages.distill.freeze=[student.fature]"],
            ["method.stages.distill.freeze: 'student.fature'", "features"],
        ),
        (["method.stages.distill.lr_scales={student.fx: 2.0}"], ["distill.lr_scales", "student.fx"]),
        (["stage.optimizer.momentum=0"], ["stage.optimizer: torch.optim.SGD: ValueError: Nesterov momentum"]),
        (
            ["stage.scheduler.schedule.pct_start=2"],
            ["scheduler.schedule: torch.optim.lr_scheduler.OneCycleLR: ValueError"],
        ),
        (["launcher=slurm", "launcher.cluster=slrm"], ["launcher.cluster is 'slrm', allowed are slurm"]),
        ([f"{KD}.inputs.student=batch.imput"], [f"{KD}.inputs: nothing provides batch.imput", "did you mean 'input'?"]),
        ([f"{KD}.loss.temperature=-1"], [f"{KD}.loss: distill_app.losses.KLDivergence: ValueError: temperature=-1"]),
        (
            [
                f"{KD}.loss._target_=torch.nn.KLDivLoss",
                f"~{KD}.loss.temperature",
                f"~{KD}.inputs.student",
                f"~{KD}.inputs.teacher",
                f"+{KD}.inputs.input=student.logits",
                f"+{KD}.inputs.target=teacher.logits",
            ],
            [f"{KD}.loss: KLDivLoss is nan on the first images"],
        ),
        (
            ["method=lskd", "dataset=fake", "dataset.num_classes=2"],
            [f"{KD}: StandardizedKL", "fewer than three classes, got 2", "method=kd"],
        ),
        (
            ["method=sskd", "dataset=fake", "+loss@method.stages.distill.losses.dkd=dkd"],
            [
                "4 times as many rows (8) as labels (2)",
                "; the first view of each image: inputs.student=adapters.student_upright "
                "inputs.teacher=adapters.teacher_upright",
            ],
        ),
        (
            ["method=crld", "dataset=fake", "+loss@method.stages.distill.losses.reg=tfkd_reg"],
            ["2 times as many rows (4) as labels (2)", "inputs.student=adapters.weak"],
        ),
        (
            ["method=multilabel_kd", "dataset=fake_multilabel", "+loss@method.stages.distill.losses.dkd=dkd"],
            ["one class index for each image", "; the data have several labels for each image"],
        ),
        (["method=takd", "method.params.assistants=[student]"], ["distill.roles.teacher: is 'student'"]),
        (["method=dml", "method.params.peers=[student]"], ["losses.mutual.inputs: student.logits is there twice"]),
        (["student.net.widths=abc"], ["student.net: distill_app.models.PlainCNN: TypeError", "given: widths='abc'"]),
        (
            ["method=fitnet", "teacher.taps.stage2=featurs.0"],
            ["method.stages.hint", "'stage2' of teacher", "features.0"],
        ),
        (
            ["method.stages.distill.train=[teacher]", "method.stages.distill.losses.kd=null"],
            ["no loss term reads 'teacher'"],
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_what_does_not_fit_the_networks_is_told(overrides, fragments, tiny, errors_of):
    errors = errors_of(*tiny, "prelude=none", *overrides)
    assert len(errors) == 1 and all(fragment in errors[0] for fragment in fragments), errors


@pytest.mark.slow
@pytest.mark.parametrize("tap", ["pooled", "stage3", "stage4"])
def test_shapes_that_a_loss_cannot_take_are_told_with_an_adapter_that_works(tap, tiny, errors_of, composed):
    mapped = [f"{KD}.inputs.student=student.{tap}", f"{KD}.inputs.teacher=teacher.{tap}"]
    (error,) = errors_of(*tiny, "prelude=none", *mapped)
    assert f"{KD}: KLDivergence cannot take student " in error

    adapters, name, argument, address = re.search(r"adapters: (\{.*\}) and (inputs)\.(\w+): ([\w.]+)$", error).groups()
    cfg = composed(*tiny, "prelude=none", *mapped)
    pasted = OmegaConf.create(f"adapters: {adapters}\nlosses: {{kd: {{{name}: {{{argument}: {address}}}}}}}")
    OmegaConf.set_struct(cfg, False)
    cfg.method.stages.distill = OmegaConf.merge(cfg.method.stages.distill, pasted)
    assert list(check(cfg)) == []


def test_all_errors_are_raised_at_once_and_shown_as_they_are_found(composed, tiny, tmp_path):
    shown = []
    cfg = composed(*tiny, "+deda=1", "student.net._target_=os.system")
    with pytest.raises(ConfigError) as raised:
        carry_out(cfg, output_dir=str(tmp_path), command=[], show=shown.append)
    assert shown == raised.value.errors and len(shown) == 2
    assert "deda" in cfg  # the check changes nothing


def test_keys_addresses_types_and_roots_are_found_without_importing_torch():
    program = """
import sys
from distill_app.api import compose
from distill_app.check.quick import read
from distill_app.check.command_line import composition_errors
errors, app, plans = read(compose(["+sede=3", "method=fitnet", "method.params.tap=stag2", "dataset.root=/nowhere"]))
assert len(errors) == 5, errors
try:
    compose(["sede=3", "stage.lr=abc", "method=fitent"])
except Exception as error:
    told = composition_errors(error, ["sede=3", "stage.lr=abc", "method=fitent"])
    first = [next(told) for _ in range(3)]
    assert len(set(first)) == 3, first
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def folders(root: Path, **images: int) -> None:
    for split in ("train", "val"):
        for name, count in images.items():
            (root / "imagenet" / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (32, 32)).save(root / "imagenet" / split / name / f"{number}.png")


FOLDERS = [
    "dataset=imagenet",
    "prelude=none",
    "teacher.allow_random=true",
    "dataset.num_classes=2",
    "model@student=resnet8",
    "model@teacher=resnet8",
]


def test_an_empty_class_folder_is_told_with_its_path(tmp_path, monkeypatch, errors_of):
    monkeypatch.setenv("DISTILL_DATA", str(tmp_path))
    folders(tmp_path, cat=1, dog=0)
    errors = errors_of(*FOLDERS, "dataset.image_size=32", f"dataset.root={tmp_path}/imagenet")
    assert len(errors) == 2
    for split, error in zip(("train", "val"), errors, strict=True):
        empty = tmp_path / "imagenet" / split / "dog"
        assert f"no image in the class folder {empty}" in error and "; to get the data: " in error


def test_a_wrong_number_of_classes_is_told_with_what_to_set(tmp_path, errors_of):
    folders(tmp_path, cat=1, dog=1, owl=1)
    (error,) = errors_of(*FOLDERS, "dataset.image_size=32", f"dataset.root={tmp_path}/imagenet")
    assert error.startswith("dataset.num_classes: 2 was given") and error.endswith("set dataset.num_classes=3")


@pytest.mark.slow
def test_full_class_folders_pass(tmp_path, errors_of):
    folders(tmp_path, cat=1, dog=1)
    assert errors_of(*FOLDERS, "dataset.image_size=32", f"dataset.root={tmp_path}/imagenet") == []


def test_a_config_that_is_not_the_schemas_is_a_bug_and_no_users_error():
    with pytest.raises(Exception, match="prelude"):
        read(OmegaConf.create({"seed": 1}))


@pytest.mark.slow
def test_a_term_that_needs_one_class_a_sample_says_so_where_a_wrapper_mixes_them(errors_of):
    wrapper = "+dataset.wrappers.mix={_target_: distill_app.data.Mixup}"
    (error,) = errors_of("dataset=digits", "prelude=none", "method=tfkd_reg", wrapper)
    assert "labels are shares of all classes here, since a wrapper mixes samples" in error
    assert errors_of("dataset=digits", "prelude=none", "teacher.allow_random=true", "method=kd", wrapper) == []


def test_a_value_that_stages_share_is_told_once_and_of_the_key_where_it_was_written():
    assert read(compose(["stage.batch_size=0"]))[0] == ["stage.batch_size: must be at least 1, got 0"]
    (message,) = read(compose(["method.stages.distill.batch_size=0"]))[0]
    assert message.startswith("method.stages.distill.batch_size: ")
