"""Weights come from the first source that is there, fit exactly, and never run code."""

import os
import pickle
import traceback
import zipfile
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import (
    DenseNet,
    ResNet18_Weights,
    ShuffleNet_V2_X0_5_Weights,
    mnasnet0_5,
    shufflenet_v2_x0_5,
)

from distill_app.config.build import Builder
from distill_app.config.schema import ModelConf
from distill_app.errors import CheckpointError, ConfigError, WeightsError
from distill_app.models import PlainCNN
from distill_app.networks.origin import Origin
from distill_app.networks.weights import load_weights
from distill_app.runs import untrusted
from distill_app.runs.statefile import load_file

SHUFFLENET = {"_target_": "torchvision.models.shufflenet_v2_x0_5"}
PLAIN = {"_target_": "distill_app.models.PlainCNN"}


def plain(*, seed: int, num_classes: int = 10) -> PlainCNN:
    torch.manual_seed(seed)
    return PlainCNN([4, 8], num_classes=num_classes)


def load(net: nn.Module, *, conf=PLAIN, checkpoint=None, **more) -> Origin:
    checkpoint = None if checkpoint is None else str(checkpoint)
    return load_weights(net, ModelConf(net=conf, checkpoint=checkpoint, **more), key="student")


def same(net: nn.Module, other: nn.Module) -> bool:
    mine, theirs = net.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def rename(state, prefix: str):
    return {prefix + key: value for key, value in state.items()}


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty torch hub folder on a machine without a network."""

    def offline(url, *args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("under", [None, "model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_a_checkpoint_loads_from_every_common_layout(under, prefix, tmp_path):
    saved, net, path = plain(seed=0), plain(seed=1), tmp_path / "net.pt"
    state = rename(saved.state_dict(), prefix)
    torch.save(state if under is None else {under: state, "epoch": 3}, path)
    origin = load(net, checkpoint=path)
    assert (origin.source, origin.loaded) == (f"checkpoint {path}", True)
    assert same(net, saved)


def test_a_network_that_has_a_child_called_module_keeps_its_names(tmp_path):
    saved, net = nn.ModuleDict({"module": plain(seed=0)}), nn.ModuleDict({"module": plain(seed=1)})
    torch.save(saved.state_dict(), tmp_path / "net.pt")
    load(net, checkpoint=tmp_path / "net.pt")
    assert same(net, saved)


def test_a_file_url_is_a_path_and_other_urls_are_refused(tmp_path):
    saved, net, path = plain(seed=0), plain(seed=1), tmp_path / "a net.pt"
    torch.save(saved.state_dict(), path)
    assert load(net, checkpoint=path.as_uri()).loaded
    assert same(net, saved)
    with pytest.raises(ValueError, match=r"'https://example\.org/net\.pt'; give a path or a file:// URL"):
        load(net, checkpoint="https://example.org/net.pt")


def test_without_any_source_the_network_stays_as_it_was():
    net = plain(seed=1)
    origin = load(net)
    assert (str(origin), origin.loaded) == ("random initialisation", False)
    assert same(net, plain(seed=1))


def test_a_checkpoint_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match=r"student\.checkpoint: there is no file no/such\.pt"):
        load(plain(seed=1), checkpoint="no/such.pt")


def test_an_optional_checkpoint_that_is_not_there_is_passed_over_with_a_warning():
    net = plain(seed=1)
    origin = load(net, checkpoint="no/such.pt", checkpoint_optional=True)
    assert not origin.loaded
    assert origin.warning == "student.checkpoint: there is no file no/such.pt; instead: random initialisation"
    assert same(net, plain(seed=1))


def test_another_number_of_classes_is_named_as_the_cause(tmp_path):
    torch.save(plain(seed=0, num_classes=100).state_dict(), tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"fc.weight is \(100, 8\) in the file, \(10, 8\) here") as caught:
        load(plain(seed=1), checkpoint=tmp_path / "net.pt")
    assert "student.drop_head=true loads all but the classifier fc; or set num_classes=100" in str(caught.value)
    assert str(tmp_path / "net.pt") in str(caught.value)


def test_another_architecture_is_named_by_the_first_few_keys(tmp_path):
    state = plain(seed=0).state_dict()
    other = {"extra.weight": state.pop("fc.weight"), **state}
    torch.save(other, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"missing fc\.weight; unexpected extra\.weight.*another architecture"):
        load(plain(seed=1), checkpoint=tmp_path / "net.pt")
    torch.save({f"layer{i}": torch.zeros(1) for i in range(50)}, tmp_path / "net.pt")
    with pytest.raises(ValueError, match="layer3 and 46 more"):
        load(plain(seed=1), checkpoint=tmp_path / "net.pt")


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_with_code_is_refused_and_not_run(zipped, tmp_path):
    canary, path = tmp_path / "executed", tmp_path / "net.pt"
    content = {**plain(seed=0).state_dict(), "payload": Canary(canary)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"net\.pt .* could run code"):
        load(plain(seed=1), checkpoint=path)
    path.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(ValueError, match=r"net\.pt .* could run code"):
        load(plain(seed=1), checkpoint=path)
    assert not canary.exists()


@pytest.mark.parametrize("place", ["fifo", "/dev/zero"])
def test_weights_that_are_no_file_are_refused(place, tmp_path):
    path = tmp_path / "net.pt"
    os.mkfifo(path) if place == "fifo" else path.symlink_to(place)
    with pytest.raises(ValueError, match=r"student\.checkpoint: .*net\.pt is a (fifo|device), not a file"):
        load(plain(seed=1), checkpoint=path)


def test_a_link_to_weights_is_the_users_own_and_followed(tmp_path):
    torch.save(plain(seed=0).state_dict(), tmp_path / "blob")
    (tmp_path / "net.pt").symlink_to(tmp_path / "blob")
    net = plain(seed=1)
    load(net, checkpoint=tmp_path / "net.pt")
    assert same(net, plain(seed=0))


def test_small_weights_that_unpack_to_giants_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "net.pt"
    torch.save({"weight": torch.zeros(2**18)}, tmp_path / "plain")
    with zipfile.ZipFile(tmp_path / "plain") as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    monkeypatch.setattr(untrusted, "_COMPRESSED", 2**19)
    with pytest.raises(ValueError, match="is compressed, so that a small file may hold any size"):
        load(plain(seed=1), checkpoint=path)


def test_a_fifo_in_the_hub_folder_does_not_hang(hub):
    os.mkfifo(hub / Path(ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.url).name)
    with pytest.raises(ValueError, match=r"student\.weights: .* is a fifo"):
        load(shufflenet_v2_x0_5(), conf=SHUFFLENET, weights="DEFAULT")


def test_the_canary_would_have_fired(tmp_path):
    pickle.loads(pickle.dumps(Canary(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"no" * 500])
def test_a_damaged_checkpoint_is_named_and_never_replaced_by_chance(damage, tmp_path):
    path = tmp_path / "net.pt"
    torch.save(plain(seed=0).state_dict(), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"checkpoint: .*net\.pt is damaged"):
        load(plain(seed=1), checkpoint=path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([torch.zeros(1)], "a list"),
        ({"optimizer": {"lr": 0.1}, "epoch": 1}, "a dict of optimizer, epoch"),
    ],
)
def test_a_file_without_a_state_dict_says_what_it_holds(content, found, tmp_path):
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=rf"holds {found}; allowed: a state dict"):
        load(plain(seed=1), checkpoint=tmp_path / "net.pt")


@pytest.mark.parametrize("rebuilt", [True, False])
def test_mnasnet_loads_with_and_without_version_notes(rebuilt, tmp_path):
    saved, net = mnasnet0_5(num_classes=10), mnasnet0_5(num_classes=10)
    state = saved.state_dict()
    torch.save(rename(state, "") if rebuilt else state, tmp_path / "net.pt")
    load(net, checkpoint=tmp_path / "net.pt")
    assert same(net, saved)


def test_densenet_loads_files_with_the_old_names(tmp_path):
    saved, net = (DenseNet(4, (1, 2), 8, bn_size=2, num_classes=10) for _ in range(2))
    old = {}
    for key, value in saved.state_dict().items():
        for module in ("norm", "conv"):
            key = key.replace(f".{module}1.", f".{module}.1.").replace(f".{module}2.", f".{module}.2.")
        if not key.endswith("num_batches_tracked"):
            old[key] = value
    assert any(".denselayer1.norm.1." in key for key in old)
    torch.save(old, tmp_path / "net.pt")
    load(net, checkpoint=tmp_path / "net.pt")
    assert same(net, saved)


def save_published(hub: Path, *, num_classes: int = 1000) -> nn.Module:
    """Puts a network where torchvision would have downloaded it to."""
    published = shufflenet_v2_x0_5(num_classes=num_classes)
    torch.save(published.state_dict(), hub / Path(ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.url).name)
    return published


@pytest.mark.parametrize("name", ["IMAGENET1K_V1", "DEFAULT", "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"])
def test_published_weights_load_by_enum_name(name, hub):
    published, net = save_published(hub), shufflenet_v2_x0_5()
    origin = load(net, conf=SHUFFLENET, weights=name)
    assert origin.loaded
    assert str(origin) == f"weights {name} of torchvision.models.shufflenet_v2_x0_5"
    assert same(net, published)


def test_published_weights_leave_out_only_a_head_of_another_size(hub):
    published, net = save_published(hub), shufflenet_v2_x0_5(num_classes=10)
    head = net.fc.weight.clone()
    origin = load(net, conf={"_target_": "x", "net": SHUFFLENET}, weights="DEFAULT")
    assert origin.loaded
    assert str(origin).endswith("without the classifier fc (1000 classes in the file, 10 here)")
    assert set(origin.random) == {"fc.weight", "fc.bias"}
    assert torch.equal(net.fc.weight, head)
    net.fc = published.fc
    assert same(net, published)


def test_published_weights_that_fit_no_body_are_refused(hub):
    save_published(hub)
    net = shufflenet_v2_x0_5()
    net.conv1[0] = nn.Conv2d(3, 24, 5, bias=False)
    with pytest.raises(ValueError, match=r"other shapes: conv1\.0\.weight is \(24, 3, 3, 3\) in the file"):
        load(net, conf=SHUFFLENET, weights="DEFAULT")


def test_a_checkpoint_wins_over_published_weights(hub, tmp_path):
    save_published(hub)
    saved, net, path = shufflenet_v2_x0_5(), shufflenet_v2_x0_5(), tmp_path / "mine.pt"
    torch.save(saved.state_dict(), path)
    assert load(net, conf=SHUFFLENET, checkpoint=path, weights="DEFAULT").source == f"checkpoint {path}"
    assert same(net, saved)


def test_published_weights_stand_in_for_an_optional_checkpoint(hub):
    published, net = save_published(hub), shufflenet_v2_x0_5()
    origin = load(net, conf=SHUFFLENET, checkpoint="no.pt", checkpoint_optional=True, weights="DEFAULT")
    assert origin.warning.endswith("no file no.pt; instead: weights DEFAULT of torchvision.models.shufflenet_v2_x0_5")
    assert same(net, published)


def test_without_a_network_the_message_says_where_to_put_the_file(hub):
    with pytest.raises(
        ValueError, match=r"cannot download https://download\.pytorch\.org/.*no route to host"
    ) as caught:
        load(nn.Linear(1, 1), conf={"_target_": "torchvision.models.resnet18"}, weights="IMAGENET1K_V1")
    assert str(hub / Path(ResNet18_Weights.IMAGENET1K_V1.url).name) in str(caught.value)
    assert "set student.checkpoint" in str(caught.value)


def test_a_hostile_file_in_the_hub_folder_is_not_run(hub, tmp_path):
    canary = tmp_path / "executed"
    torch.save({"payload": Canary(canary)}, hub / Path(ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.url).name)
    with pytest.raises(ValueError, match="delete it and try again"):
        load(shufflenet_v2_x0_5(), conf=SHUFFLENET, weights="DEFAULT")
    assert not canary.exists()


NETS = {
    "network": SHUFFLENET | {"weights": "IMAGENET1K_V1"},
    "nested": {"_target_": "torch.nn.Sequential", "_args_": [SHUFFLENET | {"weights": "IMAGENET1K_V1"}]},
}


@pytest.mark.parametrize("conf", NETS.values(), ids=NETS)
def test_a_constructor_that_is_asked_for_weights_runs_no_hostile_file(conf, hub, tmp_path):
    canary = tmp_path / "executed"
    torch.save({"payload": Canary(canary)}, hub / Path(ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.url).name)
    with pytest.raises(ConfigError) as raised:
        Builder().build(conf, key="student.net")
    assert not canary.exists()
    told = "".join(traceback.format_exception(raised.value))
    assert "UnpicklingError: Trying to load unsupported GLOBAL posix.mkdir" in str(raised.value)
    assert not any(word in told for word in ADVICE), told


def test_constructors_load_published_weights_as_before(hub):
    published = save_published(hub)
    assert same(Builder().build(NETS["network"], key="student.net"), published)


ADVICE = ("weights_only", "will likely succeed", "trusted source", "trust the source")


@pytest.mark.parametrize("content", [b"", b"\x80\x02garbage", b"PK\x03\x04", b"\0" * 4096, b"{" * 100])
def test_no_message_of_torch_advises_to_load_unsafely(content, tmp_path):
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    for read in (lambda: load(plain(seed=1), checkpoint=path), lambda: load_file(path)):
        with pytest.raises((ValueError, CheckpointError)) as raised:
            read()
        told = "".join(traceback.format_exception(raised.value))
        assert "net.pt" in str(raised.value) and not any(word in str(raised.value) for word in ADVICE)
        assert "will likely succeed" not in told, "nor a traceback of it"


def test_a_download_is_checked_against_its_hash(hub, monkeypatch):
    asked = {}

    def download(url, file, hash_prefix=None, **kwargs):
        asked["hash"] = hash_prefix
        raise RuntimeError("invalid hash value")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(ValueError, match="not what torchvision published"):
        load(shufflenet_v2_x0_5(), conf=SHUFFLENET, weights="DEFAULT")
    assert asked["hash"] and asked["hash"] in ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.url


@pytest.mark.parametrize(
    ("conf", "weights", "message"),
    [
        (SHUFFLENET, "IMAGENET1K_V2", "has IMAGENET1K_V1, DEFAULT; nearest: student.weights=IMAGENET1K_V1"),
        (PLAIN, "DEFAULT", "net is built by distill_app.models.PlainCNN; set student.checkpoint"),
        ({"_target_": "torchvision.models.nothing"}, "DEFAULT", "no weights for torchvision.models.nothing"),
    ],
)
def test_weights_that_do_not_exist_are_refused(conf, weights, message):
    with pytest.raises(ValueError, match=message):
        load(nn.Linear(1, 1), conf=conf, weights=weights)


def test_weights_of_torchvision_are_found_by_the_name_of_the_network():
    net = {"_target_": "torchvision.models.get_model", "name": "resnet18", "num_classes": 10}
    with pytest.raises(WeightsError, match=r"torchvision\.models\.resnet18 has IMAGENET1K_V1, DEFAULT; nearest"):
        load_weights(nn.Linear(2, 2), ModelConf(net=net, weights="IMAGENET1K_V9"), key="student")
