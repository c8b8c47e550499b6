"""Files of other trainers are read, with what was chosen told; other objects than data are refused by name."""

import argparse
import datetime
import pathlib
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from distill_app.config.schema import ModelConf
from distill_app.errors import WeightsError
from distill_app.models import PlainCNN
from distill_app.networks.origin import Origin
from distill_app.networks.weights import load_weights


def plain(seed: int, **more) -> PlainCNN:
    torch.manual_seed(seed)
    return PlainCNN([4, 8], **{"num_classes": 10, **more})


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    return dict(plain(seed).state_dict())


def behind(prefix: str, tensors: dict) -> OrderedDict:
    return OrderedDict((prefix + name, value) for name, value in tensors.items())


def load(net: nn.Module, path: pathlib.Path, **more) -> Origin:
    return load_weights(net, ModelConf(net={"_target_": "x"}, checkpoint=str(path), **more), key="student")


def loaded(content, tmp_path: pathlib.Path, **more) -> tuple[PlainCNN, str]:
    """A network that was filled from a file with this content, and what was told of it."""
    net = plain(1)
    torch.save(content, tmp_path / "net.pt")
    return net, str(load(net, tmp_path / "net.pt", **more))


def holds(net: nn.Module, tensors: dict) -> bool:
    return all(torch.equal(value, tensors[name]) for name, value in net.state_dict().items())


