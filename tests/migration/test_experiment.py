"""Configs of torchdistill become experiments: every key is used, told as left out, or named as unread."""

from copy import deepcopy

import pytest
import yaml
from migration_fixtures import (
    CE,
    ENDS,
    KD,
    compared,
    config,
    experiment,
    imported,
    options,
    pair,
    side,
    stage,
    terms,
    version_0,
)

from distill_app.errors import UsageError
from distill_app.migration.named import METHODS

PATHS = {"student_output_path": "layer3", "teacher_output_path": "layer3"}
OURS = "distill_app.losses"


def criterion(key: str, weight: float = 1.0, **arguments):
    return {"criterion": {"key": key, "kwargs": arguments}, "weight": weight}


def test_kd_is_the_method_of_that_name(tmp_path):
    found = imported(config(stage({"kd": KD})), tmp_path)
    assert found.method == "kd" and not found.ledger.left_out
    assert list(found.files) == ["experiment/mine.yaml"]
    content = experiment(found)
    changed = content["method"]["stages"]["distill"]["losses"]
    assert changed == {"ce": {"weight": 0.3}, "kd": {"loss": {"temperature": 3.0}, "weight": 0.7}}
    assert content["stage"] == {
        "epochs": 1,
        "lr": 0.05,
        "batch_size": 8,
        "optimizer": {"momentum": 0.9, "weight_decay": 0.0005},
        "select": "best",
    }
    assert content["teacher"] == {"checkpoint": "t.pt"}
    assert content["dataset"]["root"] == "/nowhere/digits" and content["dataset"]["num_classes"] == 10
    assert options(found)["prelude"] == "none"


def test_both_versions_of_the_dialect_give_the_same_experiment(tmp_path):
    before, now = imported(yaml.safe_dump(version_0()), tmp_path), imported(config(stage({"kd": KD})), tmp_path)
    assert not before.ledger.left_out
    assert before.files == now.files
    # Version 0 put the teacher into eval mode, and nothing has to be said of it.
    assert "train.teacher" in now.ledger.differs and "train.teacher" not in before.ledger.differs


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"temperature_of_the_room": 1}, "train.temperature_of_the_room"),
        ({"student": side(requires_grad=True, colour="red")}, "train.student.colour"),
        ({"optimizer": {"key": "SGD", "kwargs": {"lr": 0.1}, "hurry": True}}, "train.optimizer.hurry"),
        (
            {"criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": KD}, "mood": 1}}},
            "train.criterion.kwargs.mood",
        ),
    ],
)
def test_a_key_that_nothing_reads_is_named(tmp_path, change, key):
    found = imported(config(stage({"kd": KD}, **change)), tmp_path)
    assert list(found.ledger.left_out) == [key]
    assert "nothing here reads this key" in found.ledger.left_out[key]


@pytest.mark.parametrize(
    ("change", "key", "reason"),
    [
        ({"pre_forward_process": "my_process"}, "pre_forward_process", "part of the loop"),
        ({"student": side(requires_grad=True, forward_proc="mine")}, "student.forward_proc", "task of your own"),
        (
            {"student": side(requires_grad=True, wrapper="FullyShardedDataParallel")},
            "student.wrapper",
            "runtime.parallel",
        ),
        ({"student": side(requires_grad=True, src_ckpt="a.pt")}, "student.src_ckpt", "init_from"),
        ({"teacher": side(requires_grad=True)}, "teacher.requires_grad", "the teacher would be trained too"),
        (
            {"student": side(requires_grad=True, auxiliary_model_wrapper={"key": "Mine", "kwargs": {}})},
            "student.auxiliary_model_wrapper",
            "'Mine' is no auxiliary wrapper",
        ),
        (
            {"optimizer": {"key": "SGD", "kwargs": {"lr": 0.1}, "module_wise_kwargs": [{"module": "fc"}]}},
            "optimizer.module_wise_kwargs",
            "lr_scales",
        ),
        (
            {"scheduler": {"key": "StepLR", "kwargs": {"step_size": 1}, "scheduling_step": 3}},
            "scheduler.scheduling_step",
            "",
        ),
    ],
)
def test_what_has_no_counterpart_is_left_out_with_the_reason(tmp_path, change, key, reason):
    found = imported(config(stage({"kd": KD}, **change)), tmp_path)
    assert list(found.ledger.left_out) == [f"train.{key}"]
    assert reason in found.ledger.left_out[f"train.{key}"]


