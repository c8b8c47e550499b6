"""Values of the wrong kind are errors with their key, keys that nothing reads are named, ends of modules are read."""

from copy import deepcopy

import pytest
from migration_fixtures import ENDS, KD, compared, config, experiment, imported, stage, terms

from distill_app.errors import UsageError


def criterion(key: str, weight: float = 1.0, **arguments):
    return {"criterion": {"key": key, "kwargs": arguments}, "weight": weight}


def set_at(tree: dict, key: str, value) -> None:
    *above, last = key.split(".")
    for name in above:
        tree = tree[name]
    tree[last] = value


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("num_epochs", "ten", "'ten' is no whole number"),
        ("num_epochs", [3], "[3] is no whole number"),
        ("num_epochs", float("inf"), "inf is no whole number"),
        ("num_epochs", 2.7, "2.7 is no whole number"),
        ("num_epochs", None, "null is no whole number"),
        ("num_epochs", True, "true is no whole number"),
        ("num_epochs", 0, "0 is less than 1"),
        ("train_data_loader.kwargs.batch_size", [8], "[8] is no whole number"),
        ("train_data_loader.kwargs.batch_size", None, "null is no whole number"),
        ("train_data_loader.kwargs.num_workers", "many", "'many' is no whole number"),
        ("train_data_loader.kwargs", 3, "3 is no mapping"),
        ("train_data_loader.sampler", 5, "5 is no mapping"),
        ("train_data_loader.dataset_id", ["digits/train"], "['digits/train'] is no text"),
        ("val_data_loader.kwargs.batch_size", "eight", "'eight' is no whole number"),
        ("val_data_loader.dataset_id", "other", "the data set 'other' is none of torchvision's"),
        ("student.frozen_modules", 7, "7 is no list of texts"),
        ("student.requires_grad", "no", "'no' is not true or false"),
        ("optimizer.max_grad_norm", "big", "'big' is no number"),
        ("optimizer.grad_accum_step", 1.5, "1.5 is no whole number"),
        ("optimizer.key", ["SGD"], "['SGD'] is no text"),
        ("optimizer.kwargs", 3, "3 is no mapping"),
        ("optimizer.kwargs.lr", "fast", "'fast' is no number"),
        ("scheduler", {"key": ["StepLR"], "kwargs": {}}, "scheduler.key: ['StepLR'] is no text"),
        ("scheduler", {"key": "StepLR", "kwargs": 3}, "scheduler.kwargs: 3 is no mapping"),
        ("criterion.key", ["WeightedSumLoss"], "['WeightedSumLoss'] is no text"),
        ("criterion.kwargs.sub_terms.kd.criterion.key", 5, "5 is no text"),
        ("criterion.kwargs.sub_terms.kd.criterion.kwargs.temperature", "hot", "'hot' is no number"),
        ("criterion.kwargs.sub_terms.kd.criterion.kwargs.student_module_io", "outptu", "neither input nor output"),
        ("criterion.kwargs.sub_terms.kd.weight", "much", "'much' is no number"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_its_key(tmp_path, key, value, told):
    train = deepcopy(stage({"kd": KD}))
    set_at(train, key, value)
    with pytest.raises(UsageError, match=rf"^train\.{key}[.:]") as refused:
        imported(config(train), tmp_path)
    assert told in str(refused.value)


@pytest.mark.parametrize("key", [["resnet20"], None, {"a": 1}])
def test_a_key_of_a_model_is_text(tmp_path, key):
    with pytest.raises(UsageError, match=r"^models\.teacher_model\.key: .* is no text"):
        imported(config(stage({"kd": KD}), teacher={"key": key, "kwargs": {"num_classes": 10}}), tmp_path)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("test:\n", []),
        ("test:\n  bar: 1\n", ["test.bar"]),
        ("test:\n  test_data_loader:\n    foo: 1\n", ["test.test_data_loader.foo"]),
        ("test:\n  test_data_loader:\n    kwargs: {zip: 1}\n", ["test.test_data_loader.kwargs.zip"]),
    ],
)
def test_keys_of_the_test_are_named(tmp_path, text, left):
    whole = config(stage({"kd": KD}))
    found = imported(whole[: whole.index("test:\n")] + text, tmp_path)
    assert list(found.ledger.left_out) == left


def test_keys_that_hold_an_anchor_are_read_where_it_is_referred_to_and_others_named(tmp_path):
    conf = {"key": "resnet20", "kwargs": {"num_classes": 10}, "_weights": "X"}
    found = imported(config(stage({"kd": KD}), teacher=conf), tmp_path)
    assert list(found.ledger.left_out) == ["models.teacher_model._weights"]
    text = config(stage({"kd": KD}), teacher=conf).replace("_weights: X", "_file: &file t.pt\n    src_ckpt: *file")
    found = imported(text, tmp_path)
    assert not found.ledger.left_out and experiment(found)["teacher"] == {"checkpoint": "t.pt"}


def test_what_is_built_is_not_named_by_an_argument(tmp_path):
    optimizer = {"key": "SGD", "kwargs": {"lr": 0.1, "_target_": "os.system", "more": {"_target_": "os.system"}}}
    found = imported(config(stage({"kd": KD}, optimizer=optimizer)), tmp_path)
    assert list(found.ledger.left_out) == [f"train.optimizer.kwargs.{key}" for key in ("_target_", "more")]
    assert "os.system" not in str(found.files)


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize(("path", "tap"), [("layer2", "layer2_in"), (".", None)])
def test_what_goes_into_a_module_is_read_or_told_to_be_none(tmp_path, role, path, tap):
    ends = {**ENDS, f"{role}_module_path": path, f"{role}_module_io": "input"}
    it = criterion("KDLoss", **ends, temperature=3.0)
    found = imported(config(stage({"other": compared("layer1", "layer1", "HuberLoss"), "it": it})), tmp_path)
    left = found.ledger.left_out
    if tap is None:
        assert list(left) == ["train.criterion.kwargs.sub_terms.it.criterion"] and "the input of '.'" in str(left)
    else:
        assert not left and terms(found)["it"]["inputs"][role] == f"{role}.{tap}"


@pytest.mark.parametrize(
    ("key", "kinds"),
    [
        ("PKTLoss", ["module"]),
        ("AffinityLoss", ["module"]),
        ("DISTLoss", ["module"]),
        ("SSKDLoss", ["linear_module", "ss_module"]),
        ("PADL2Loss", ["embed_module"]),
        ("DISTPlusLoss", ["logit_module", "feature_module"]),
        ("SRDLoss", ["feature_module", "linear_module"]),
        ("SKDDirectionLoss", ["module"]),
    ],
)
def test_every_loss_reads_which_end_of_a_module_is_meant(tmp_path, key, kinds):
    names = [f"{role}_{kind}" for role in ("student", "teacher") for kind in kinds]
    paths = {f"{name}_path": "layer3" for name in names}
    for name in names:
        term = criterion(key, **paths, **{f"{name}_io": "outptu"})
        with pytest.raises(UsageError, match=rf"\.{name}_io: 'outptu' is neither input nor output"):
            imported(config(stage({"it": term})), tmp_path)


@pytest.mark.parametrize("key", ["AuxSSKDLoss", "PADL2Loss"])
def test_a_module_beside_a_network_has_two_ends_too(tmp_path, key):
    paths = {f"{role}_embed_module_path": "layer3" for role in ("student", "teacher")} if key == "PADL2Loss" else {}
    with pytest.raises(UsageError, match=r"\.module_io: 'outptu' is neither input nor output"):
        imported(config(stage({"it": criterion(key, **paths, module_io="outptu")})), tmp_path)