PREFIXES = ["module.", "model.", "backbone.", "net.", "student.", "module.encoder.", "a.b.c."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_of_all_names_is_taken_off_and_told(prefix, tmp_path):
    net, told = loaded({"state_dict": behind(prefix, state())}, tmp_path)
    assert holds(net, state())
    assert f"without the prefix '{prefix}'" in told


def test_wrappers_within_names_are_taken_off(tmp_path):
    inside = {name.replace("features.", "features._orig_mod."): value for name, value in state().items()}
    for content in (inside, behind("_orig_mod.module.", inside)):
        net, told = loaded(content, tmp_path)
        assert holds(net, state())
        assert "without '_orig_mod.' in names" in told


def test_what_lies_beside_the_network_is_left_out_and_told(tmp_path):
    content = {**behind("model.", state()), "loss.centers": torch.zeros(3), "n_averaged": torch.tensor(7)}
    net, told = loaded(content, tmp_path)
    assert holds(net, state())
    assert "without the 2 tensors of loss, n_averaged, which are beside it in the file" in told


def test_an_unknown_tensor_among_the_networks_own_is_an_error(tmp_path):
    with pytest.raises(WeightsError, match=r"unexpected extra\.weight"):
        loaded({**state(), "extra.weight": torch.zeros(3)}, tmp_path)
    with pytest.raises(WeightsError, match=r"unexpected extra\.weight"):
        loaded(behind("model.", {**state(), "extra.weight": torch.zeros(3)}), tmp_path)


def test_two_networks_in_one_state_dict_are_told_apart_by_a_key(tmp_path):
    both = {"state_dict": {**behind("student.", state(2)), **behind("teacher.", state(3))}}
    with pytest.raises(WeightsError, match=r"2 parts.*checkpoint_key=student, checkpoint_key=teacher"):
        loaded(both, tmp_path)
    assert holds(loaded(both, tmp_path, checkpoint_key="teacher")[0], state(3))
    assert holds(loaded(both, tmp_path, checkpoint_key="state_dict.student")[0], state(2))


NESTS = ["state_dict", "model", "net", "model_ema", "state_dict_ema", "ema", "weights", "params", "my_own_word"]


@pytest.mark.parametrize("nest", NESTS)
def test_weights_are_found_under_a_key_and_once_more(nest, tmp_path):
    for content in (
        {nest: state(), "epoch": 3},
        {"checkpoint": {nest: state(), "epoch": 3}, "optimizer": {"state": {}}},
    ):
        net, told = loaded(content, tmp_path)
        assert holds(net, state())
        assert nest in told


def test_of_several_a_key_chooses_and_else_the_weights_come_before_their_average(tmp_path):
    content = {"model_ema": behind("module.", state(2)), "model": state(3), "optimizer": {"state": {0: {}}}}
    net, told = loaded(content, tmp_path)
    assert holds(net, state(3))
    assert "of model, model_ema the weights under 'model'; checkpoint_key chooses" in told
    assert holds(loaded(content, tmp_path, checkpoint_key="model_ema")[0], state(2))
    with pytest.raises(WeightsError, match=r"student\.checkpoint_key: unknown place 'modle'; did you mean 'model'"):
        loaded(content, tmp_path, checkpoint_key="modle")


def test_what_does_not_look_like_the_network_is_no_choice(tmp_path):
    others = {"discriminator": {"conv.weight": torch.zeros(3)}, "rng_state": torch.zeros(3, dtype=torch.uint8)}
    net, told = loaded({**others, "generator": state()}, tmp_path)
    assert holds(net, state())
    assert "checkpoint_key" not in told


def test_plain_values_among_the_tensors_are_left_out_and_told(tmp_path):
    net, told = loaded({**state(), "epoch": 3, "arch": "plain"}, tmp_path)
    assert holds(net, state())
    assert "without epoch, arch, which are no tensors" in told


PLAIN = {
    "args": argparse.Namespace(lr=0.1, output=pathlib.Path("runs"), milestones=[30, 60]),
    "scalar": np.float64(91.2),
    "integer": np.int64(3),
    "flag": np.bool_(True),
    "array": np.arange(3.0),
    "posix": pathlib.PurePosixPath("/data"),
    "windows": pathlib.PureWindowsPath("C:/data"),
    "when": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
    "took": datetime.timedelta(seconds=3),
    "counts": defaultdict(int, a=3),
    "device": torch.device("cpu"),
    "dtype": torch.float16,
}


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("zipped", [True, False])
def test_plain_types_beside_the_weights_do_not_stand_in_the_way(kind, zipped, tmp_path):
    net = plain(1)
    torch.save({"model": state(), kind: PLAIN[kind]}, tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
    load(net, tmp_path / "net.pt")
    assert holds(net, state())


def test_numbers_of_an_older_numpy_are_read(tmp_path):
    path, net = tmp_path / "net.pt", plain(1)
    torch.save({"model": state(), "best": np.float64(91.2)}, path, _use_new_zipfile_serialization=False)
    old = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != path.read_bytes()
    path.write_bytes(old)
    load(net, path)
    assert holds(net, state())


class Settings:
    """A class of somebody's own."""


@pytest.mark.parametrize("zipped", [True, False])
def test_another_object_is_refused_by_its_class_with_what_to_do(zipped, tmp_path):
    torch.save({"model": state(), "args": Settings()}, tmp_path / "n.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"object of class \S*Settings, .*could run code; save the weights alone"):
        load(plain(1), tmp_path / "n.pt")


@pytest.mark.parametrize("content", [lambda net: net, lambda net: {"model": net, "epoch": 3}])
def test_a_whole_network_is_refused_with_how_to_convert_it(content, tmp_path):
    torch.save(content(plain(0)), tmp_path / "net.pt")
    with pytest.raises(
        WeightsError, match=r"whole network \(of class distill_app\.models\.\S*PlainCNN\).*state_dict\(\)"
    ):
        load(plain(1), tmp_path / "net.pt")


def test_an_array_of_objects_is_refused(tmp_path):
    torch.save({"model": state(), "names": np.array(["a", None], dtype=object)}, tmp_path / "net.pt")
    with pytest.raises(WeightsError):
        load(plain(1), tmp_path / "net.pt")


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_program_is_refused_by_name(tmp_path):
    torch.jit.save(torch.jit.trace(plain(0).eval(), torch.zeros(1, 3, 8, 8)), tmp_path / "net.pt")
    with pytest.raises(WeightsError, match="TorchScript program"):
        load(plain(1), tmp_path / "net.pt")


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_safetensors_load_whatever_their_suffix(suffix, tmp_path):
    save_file(behind("model.", state()), tmp_path / f"net.{suffix}")
    net = plain(1)
    load(net, tmp_path / f"net.{suffix}")
    assert holds(net, state())


def test_damaged_safetensors_are_told(tmp_path):
    save_file(state(), tmp_path / "net.safetensors")
    (tmp_path / "net.safetensors").write_bytes((tmp_path / "net.safetensors").read_bytes()[:-8])
    with pytest.raises(WeightsError, match=r"net\.safetensors is damaged"):
        load(plain(1), tmp_path / "net.safetensors")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_another_number_type_is_converted_and_told(kind, tmp_path):
    cast = {name: value.to(kind) if value.is_floating_point() else value for name, value in state().items()}
    net, told = loaded(cast, tmp_path)
    assert {value.dtype for value in net.parameters()} == {torch.float32}
    assert f"{str(kind).removeprefix('torch.')} cast to float32" in told
    assert torch.allclose(net.fc.weight, state()["fc.weight"], atol=1e-2)


def test_a_file_without_counters_of_batches_loads(tmp_path):
    versioned = plain(0).state_dict()
    for name in [name for name in versioned if name.endswith("num_batches_tracked")]:
        del versioned[name]
    net, _ = loaded(versioned, tmp_path)
    assert torch.equal(net.fc.weight, versioned["fc.weight"])


class TwoHeads(nn.Module):
    """A body with a classifier and an auxiliary one, which is defined last."""

    def __init__(self, num_classes: int, width: int = 4):
        super().__init__()
        self.body = nn.Linear(3, width)
        self.fc = nn.Linear(width, num_classes)
        self.aux = nn.Linear(width, num_classes)


def test_a_key_drops_classifiers_for_other_classes_and_nothing_else(tmp_path):
    net, old = TwoHeads(10), TwoHeads(1000)
    torch.save({"model": behind("module.", old.state_dict())}, tmp_path / "net.pt")
    fc = net.fc.weight.clone()
    with pytest.raises(WeightsError, match=r"student\.drop_head=true loads all but the classifier fc"):
        load(net, tmp_path / "net.pt", taps={"logits": "fc"})
    origin = load(net, tmp_path / "net.pt", taps={"logits": "fc"}, drop_head=True)
    assert "without the classifier fc and aux (1000 classes in the file, 10 here)" in str(origin)
    assert torch.equal(net.body.weight, old.body.weight) and torch.equal(net.fc.weight, fc)
    assert {name.split(".")[0] for name in origin.random} == {"fc", "aux"}


def test_a_file_without_a_classifier_loads_with_the_same_key(tmp_path):
    body = {name: value for name, value in state().items() if not name.startswith("fc.")}
    with pytest.raises(WeightsError, match=r"missing fc\.weight, fc\.bias.*student\.drop_head=true"):
        loaded(body, tmp_path)
    net, told = loaded(behind("backbone.", body), tmp_path, drop_head=True)
    assert "without the classifier fc (none in the file)" in told
    assert all(torch.equal(net.state_dict()[name], value) for name, value in body.items())


def test_dropping_the_classifier_excuses_no_other_difference(tmp_path):
    torch.save(TwoHeads(1000, width=5).state_dict(), tmp_path / "net.pt")
    with pytest.raises(WeightsError, match=r"other shapes: body\.weight is \(5, 3\) in the file, \(4, 3\) here"):
        load(TwoHeads(10), tmp_path / "net.pt", taps={"logits": "fc"}, drop_head=True)


def test_a_classifier_that_fits_is_kept(tmp_path):
    net, told = loaded(state(), tmp_path, drop_head=True)
    assert holds(net, state())
    assert "without" not in told
