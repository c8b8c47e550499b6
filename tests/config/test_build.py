"""Objects from config: only from what is allowed, with arguments that are checked, as plain containers."""

import sys

import pytest
import torch
from torch import nn

from distill_app.config.build import Builder
from distill_app.errors import ConfigError

MODULE = """
from pathlib import Path
import torch

class Recorder:
    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs

class Strict:
    def __init__(self, first, *, temperature=1.0):
        self.first, self.temperature = first, temperature

def open_ended(**kwargs):
    return Strict(**kwargs)

def touch(path):
    Path(path).touch()

def late():
    import timm
    return timm

constant = 3
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the user's own, importable; its name."""
    folder = tmp_path / "users_own"
    folder.mkdir()
    (folder / "__init__.py").write_text(MODULE)
    (folder / "broken.py").write_text("import a_package_that_is_not_there\n")
    (folder / "worse.py").write_text("def (:\n")
    (folder / "needy.py").write_text("import timm\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder.name
    for name in [name for name in sys.modules if name.split(".")[0] == folder.name]:
        del sys.modules[name]


def errors(conf, *, allow=(), **context):
    with pytest.raises(ConfigError) as raised:
        Builder(allow).build(conf, key="student.net", **context)
    return raised.value.errors


def build(conf, *args, package, **context):
    return Builder([package]).build(conf, *args, key="student.net", **context)


@pytest.mark.parametrize(
    ("target", "argument"),
    [
        ("os.system", "command"),
        ("subprocess.run", "args"),
        ("builtins.eval", "source"),
        ("pathlib.Path.touch", "self"),
        ("hydra.utils.instantiate", "config"),
        ("torch.load", "f"),
        ("torch.serialization.load", "f"),
        ("torch.hub.load_state_dict_from_url", "url"),
        ("torch.utils.cpp_extension.load", "name"),
        # Allowed at the beginning, and then through modules that were only imported there.
        ("torch.nn.functional.torch.load", "f"),
        ("torch.optim.optimizer.torch.hub.load", "repo_or_dir"),
        ("torch.nn.modules.module.os.system", "command"),
        ("torchvision.datasets.folder.os.system", "command"),
        ("torchvision.models._api.load_state_dict_from_url", "url"),
        ("torchvision.datasets.utils.download_url", "url"),
        ("distill_app.networks.weights.torch.load", "f"),
        ("distill_app.launch.submitit.os.system", "command"),
        # This package has functions that write files; only its parts that build things are for configs.
        ("distill_app.launch.submitit.write_json", "path"),
        ("distill_app.runs.files.write_text", "path"),
        ("distill_app.cli.main", "argv"),
    ],
)
def test_what_builds_nothing_is_refused_and_not_called(target, argument, tmp_path):
    canary = tmp_path / "canary"
    conf = {"_target_": target, argument: f"touch {canary}"}
    outer = {"_target_": "torch.nn.Sequential", "_args_": [conf]}
    for each, key in ((conf, "student.net._target_"), (outer, "student.net._args_[0]._target_")):
        told = errors(each)
        assert any(error.startswith(f"{key}: ") and repr(target) in error for error in told), told
    assert not canary.exists()


def test_a_package_of_ones_own_is_refused_until_it_is_allowed(package, tmp_path):
    conf = {"_target_": f"{package}.touch", "path": str(tmp_path / "canary")}
    (error,) = errors(conf, allow=["timm"])
    assert f"'{package}.touch' is outside what may be built" in error
    assert f"'runtime.allow=[timm, {package}]'" in error
    assert not (tmp_path / "canary").exists()

    build(conf, package=package)
    assert (tmp_path / "canary").exists()


def test_an_allowed_package_does_not_open_what_it_imports(package):
    (error,) = errors({"_target_": f"{package}.torch.load", "f": "x"}, allow=[package])
    assert "leads to 'torch', outside what may be built" in error
    (error,) = errors({"_target_": f"{package}.Path", "f": "x"}, allow=[package])
    assert "leads to 'pathlib.Path', outside what may be built" in error


@pytest.mark.parametrize(
    "target",
    [
        "timm.models.load_state_dict",
        "timm.models._helpers.load_checkpoint",
        "timm.models.load_state_dict_from_hf",
        "timm.utils.setup_default_logging",
        "timm.data.create_dataset",
    ],
)
def test_what_is_allowed_of_timm_from_the_start_reads_and_writes_no_file_of_any_name(target):
    pytest.importorskip("timm")
    (error,) = errors({"_target_": target}, allow=["timm"])
    assert "outside what may be built" in error
    assert Builder(["timm"]).problems({"_target_": "timm.create_model", "model_name": "x"}, key="student.net") == []
    if target.startswith("timm.utils"):
        assert f"'runtime.allow=[timm, {target}]'" in error
        assert Builder(["timm", "timm.utils"]).locate(target, key="student.net")


@pytest.mark.parametrize("extra", [{}, {"source": "github"}, {"source": "github", "trust_repo": True}])
def test_torch_hub_runs_no_code_of_a_remote_repository(extra):
    conf = {"_target_": "torch.hub.load", "repo_or_dir": "owner/name:main", "model": "x", **extra}
    (error,) = errors(conf)
    assert error.startswith("student.net.repo_or_dir: torch.hub would run the code of 'owner/name:main'")
    assert "source: local" in error and "runtime.allow" in error


def test_torch_hub_is_refused_without_asking_the_network(monkeypatch):
    def asked(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", asked)
    monkeypatch.setattr("torch.hub.urlopen", asked)
    monkeypatch.setattr("builtins.input", asked)
    for repository in ("owner/name", "owner/name:main", "https://github.com/owner/name"):
        conf = {"_target_": "torch.hub.load", "repo_or_dir": repository, "model": "x"}
        (error,) = errors(conf, allow=["owner/name:1234abcd"])
        assert "torch.hub would run the code of" in error


def test_torch_hub_runs_the_one_commit_that_is_allowed(monkeypatch):
    called = []
    monkeypatch.setattr("torch.hub._get_cache_or_reload", lambda *args, **kwargs: called.append(args[0]))
    conf = {"_target_": "torch.hub.load", "repo_or_dir": "owner/name:1234abcd", "model": "x"}
    assert Builder(["owner/name:1234abcd"]).problems(conf, key="student.net") == []
    assert (
        len(Builder(["owner/name:1234abcd"]).problems({**conf, "repo_or_dir": "owner/name:5678"}, key="student.net"))
        == 1
    )
    assert len(Builder(["owner/name"]).problems({**conf, "repo_or_dir": "owner/name"}, key="student.net")) == 1
    assert called == []


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("torch.nn.MSELos", "unknown name 'MSELos'; did you mean 'MSELoss'? in torch.nn"),
        ("torchvision.model.resnet18", "unknown name 'model'; did you mean 'models'? in torchvision"),
        ("nowhere.Loss", "no package 'nowhere' is installed or lies in this folder"),
        ("users_own.broken.Loss", "importing users_own.broken raises ModuleNotFoundError: No module named 'a_package"),
        ("users_own.worse.Loss", "importing users_own.worse raises SyntaxError"),
        ("users_own.Recrder", "unknown name 'Recrder'; did you mean 'Recorder'? in users_own"),
    ],
)
def test_a_target_that_cannot_be_imported_is_told_with_the_reason(target, hint, package, capfd):
    (error,) = errors({"_target_": target}, allow=[package, "nowhere"])
    assert error.startswith(f"student.net._target_: cannot import {target!r}: ") and hint in error
    assert capfd.readouterr().err == ""  # Hydra's own import logs what it does not find