def test_a_loss_that_is_not_known_is_left_out_and_a_stage_of_such_refused(tmp_path):
    found = imported(config(stage({"kd": KD, "own": criterion("MyLoss", alpha=1)})), tmp_path)
    assert found.method == "kd"
    assert found.ledger.left_out == {
        "train.criterion.kwargs.sub_terms.own.criterion": (
            "'MyLoss' is no loss of torch or torchdistill that is known here; name yours by its _target_"
        )
    }
    with pytest.raises(UsageError, match=r"no term of it has a counterpart here: 'MyLoss' is no loss"):
        imported(config(stage({"own": criterion("MyLoss")})), tmp_path)


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (
            criterion("ATLoss", 10.0, at_pairs={"a": pair("layer2", "layer3")}, mode="paper"),
            [("AttentionTransfer", {"norm": "p"}, 10.0)],
        ),
        (
            criterion(
                "ATLoss", at_pairs={"a": pair("layer2", "layer2"), "b": pair("layer3", "layer3") | {"weight": 3}}
            ),
            [("AttentionTransfer", {}, 1.0), ("AttentionTransfer", {}, 3.0)],
        ),
        (criterion("PKTLoss", 2.0, **ENDS, eps=1e-6), [("ProbabilisticTransfer", {"eps": 1e-6}, 2.0)]),
        (
            criterion("RKDLoss", 2.0, **PATHS, dist_factor=25, angle_factor=50, reduction="mean"),
            [("RelationalDistance", {}, 50.0), ("RelationalAngle", {}, 100.0)],
        ),
        (
            criterion("RKDLoss", **PATHS, dist_factor=1, angle_factor=0, reduction="mean"),
            [("RelationalDistance", {}, 1.0)],
        ),
        (criterion("SPKDLoss", 5.0, **PATHS, reduction="batchmean"), [("SimilarityPreserving", {"p": 1.0}, 5.0)]),
        (
            criterion("DISTLoss", **ENDS, tau=4.0, gamma=2.0),
            [("PearsonDistance", {"temperature": 4.0, "beta": 1.0, "gamma": 2.0}, 1.0)],
        ),
        (criterion("SKDInstanceLoss", **ENDS, temperature=2.0), [("KLDivergence", {"temperature": 2.0}, 0.25)]),
        (criterion("SKDDirectionLoss", **ENDS, tikhonov=0.2), [("DirectionDistance", {"tikhonov": 0.2}, 1.0)]),
        (criterion("KDLoss", **ENDS, temperature=4.0, alpha=0), [("KLDivergence", {"temperature": 4.0}, 0.0625)]),
        (
            criterion("LogitStdKDLoss", **ENDS, temperature=2.0, alpha=0.1, beta=9),
            [("CrossEntropyLoss", {}, 0.1), ("StandardizedKL", {"temperature": 2.0}, 9.0)],
        ),
        (
            criterion("KDLoss", **ENDS, temperature=1.0, alpha=0.5, label_smoothing=0.1, reduction="sum"),
            [
                ("CrossEntropyLoss", {"label_smoothing": 0.1, "reduction": "sum"}, 0.5),
                ("KLDivergence", {"temperature": 1.0, "reduction": "sum"}, 0.5),
            ],
        ),
        (
            criterion(
                "FSPLoss",
                fsp_pairs={
                    "a": {
                        f"{s}_{e}": {"io": "output", "path": p}
                        for s in ("student", "teacher")
                        for e, p in (("first", "layer1"), ("second", "layer2"))
                    }
                },
            ),
            [("FlowOfSolution", {"pool": "max", "reduction": "columns"}, 1.0)],
        ),
        (compared("layer3", "layer3", reduction="sum"), [("MSELoss", {"reduction": "sum"}, 1.0)]),
        (compared("layer3", "layer3", "SmoothL1Loss", beta=0.5), [("SmoothL1Loss", {"beta": 0.5}, 1.0)]),
    ],
)
def test_a_loss_becomes_terms_of_the_same_mathematics(tmp_path, term, expected):
    # A term that no method has beside it, so that the wiring is written out.
    other = compared("layer1", "layer1", "HuberLoss")
    found = imported(config(stage({"other": other, "it": term})), tmp_path)
    assert not found.ledger.left_out
    made = [each for name, each in terms(found).items() if name != "other"]
    told = [
        (each["loss"].pop("_target_").rpartition(".")[2], each["loss"], pytest.approx(each["weight"])) for each in made
    ]
    assert told == expected


