"""Networks in two halves: head and tail, one behind the other, are the whole; as modules, as files, in 8 bits."""

import copy
import json
import shutil

import pytest
import torch
from deploy_fixtures import about, network_of
from torch import nn
from torchvision.models import mobilenet_v2

from distill_app.deploy.card import split_card
from distill_app.deploy.description import architecture_of
from distill_app.deploy.half import load_half, split_in
from distill_app.deploy.split import export_split, refuse_uncut
from distill_app.errors import ExportError, UsageError
from distill_app.models import CifarResNet, tiny_fasterrcnn, tiny_maskrcnn, tiny_retinanet, with_bottleneck
from distill_app.models.cut import bottleneck_of, cut_report
from distill_app.models.halves import Head, halves
from distill_app.networks.taps import tensors_in

SMALL = ("dataset=fake", "dataset.num_classes=6", "dataset.image_size=32", "model@student=cres_w32_bottleneck")
NOISE = torch.Generator().manual_seed(2)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def cres() -> nn.Module:
    net = CifarResNet(8, num_classes=5, widths=(8, 16, 32))
    return with_bottleneck(net, replace="layer2", image_size=32).eval()


def detector(make=tiny_maskrcnn) -> nn.Module:
    torch.manual_seed(0)
    return with_bottleneck(make(num_classes=3, image_size=64), replace="backbone.body.layer1", image_size=64).eval()


SEVERAL = [torch.rand(3, 50, 64, generator=NOISE), torch.rand(3, 64, 40, generator=NOISE)]


@pytest.mark.parametrize("eight_bits", [False, True])
@pytest.mark.parametrize(
    ("make", "images"),
    [
        pytest.param(cres, torch.randn(3, 3, 32, 32, generator=NOISE), id="residual"),
        pytest.param(detector, SEVERAL, id="maskrcnn"),
        pytest.param(lambda: detector(tiny_fasterrcnn), SEVERAL, id="fasterrcnn"),
        pytest.param(lambda: detector(tiny_retinanet), SEVERAL, id="retinanet"),
        pytest.param(
            lambda: with_bottleneck(mobilenet_v2(num_classes=3), replace="features.3", image_size=32).eval(),
            torch.randn(2, 3, 32, 32, generator=NOISE),
            id="sequential",
            marks=pytest.mark.slow,
        ),
    ],
)
@torch.no_grad()
def test_tail_behind_head_is_the_whole_to_the_bit_and_each_has_its_own_weights(make, images, eight_bits):
    net = make()
    before = copy.deepcopy(net.state_dict())
    head, tail = halves(net, images[:1], eight_bits=eight_bits)
    whole = copy.deepcopy(net)
    bottleneck_of(whole)[1].quantized = eight_bits
    message = head(images)
    assert {"values", "scale", "low"} <= message.keys() if eight_bits else "crossing" in message
    assert ("sizes" in message) == isinstance(images, list)
    said, expected = tensors_in(tail(**message)), tensors_in(whole(images))
    assert len(said) == len(expected) > 0
    assert all(mine.equal(theirs) for mine, theirs in zip(said, expected, strict=True))
    assert count(head) + count(tail) == count(net) and 0 < count(head) < count(tail)
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())
    assert not bottleneck_of(net)[1].quantized


@torch.no_grad()
def test_what_crosses_is_as_large_as_the_report_says():
    net = cres()
    report = cut_report(net, image_size=32)
    for eight_bits, size in ((False, report.float32), (True, report.eight_bit)):
        message = halves(net, torch.zeros(1, 3, 32, 32), eight_bits=eight_bits)[0](torch.zeros(1, 3, 32, 32))
        assert sum(tensor.nbytes for tensor in message.values()) == size


def test_a_network_that_quantises_by_itself_is_halved_so():
    net = cres()
    bottleneck_of(net)[1].quantized = True
    assert halves(net, torch.zeros(1, 3, 32, 32))[0].eight_bits


def test_halves_need_a_bottleneck():
    with pytest.raises(ValueError, match="has no bottleneck"):
        halves(CifarResNet(8, num_classes=5), torch.zeros(1, 3, 32, 32))
    with pytest.raises(UsageError, match=r"teacher has no cut.*method=ghnd or method=hnd"):
        refuse_uncut(CifarResNet(8, num_classes=5), name="teacher")
    with pytest.raises(RuntimeError, match="without crossing its cut"):
        Head(nn.Flatten(), eight_bits=False)(torch.zeros(1, 3, 4, 4))