def test_a_target_must_be_something_to_call(package):
    (error,) = errors({"_target_": f"{package}.constant"}, allow=[package])
    assert error == "student.net._target_: 'users_own.constant' is a int, not something to call"


@pytest.mark.parametrize("conf", [None, "resnet", 3, [], {"num_classes": 3}, {"_target_": None}])
def test_a_config_must_say_what_to_build(conf):
    told = Builder().problems(conf, key="student.net")
    assert told == [f"student.net: needs a _target_, a dotted path to what shall be built; got {conf!r}"]


def test_arguments_are_checked_against_the_signature_all_at_once(package):
    told = errors({"_target_": f"{package}.Strict", "temperatur": 3}, allow=[package])
    assert told == [
        f"student.net.temperatur: unknown argument 'temperatur'; did you mean 'temperature'? "
        f"(there are: first, temperature) of {package}.Strict",
        f"student.net.first: {package}.Strict needs this argument; set it: 'student.net.first=...'",
    ]


def test_positional_arguments_of_the_config_and_of_the_program_count(package):
    assert build({"_target_": f"{package}.Strict", "_args_": [1]}, package=package).first == 1
    assert build({"_target_": f"{package}.Strict"}, 2, package=package).first == 2


def test_an_unknown_argument_behind_kwargs_gets_its_nearest_match(package):
    (error,) = errors({"_target_": f"{package}.open_ended", "first": 1, "temperatur": 3}, allow=[package])
    assert "unknown argument 'temperatur'; did you mean 'temperature'?" in error
    (error,) = errors({"_target_": "torchvision.models.resnet18", "num_clases": 3})
    assert error.startswith(
        "student.net: torchvision.models.resnet18: unknown argument 'num_clases'; did you mean 'num_cl"
    )


