"""Auxiliary wrappers of torchdistill become adapters, whose sizes are filled in."""

from typing import Any

import pytest
import yaml
from migration_fixtures import CE, ENDS, KD, compared, config, experiment, imported, pair, side, stage

OURS = "distill_app.adapters"
POOLED = {"path": "model.avgpool", "io": "output"}
LINEAR = {"linear_kwargs": {"in_features": 64, "out_features": 16, "bias": False}}


def criterion(key: str, weight: float = 1.0, **arguments: Any) -> dict[str, Any]:
    return {"criterion": {"key": key, "kwargs": arguments}, "weight": weight}


def wrapped(key: str, *, frozen: bool = False, trains: bool = True, **arguments: Any) -> dict[str, Any]:
    more = {"frozen_modules": ["model", "teacher_model"]} if frozen else {}
    return side(requires_grad=trains, auxiliary_model_wrapper={"key": key, "kwargs": arguments}, **more)


def conv(width: int, size: int = 1) -> dict[str, Any]:
    return {"in_channels": width, "out_channels": width, "kernel_size": size, "stride": 1, "padding": size // 2}


def made(found, stage: str = "distill") -> dict[str, Any]:
    adapters: dict[str, Any] = yaml.safe_load(found.files["method/mine.yaml"])["stages"][stage]["adapters"]
    return adapters


CASES = {
    "dab": (
        wrapped(
            "Connector4DAB",
            connectors={
                "a": {
                    "io": "output",
                    "path": "student_model.layer3",
                    "conv2d_kwargs": conv(64) | {"bias": False},
                    "bn2d_kwargs": {"num_features": 64},
                }
            },
        ),
        criterion(
            "AltActTransferLoss", feature_pairs={"a": pair("connector_dict.a", "layer3")}, margin=1.0, reduction="mean"
        ),
        {"a": ("ConvRegressor", {"pointwise": True, "bias": False, "norm": True}, "student.stage4", "teacher.stage4")},
    ),
    "vid": (
        wrapped(
            "VariationalDistributor4VID",
            regressors={
                "a": {
                    "io": "output",
                    "path": "student_model.layer3",
                    "kwargs": {
                        "in_channels": 64,
                        "middle_channels": 128,
                        "out_channels": 64,
                        "eps": 1e-5,
                        "init_pred_var": 5.0,
                    },
                }
            },
        ),
        criterion("VIDLoss", feature_pairs={"a": pair("regressor_dict.a", "layer3")}),
        {"a": ("VIDRegressor", {"hidden_channels": 128}, "student.stage4", "teacher.stage4")},
    ),
    "pad": (
        wrapped(
            "VarianceBranch4PAD",
            input_module={"path": "student_model.avgpool", "io": "output"},
            feat_dim=64,
            var_estimator_ckpt="v.pt",
        ),
        criterion("PADL2Loss", student_embed_module_path="student_model.avgpool", teacher_embed_module_path="avgpool"),
        {"log_variance": ("LogVarianceHead", {}, "student.pooled", "student.pooled")},
    ),
    "ickd": (
        wrapped(
            "Student4ICKD",
            embeddings={"a": {"path": "student_model.layer3", "io": "output", "in_channels": 64, "out_channels": 64}},
        ),
        criterion("ChSimLoss", 8.0, feature_pairs={"a": pair("embed_dict.a", "layer3")}),
        {
            "a": (
                "ConvRegressor",
                {"norm": True, "pointwise": True, "kernel_size": 3},
                "student.stage4",
                "teacher.stage4",
            )
        },
    ),
    "reviewkd": (
        wrapped(
            "Student4KnowledgeReview",
            abfs=[
                {
                    "path": f"student_model.layer{n}",
                    "io": "output",
                    "kwargs": {"in_channels": w, "mid_channels": 32, "out_channels": w},
                }
                for n, w in ((2, 32), (3, 64))
            ],
            sizes=[8, 16],
        ),
        criterion(
            "HierarchicalContextLoss",
            **ENDS | {"student_module_path": "abf_modules.0", "teacher_module_path": "layer3"},
        ),
        {"review5": ("ReviewFusion", {"max_channels": 32}, "student.stage4", "teacher.stage4")},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_wrapper_of_the_student_becomes_adapters(tmp_path, name):
    wrapper, term, expected = CASES[name]
    train = stage({"ce": CE, "other": compared("layer1", "layer1", "HuberLoss"), "it": term}, student=wrapper)
    found = imported(config(train), tmp_path)
    adapters = made(found)
    told = {
        key: (
            conf["module"].pop("_target_").removeprefix(f"{OURS}."),
            conf["module"],
            conf["source"],
            conf["target"],
        )
        for key, conf in adapters.items()
    }
    assert told == expected
    # Of the review one level is compared with nothing, which is told, and is no adapter.
    left = [key.rpartition(".")[2] for key in found.ledger.left_out]
    assert left == (["0"] if name == "reviewkd" else [])
    if name == "ickd":
        losses = yaml.safe_load(found.files["method/mine.yaml"])["stages"]["distill"]["losses"]
        assert losses["it"]["weight"] == 1.0, "8 by a batch of 8"


@pytest.mark.slow
def test_embeddings_of_both_networks_are_those_of_cckd(tmp_path):
    term = criterion(
        "CCKDLoss",
        0.5,
        student_linear_path="linear",
        teacher_linear_path="linear",
        kernel_config={"type": "gaussian", "gamma": 0.4, "max_p": 2},
        reduction="batchmean",
    )
    train = stage(
        {"ce": CE, "cc": term},
        teacher=wrapped("Linear4CCKD", input_module=POOLED, frozen=True, **LINEAR),
        student=wrapped("Linear4CCKD", input_module=POOLED, **LINEAR),
    )
    found = imported(config(train), tmp_path)
    assert found.method == "cckd" and not found.ledger.left_out
    changes = experiment(found)["method"]["stages"]["distill"]
    module = {"module": {"out_features": 16, "bias": False}}
    assert changes["adapters"] == {"student_embedding": module, "teacher_embedding": module}
    assert changes["losses"]["cckd"] == {"loss": {"norm": "frobenius", "normalize": False}, "weight": 0.5}


def test_norms_of_srd_belong_to_the_loss(tmp_path):
    norm = {"norm_kwargs": {"num_features": 64, "eps": 1e-3, "affine": False}}
    place = {"path": "model.layer3", "io": "output"}
    kinds = [f"{role}_{kind}_module" for role in ("student", "teacher") for kind in ("feature", "linear")]
    paths = {f"{kind}_path": "norm_layer" if "feature" in kind else "." for kind in kinds}
    edges = {f"{kind}_io": "output" for kind in kinds}
    term = criterion("SRDLoss", **paths, **edges, exponent=4.0, temperature=2.0)
    train = stage(
        {"ce": CE, "srd": term},
        teacher=wrapped("SRDModelWrapper", input_module=place, trains=False, **norm),
        student=wrapped(
            "SRDModelWrapper", input_module=place, linear_kwargs={"in_features": 64, "out_features": 64}, **norm
        ),
    )
    found = imported(config(train), tmp_path)
    losses = yaml.safe_load(found.files["method/mine.yaml"])["stages"]["distill"]["losses"]
    assert losses["kd"]["weight"] == 0.25, "without T^2"
    assert losses["srd"]["loss"] == {"_target_": "distill_app.losses.WhitenedLogDistance", "exponent": 4.0, "eps": 1e-3}
    assert losses["srd"]["inputs"] == {"student": "adapters.student_projection", "teacher": "teacher.pooled"}


@pytest.mark.slow
def test_a_paraphraser_lives_on_in_the_second_stage(tmp_path):
    sizes = {"kernel_size": 3, "stride": 1, "padding": 1, "uses_bn": False}
    given = {
        "minimal": None,
        "input_module_path": "teacher_model.layer3",
        "paraphraser_kwargs": {"k": 0.25, "num_input_channels": 64, **sizes},
        "paraphraser_ckpt": "p.pt",
    }
    factors = criterion("FTLoss", 100.0, p=1, reduction="mean")
    reconstructed = compared("paraphraser", "teacher_model.layer3")
    reconstructed["criterion_wrapper"]["kwargs"]["input"]["is_from_teacher"] = True
    first = stage(
        {"rebuilt": reconstructed},
        teacher=wrapped("Teacher4FactorTransfer", frozen=True, uses_decoder=True, **given),
        student=wrapped("EmptyModule", trains=False),
    )
    translator = {"num_input_channels": 64, "num_output_channels": 16, **sizes}
    second = stage(
        {"ce": CE, "ft": factors},
        teacher=wrapped("Teacher4FactorTransfer", trains=False, uses_decoder=False, **given),
        student=wrapped(
            "Student4FactorTransfer", input_module_path="student_model.layer3", translator_kwargs=translator
        ),
    )
    found = imported(config({"stage1": first, "stage2": second}), tmp_path)
    assert found.method == "ft" and not found.ledger.left_out
    changes = experiment(found)["method"]["stages"]
    assert changes["paraphrase"]["adapters"]["encoder"] == {"module": {"k": 0.25, "norm": False}}
    assert changes["distill"]["adapters"] == {"translator": {"module": {"norm": False}}}
    assert changes["distill"]["losses"] == {"ft": {"loss": {"p": 1}, "weight": 100.0}} or changes["distill"][
        "losses"
    ] == {"ft": {"weight": 100.0}}


@pytest.mark.slow
def test_rotations_of_sskd_are_its_method(tmp_path):
    head = {"input_module": POOLED, "feat_dim": 64, "ss_module_ckpt": "s.pt"}
    loader = stage({})["train_data_loader"] | {"dataset_wrapper": {"key": "SSKDDatasetWrapper", "kwargs": None}}
    pretext = stage(
        {"aux": criterion("AuxSSKDLoss")},
        train_data_loader=loader,
        teacher=wrapped("SSWrapper4SSKD", frozen=True, freezes_ss_module=False, **head),
        student=wrapped("EmptyModule", trains=False),
    )
    paths = {f"{role}_linear_module_path": "model.fc" for role in ("student", "teacher")}
    paths |= {f"{role}_ss_module_path": "ss_module" for role in ("student", "teacher")}
    settings = {"kl_temp": 4.0, "ss_temp": 0.5, "tf_temp": 4.0, "ss_ratio": 0.75, "tf_ratio": 1.0}
    term = criterion("SSKDLoss", **paths, **settings, loss_weights=[1.0, 0.9, 10.0, 2.7])
    second = stage(
        {"sskd": term},
        teacher=wrapped("SSWrapper4SSKD", trains=False, freezes_ss_module=True, **head),
        student=wrapped("SSWrapper4SSKD", freezes_ss_module=False, **head),
    )
    del second["train_data_loader"]
    found = imported(config({"stage1": pretext, "stage2": second}), tmp_path)
    assert found.method == "sskd" and not found.ledger.left_out
    stages = experiment(found)["method"]["stages"]
    assert all(stages[name]["wrappers"] == {"views": {"each": True}} for name in ("pretext", "distill"))


def test_an_adaptation_in_the_middle_is_left_out(tmp_path):
    adaptations = {"pool": {"key": "MaxPool2d", "kwargs": {"kernel_size": 2}}}
    teacher = side(requires_grad=False, adaptations=adaptations) | {"sequential": ["conv1", "+pool", "layer1"]}
    found = imported(config(stage({"kd": KD}, teacher=teacher)), tmp_path)
    assert "list it in redesign" in found.ledger.left_out["train.teacher.adaptations.pool"]