@pytest.mark.parametrize(
    ("term", "reason"),
    [
        (criterion("SPKDLoss", **PATHS, reduction="sum"), "reduction 'sum'"),
        (
            criterion("CRDLoss", teacher_norm_module_path="n", student_norm_module_path="n"),
            "there is no CRDDatasetWrapper",
        ),
        (criterion("KDLoss", **ENDS, temperature=1.0, alpha=0.5, reduction="none"), "reduction 'none'"),
        (criterion("ATLoss", at_pairs={}, mode="art"), "mode 'art'"),
        (
            criterion("CCKDLoss", student_linear_path="fc", teacher_linear_path="fc", kernel_config={"type": "cubic"}),
            "kernel 'cubic'",
        ),
    ],
)
def test_a_loss_with_other_settings_than_there_are_here_is_left_out(tmp_path, term, reason):
    found = imported(config(stage({"kd": KD, "it": term})), tmp_path)
    (told,) = (text for key, text in found.ledger.left_out.items() if key.endswith("it.criterion"))
    assert reason in told


def test_kl_without_cross_entropy_says_where_its_square_of_the_temperature_went(tmp_path):
    found = imported(config(stage({"ce": CE, "kd": criterion("KDLoss", **ENDS, temperature=4.0, alpha=0)})), tmp_path)
    (told,) = (text for key, text in found.ledger.differs.items() if "sub_terms.kd" in key)
    assert "divided by 4^2" in told
    assert experiment(found)["method"]["stages"]["distill"]["losses"]["kd"] == {"weight": 0.0625}


def test_paths_become_taps_that_are_there_or_new_ones(tmp_path):
    pairs = {
        "a": pair("layer3", "layer3"),
        "b": pair("layer2.1", "layer2.1", "input"),
        "c": pair("layer3.-1.relu", "layer3.-1.relu", "input"),
        "d": pair("layer2.0.downsample", "layer2.0.downsample"),
    }
    found = imported(config(stage({"at": criterion("ATLoss", at_pairs=pairs)})), tmp_path)
    reads = [term["inputs"]["student"] for term in terms(found).values()]
    assert reads == ["student.stage4", "student.layer2_1_in", "student.stage4_pre", "student.layer2_0_shortcut"]
    assert experiment(found)["student"]["taps"] == {
        "layer2_1_in": "layer2.1:in",
        "layer2_0_shortcut": "layer2.0.shortcut",
    }
    assert "a hook finds it overwritten" in found.ledger.differs["train.student.forward_hook.input"]


def test_class_weights_are_an_argument_of_the_loss(tmp_path):
    ce = deepcopy(CE)
    ce["criterion"]["kwargs"] = {"weight": [1.0] * 10}
    found = imported(config(stage({"ce": ce, "other": compared("layer1", "layer1", "HuberLoss")})), tmp_path)
    assert terms(found)["ce"]["loss"] == {"_target_": "torch.nn.CrossEntropyLoss", "weight": [1.0] * 10}