class Bypassed(nn.Module):
    """A network whose images reach its end beside the bottleneck, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.fc = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Linear(3, 6)

    def forward(self, images):
        stem = self.stem(images)
        return self.fc((self.body(stem) + stem).mean((2, 3)))


def written(folder, *, eight_bits=False, net=None, images=None, told=None):
    app, network = network_of(*SMALL)
    told = {**about(app, network, to="split"), "cut": cut_report(network.module, image_size=32).described()}
    images = torch.randn(8, 3, 32, 32, generator=NOISE) if images is None else images
    return network.module, export_split(
        network.module if net is None else net,
        images,
        eight_bits=eight_bits,
        folder=folder,
        about={**told, "image": list(images[0].shape)},
        card=split_card,
        architecture=architecture_of(told, allow=[]),
    )


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The network, and its halves as files, by whether 8 bits cross."""
    made = {}

    def of(eight_bits):
        if eight_bits not in made:
            made[eight_bits] = written(tmp_path_factory.mktemp("split"), eight_bits=eight_bits)
        return made[eight_bits]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("eight_bits", [False, True])
def test_the_files_of_a_classifier_are_programs_that_answer_as_the_whole_on_any_batch(programs, eight_bits):
    net, made = programs(eight_bits)
    folder = made.files[0].parent
    assert [file.name for file in made.files] == ["head.pt2", "tail.pt2", "split.json", "README.md"]
    assert {file.name for file in folder.iterdir()} == {file.name for file in made.files}
    head, tail = (torch.export.load(folder / f"{part}.pt2") for part in ("head", "tail"))
    own = [sum(value.numel() for value in part.state_dict.values()) for part in (head, tail)]
    assert sum(own) <= sum(value.numel() for value in net.state_dict().values()) and own[0] < own[1]
    bottleneck_of(net)[1].quantized = eight_bits
    images = torch.randn(11, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(tail.module()(**head.module()(images)), net(images), rtol=1e-4, atol=1e-5)
    told = json.loads((folder / "split.json").read_text())
    assert told["message"]["values" if eight_bits else "crossing"]["shape"] == ["batch", 3, 20, 20]
    assert told["verified"]["batch_sizes"] == [1, 2, 5, 8] and "torch.export.load" in made.files[-1].read_text()


@pytest.mark.slow
def test_programs_are_loaded_where_that_is_allowed_and_damaged_files_are_not(programs, tmp_path):
    shutil.copytree(programs(False)[1].files[0].parent, tmp_path, dirs_exist_ok=True)
    told = split_in(tmp_path)
    how = {"architecture": nn.Identity}
    with pytest.raises(UsageError, match=r"is a program.*allow=\['torch.export.load'\]"):
        load_half(tmp_path, "head", told, allow=[], **how)
    half = load_half(tmp_path, "head", told, allow=["torch.export.load"], **how)
    assert half(torch.stack([half.preprocessing(torch.zeros(3, 32, 32, dtype=torch.uint8))]))["crossing"].shape[0] == 1
    with pytest.raises(UsageError, match="unknown part 'tial'; did you mean 'tail'"):
        load_half(tmp_path, "tial", told, allow=[], **how)
    (tmp_path / "tail.pt2").write_bytes(b"something else")
    with pytest.raises(UsageError, match=r"tail.pt2 is not the file that was exported"):
        load_half(tmp_path, "tail", told, allow=["torch.export.load"], **how)
    with pytest.raises(UsageError, match="holds no split"):
        split_in(tmp_path / "elsewhere")


@pytest.mark.slow
def test_what_passes_by_the_cut_is_an_error_and_leaves_no_file(tmp_path):
    net = with_bottleneck(Bypassed(), replace="body", image_size=32).eval()
    with pytest.raises(ExportError, match="something passes by the cut"):
        written(tmp_path / "split", net=net)
    assert list((tmp_path / "split").iterdir()) == []


def test_files_of_others_are_not_replaced(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UsageError, match=r"README.md is there and no split's"):
        written(tmp_path)
    (tmp_path / "README.md").rename(tmp_path / "tail.pt2")
    with pytest.raises(UsageError, match=r"tail.pt2 is there and no split's"):
        written(tmp_path)
    with pytest.raises(UsageError, match="a split is a folder"):
        written(tmp_path / "net.pt2")