def test_an_error_of_a_nested_target_is_told_with_its_key():
    net = {"_target_": "torchvision.models.resnet18", "num_clases": 3}
    (error,) = errors({"_target_": "distill_app.models.small_stem", "net": net})
    assert error.startswith("student.net.net: torchvision.models.resnet18: unknown argument 'num_clases'; did you mean")


def test_an_error_among_positional_arguments_is_told_with_its_key():
    layers = [{"_target_": "torch.nn.ReLU"}, {"_target_": "torch.nn.Linear", "in_features": "x", "out_features": 2}]
    (error,) = errors({"_target_": "torch.nn.Sequential", "_args_": layers})
    assert error.startswith("student.net._args_.1: torch.nn.Linear: TypeError: ")


def test_an_error_of_the_constructor_is_told_with_what_was_given():
    (error,) = errors({"_target_": "torch.nn.Linear", "in_features": "many", "out_features": 2})
    assert error.startswith("student.net: torch.nn.Linear: TypeError: ")
    assert error.endswith("given: in_features='many', out_features=2")


def test_containers_arrive_as_plain_lists_and_dicts(package):
    nested = {"_target_": f"{package}.Recorder", "items": [{"a": [1]}]}
    built = build({"_target_": f"{package}.Recorder", "items": [1, {"b": 2}], "inner": nested}, package=package)
    assert type(built.kwargs["items"]) is list and type(built.kwargs["items"][1]) is dict
    assert type(built.kwargs["inner"].kwargs["items"][0]["a"]) is list


def test_the_program_adds_arguments_that_the_target_has_and_the_config_does_not_set(package):
    conf = {"_target_": f"{package}.Strict", "first": 1}
    assert build(conf, package=package, temperature=4.0, unheard_of=1).temperature == 4.0
    assert build({**conf, "temperature": 2.0}, package=package, temperature=4.0).temperature == 2.0
    assert build({"_target_": f"{package}.Recorder"}, package=package, temperature=4.0).kwargs == {}


def test_partial_is_a_partial_only_below_the_top(package):
    inner = {"_target_": f"{package}.Strict", "_partial_": True}
    built = build({"_target_": f"{package}.Recorder", "_partial_": True, "make": inner}, package=package)
    assert built.kwargs["make"](first=5).first == 5


def test_what_is_meant_to_be_built_is_built():
    assert isinstance(Builder().build({"_target_": "torch.nn.MSELoss"}, key="losses.kd.loss"), nn.MSELoss)
    optimizer = {"_target_": "torch.optim.SGD", "_partial_": True, "momentum": 0.9}
    assert Builder().build(optimizer, [torch.zeros(1)], key="optimizer", lr=0.5).param_groups[0]["lr"] == 0.5
    crop = Builder().build(
        {"_target_": "torchvision.transforms.v2.RandomCrop", "size": 8}, key="dataset.train_transform[0]"
    )
    assert list(crop.size) == [8, 8]


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"_target_": "timm.create_model"}, "student.net._target_: timm is not installed; "),
        (
            {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "timm.layers.SelectAdaptivePool2d"}]},
            "student.net._args_[0]._target_: timm is not installed; ",
        ),
        ({"_target_": "users_own.needy.Net"}, "importing users_own.needy raises ModuleNotFoundError: "),
        ({"_target_": "users_own.late"}, "student.net: users_own.late: ModuleNotFoundError: "),
        (
            {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "users_own.late"}]},
            "student.net._args_.0: users_own.late: ModuleNotFoundError: ",
        ),
    ],
)
def test_a_package_of_an_extra_that_is_missing_is_told_with_the_extra(package, monkeypatch, conf, message):
    for name in [name for name in sys.modules if name.split(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "timm", None)
    (error,) = errors(conf, allow=["timm", package])
    assert message in error and error.endswith("; pip install 'distill-app[timm]'")