def test_own_folders_of_images_come_without_the_advice_for_imagenet(tmp_path):
    assert experiment(imported(config(stage({"kd": KD})), tmp_path))["dataset"]["get"] is None
    models = {"key": "resnet18", "kwargs": {"num_classes": 1000}}
    whole = config(stage({"kd": KD}), teacher=models, student=models)
    assert "get" not in experiment(imported(whole, tmp_path))["dataset"]


def test_frozen_modules_and_a_longer_way_through_the_network_are_taken_over(tmp_path):
    frozen = ["conv1", "layer1.0", "instance(BatchNorm2d)"]
    student = side(requires_grad=True, frozen_modules=frozen) | {"sequential": ["conv1", "relu", "layer1", "layer2"]}
    found = imported(config(stage({"at": compared("layer2", "layer2", "HuberLoss")}, student=student)), tmp_path)
    method = yaml.safe_load(found.files["method/mine.yaml"])["stages"]["distill"]
    assert method["freeze"] == ["student.conv1", "student.layer1.0", "student:torch.nn.BatchNorm2d"]
    assert method["redesign"] == {"student": ["conv1", "relu", "layer1", "layer2"]}
    assert "batch norms stay in eval mode" in found.ledger.differs["train.student.frozen_modules"]


@pytest.mark.slow
def test_a_hint_in_a_stage_of_its_own_is_fitnet(tmp_path):
    convreg = {"num_input_channels": 32, "num_output_channels": 32, "kernel_size": 1, "stride": 1, "padding": 0}
    path = ["conv1", "bn1", "relu", "layer1", "layer2"]
    hint = stage(
        {"hint": compared("+convreg", "layer2")},
        teacher=side(hooks=("layer2",), requires_grad=False) | {"sequential": path},
        student=side(
            hooks=("+convreg",), requires_grad=True, adaptations={"convreg": {"key": "ConvReg", "kwargs": convreg}}
        )
        | {"sequential": [*path, "+convreg"]},
        scheduler={"key": "MultiStepLR", "kwargs": {"milestones": [3], "gamma": 0.1}},
    )
    second = stage({"kd": KD}, num_epochs=3, optimizer={"key": "Adam", "kwargs": {"lr": "1e-3"}})
    del second["train_data_loader"]
    found = imported(config({"log_freq": 10, "stage1": hint, "stage2": second}), tmp_path)
    assert found.method == "fitnet" and not found.ledger.left_out
    content = experiment(found)
    assert content["method"]["params"] == {"tap": "stage3"}
    stages = content["method"]["stages"]
    module = stages["hint"]["adapters"]["regressor"]["module"]
    assert module == {"pointwise": True, "bias": True, "norm": True, "activation": True}
    assert stages["distill"]["optimizer"] == {"_target_": "torch.optim.Adam", "_partial_": True}
    assert (stages["distill"]["lr"], stages["distill"]["epochs"], stages["distill"]["select"]) == (0.001, 3, "best")
    # A new optimiser without a schedule has none, and does not go on with that of the stage before.
    assert stages["distill"]["scheduler"] == {"interval": "epoch", "schedule": None}
    assert "select" not in content["stage"] and content["runtime"]["log_every"] == 10


def test_an_optimiser_that_goes_on_is_not_said_twice(tmp_path):
    second = stage({"kd": KD})
    del second["optimizer"]
    found = imported(config({"stage1": stage({"ce": CE}), "stage2": second}), tmp_path)
    stages = yaml.safe_load(found.files["method/mine.yaml"])["stages"]
    assert list(stages["stage2"]) == ["losses", "select"]


def test_accumulation_and_clipping_are_taken_over(tmp_path):
    optimizer = {"key": "AdamW", "kwargs": {"lr": 0.1}, "grad_accum_step": 4, "max_grad_norm": 1.0}
    recipe = experiment(imported(config(stage({"kd": KD}, optimizer=optimizer)), tmp_path))["stage"]
    assert (recipe["accumulation_steps"], recipe["clip_grad_norm"]) == (4, 1.0)
    assert recipe["optimizer"] == {"weight_decay": 0.01}  # the default of torch, not of the file of this package


def test_a_schedule_by_polynomial_steps_is_the_one_of_torch(tmp_path):
    scheduler = {"key": "poly_lr_scheduler", "kwargs": {"num_iterations": 5, "num_epochs": 3}, "scheduling_step": 1}
    recipe = experiment(imported(config(stage({"kd": KD}, scheduler=scheduler)), tmp_path))["stage"]
    assert recipe["scheduler"] == {
        "interval": "step",
        "schedule": {
            "_target_": "torch.optim.lr_scheduler.PolynomialLR",
            "_partial_": True,
            "total_iters": 15,
            "power": 0.9,
        },
    }


def test_a_cache_of_outputs_and_the_way_it_differs(tmp_path):
    train = stage({"kd": KD})
    train["train_data_loader"]["cache_output"] = "./cached"
    found = imported(config(train), tmp_path)
    assert experiment(found)["cache"] == {"enabled": True, "views": 1, "folder": "./cached"}
    assert "cache.views" in found.ledger.differs["train.train_data_loader.cache_output"]


def test_training_without_a_teacher_is_the_method_of_labels(tmp_path):
    train = stage({"ce": CE}, model=side(requires_grad=True))
    del train["teacher"], train["student"]
    found = imported(config(train, teacher={}), tmp_path)
    assert found.method == "ce" and "model@teacher" not in options(found) and not found.ledger.left_out


@pytest.mark.parametrize(
    ("conf", "option", "loads"),
    [
        (
            {"key": "resnet18", "kwargs": {"num_classes": 10, "pretrained": True}},
            "resnet18",
            {"weights": "IMAGENET1K_V1"},
        ),
        (
            {"key": "resnet18", "kwargs": {"num_classes": 10, "weights": "IMAGENET1K_V1"}},
            "resnet18",
            {"weights": "IMAGENET1K_V1"},
        ),
        (
            {"key": "resnet20", "kwargs": {"num_classes": 10, "pretrained": True}},
            "resnet20",
            {"checkpoint": "${oc.env:DISTILL_WEIGHTS,weights}/cifar10-resnet20.pt"},
        ),
        (
            {"key": "densenet_bc_k12_depth100", "kwargs": {"num_classes": 10}, "src_ckpt": "~/t.pt"},
            "densenet_bc_100_12",
            {"checkpoint": "${oc.env:HOME}/t.pt"},
        ),
        (
            {"key": "wide_resnet40_4", "kwargs": {"num_classes": 10, "dropout_p": 0.0}, "src_ckpt": "t.pt"},
            "wrn_40_4_input",
            {"checkpoint": "t.pt"},
        ),
        ({"key": "alexnet", "kwargs": {"num_classes": 10}, "src_ckpt": "t.pt"}, "alexnet", {"checkpoint": "t.pt"}),
    ],
)
def test_networks_and_where_their_weights_come_from(tmp_path, conf, option, loads):
    found = imported(config(stage({"kd": KD}), teacher=conf), tmp_path)
    assert options(found)["model@teacher"] == option
    assert experiment(found)["teacher"] == loads and not found.ledger.left_out
    made = found.files.get(f"model/{option}.yaml")
    assert (made is None) == (option in ("resnet18", "resnet20", "densenet_bc_100_12"))
    if option == "wrn_40_4_input":
        net = yaml.safe_load(made)["net"]
        assert net == {
            "_target_": "distill_app.models.WideResNet",
            "depth": 40,
            "widening": 4,
            "shortcut": "input",
            "num_classes": "${dataset.num_classes}",
        }


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        ({"key": "fasterrcnn_resnet50_fpn", "kwargs": {}}, "detects objects"),
        ({"key": "deeplabv3_resnet50", "kwargs": {}}, "segments images"),
        ({"key": "bert", "tokenizer_kwargs": {}}, "reads text"),
        (
            {"key": "custom_resnet152", "kwargs": {"num_classes": 10}},
            "is no network of torchvision or of torchdistill's",
        ),
        ({"key": "resnet18", "kwargs": {"num_classes": 10}, "quantized": True}, "quantised"),
        ({"key": "mine", "kwargs": {"num_classes": 10}, "repo_or_dir": "me/repo"}, "torch.hub"),
    ],
)
def test_what_is_no_classification_or_cannot_be_built_is_refused(tmp_path, teacher, told):
    with pytest.raises(UsageError, match="teacher_model") as refused:
        imported(config(stage({"kd": KD}), teacher=teacher), tmp_path)
    assert told in str(refused.value)


def test_a_part_of_the_training_images_judges_the_epochs(tmp_path):
    whole = {"cifar": {"type": "CIFAR10", "splits": {}}}
    params = {"root": "~/data", "train": True, "download": True}
    crop = {"type": "RandomCrop", "params": {"size": 32, "padding": 4}}
    last = [{"type": "ToTensor"}, {"type": "Normalize", "params": {"mean": [0.5] * 3, "std": [0.2] * 3}}]
    parts = [
        {
            "dataset_id": "digits/train",
            "transform_params": [crop, {"type": "RandomHorizontalFlip", "params": {"p": 0.5}}, *last],
        },
        {"dataset_id": "val", "transform_params": last},
    ]
    division = {"lengths": [0.9, 0.1], "generator_seed": 42, "sub_splits": parts}
    whole["cifar"]["splits"] = {
        "dummy": {"dataset_id": "dummy", "params": params, "random_split": division},
        "test": {"dataset_id": "digits/val", "params": params | {"train": False, "transform_params": last}},
    }
    train = stage({"kd": KD})
    train["val_data_loader"]["dataset_id"] = "val"
    text = config(train)
    found = imported(yaml.safe_dump({"datasets": whole}) + text[text.index("models:") :], tmp_path)
    assert options(found)["dataset"] == "cifar10" and not found.ledger.left_out
    # The transforms are those of the shipped data set, and so are not said again.
    assert experiment(found)["dataset"] == {
        "normalize": {"mean": [0.5] * 3, "std": [0.2] * 3},
        "root": "${oc.env:HOME}/data",
        "validation_fraction": 0.1,
        "eval_batch_size": 8,
    }
    assert "the images are others" in found.ledger.differs["train.val_data_loader.dataset_id"]


def test_transforms_of_ones_own_and_those_behind_the_tensor_are_left_out(tmp_path):
    own = "!import_call {key: 'mine.Jitter', init: }, "
    late = ", !import_call {key: 'torchvision.transforms.RandomErasing', init: {kwargs: {p: 0.5}}}"
    text = config(stage({"kd": KD})).replace(
        "!import_call {key: 'torchvision.transforms.ToTensor', init: },",
        own + "!import_call {key: 'torchvision.transforms.ToTensor', init: }" + late + ",",
        1,
    )
    found = imported(text, tmp_path)
    assert [reason[:12] for reason in found.ledger.left_out.values()] == ["no transform", "images are n"]


def test_classes_of_terms_that_are_looked_up_by_name_are_there():
    import torch

    from distill_app import losses

    for classes in METHODS:
        assert all(hasattr(losses, name) or hasattr(torch.nn, name) for name in classes)


def test_a_config_is_not_changed_by_being_read(tmp_path):
    train = stage({"kd": KD})
    before = deepcopy(train)
    imported(config(train), tmp_path)
    assert train == before
