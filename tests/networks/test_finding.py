"""Taps that nobody wrote are found where the files of known families have them, or it is said why not."""

from pathlib import Path

import pytest
import torch
import torchvision
from net_fixtures import SeveralOutputs
from omegaconf import OmegaConf
from torch import Tensor, nn

from distill_app.config.groups import conf_dir
from distill_app.errors import SettingError, TapError
from distill_app.models import PlainCNN
from distill_app.networks.finding import Found, find_taps
from distill_app.networks.hooks import TappedModel
from distill_app.networks.taps import Tap, as_map
from distill_app.networks.tracing import seen, traced


def found(net: nn.Module, side: int = 32, *, classes: int | None = 10) -> Found:
    return find_taps(net, traced(net, [(3, side)]), num_classes=classes)


def read(net: nn.Module, taps: dict[str, str], side: int = 32) -> dict[str, Tensor]:
    with torch.no_grad(), TappedModel(net.eval(), taps) as tapped:
        return tapped(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)))


def plain(num_classes: int) -> nn.Module:
    return PlainCNN([8, 16], num_classes=num_classes)


class Tokens(nn.Module):
    """A ViT's skeleton with five tokens in front of the patches."""

    num_prefix_tokens = 5

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.ahead = nn.Parameter(torch.rand(1, 5, 8))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True) for _ in range(6))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.ahead.expand(len(tokens), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens)[:, 0])


class InPlace(nn.Module):
    """Changes its last map with a function that is no module, and classifies by a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.classifier = nn.Conv2d(16, 10, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu_(self.conv2(self.conv1(images)))
        return self.classifier(maps.mean((2, 3), keepdim=True))


class Answers(nn.Module):
    """Returns what is no tensor."""

    def __init__(self, answer: str):
        super().__init__()
        self.net, self.answer = PlainCNN([8, 16], num_classes=10), answer

    def forward(self, images: Tensor) -> object:
        logits = self.net(images)
        return {"dict": {"boxes": torch.zeros(2, 4), "out": logits}, "twice": {"out": logits * 2, "more": logits + 1}}[
            self.answer
        ]


@pytest.mark.parametrize(("family", "net"), [("resnet", "resnet18"), ("plain_2", None)])
def test_a_known_family_has_the_taps_of_its_file(family, net):
    module = (
        torchvision.models.get_model(net, weights=None, num_classes=10) if net else PlainCNN([8, 16], num_classes=10)
    )
    written = OmegaConf.to_container(OmegaConf.load(Path(conf_dir(), "model", "taps", f"{family}.yaml")))
    taps = found(module, 64).taps

    assert set(taps) == set(written)
    ours, theirs = read(module, taps, 64), read(module, written, 64)
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "net"),
    [
        ("convnext", "convnext_tiny"),
        ("mobilenet_v3_small", "mobilenet_v3_small"),
        ("shufflenet_v2", "shufflenet_v2_x1_0"),
        ("regnet", "regnet_y_400mf"),
        ("vit", "vit_b_32"),
        ("swin", "swin_t"),
    ],
)
def test_other_families_have_the_stages_of_their_files(family, net):
    module = torchvision.models.get_model(net, weights=None, num_classes=10)
    written = OmegaConf.to_container(OmegaConf.load(Path(conf_dir(), "model", "taps", f"{family}.yaml")))
    names = ["stage1", "stage2", "stage3", "stage4", "stage4_pre", "pooled", "logits"]
    taps = found(module, 224).taps
    ours = read(module, {name: taps[name] for name in names}, 224)
    theirs = read(module, {name: written[name] for name in names}, 224)
    for name in names:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)


def test_tokens_are_found_as_tokens_and_as_maps_by_quarters_of_the_blocks():
    net = Tokens()
    taps = found(net).taps
    assert [taps[f"stage{n}"] for n in (1, 2, 3, 4)] == [f"blocks.{n}:tokens5" for n in (1, 2, 4, 5)]
    assert (taps["tokens"], taps["pooled"], taps["logits"]) == ("norm", "head:in", "head")
    values = read(net, taps)
    assert values["tokens"].shape == (2, 21, 8) and values["stage1"].shape == values["stem"].shape == (2, 8, 4, 4)


def test_what_is_changed_in_place_afterwards_is_copied():
    net = InPlace()
    taps = found(net).taps
    assert taps["stage4"] == "conv2:clone" and taps["pooled"] == "classifier:in:flat"
    values = read(net, taps)
    assert (values["stage4"] < 0).any() and values["pooled"].shape == (2, 16) and values["logits"].shape == (2, 10)


def test_of_several_tensors_the_one_with_as_many_numbers_as_classes_is_the_answer():
    assert found(Answers("dict")).taps["logits"] == "net.fc"
    assert found(SeveralOutputs()).taps["logits"] == "fc"


def test_what_cannot_be_read_says_why_and_what_was_seen():
    net = Answers("twice")
    trace = traced(net, [(3, 32)])
    lost = find_taps(net, trace, num_classes=10)
    assert lost.missing["logits"] == "no module gives one of the tensors that it returns"
    assert "net.fc (Linear) (2, 10)" in seen(trace)
    assert found(PlainCNN([8, 16], num_classes=3)).missing["logits"] == "it returns no logits of 10 classes"
    squeezed = found(torchvision.models.squeezenet1_1(num_classes=10), 64)
    assert squeezed.taps["logits"] == "" and "classifier.1 takes (2, 512, 3, 3)" in squeezed.missing["pooled"]


def test_images_that_a_network_does_not_take_are_named():
    with pytest.raises(SettingError, match=r"does not run on images of 1 x 32 x 32, 4 x 32 x 32 \(RuntimeError: "):
        traced(PlainCNN([8], num_classes=10), [(1, 32), (4, 32)])
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))
    assert traced(net, [(3, 32), (3, 16)]).shape == (2, 3, 16, 16)


def test_a_large_network_is_read_without_numbers(monkeypatch):
    net = PlainCNN([8, 16], num_classes=10)
    expected = found(net)
    monkeypatch.setattr("distill_app.networks.tracing.LARGE", 0)
    monkeypatch.setattr("torch.rand", lambda *_: pytest.fail("it ran on numbers"))
    assert found(net) == expected


def test_looking_leaves_buffers_modes_and_random_state():
    net = PlainCNN([8, 16], num_classes=10).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    found(net)
    assert torch.equal(torch.rand(1), expected) and net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_a_tap_says_how_many_tokens_stand_in_front_and_makes_vectors():
    tokens = torch.arange(2 * 9 * 3.0).reshape(2, 9, 3)
    expected = tokens[:, 5:].transpose(1, 2).reshape(2, 3, 2, 2)
    assert torch.equal(as_map(tokens, Tap.parse("a", "blocks.1:tokens5")), expected)
    assert as_map(torch.zeros(2, 6, 1, 1), Tap.parse("a", "pool:flat")).shape == (2, 6)
    with pytest.raises(TapError, match="9 tokens are not a square of patches behind 1 others"):
        as_map(tokens, Tap.parse("a", "blocks.1:tokens1"))
    with pytest.raises(TapError, match="unknown option ':tokensx'"):
        Tap.parse("a", "blocks.1:tokensx")
    with pytest.raises(TapError, match="':flat' wants"):
        as_map([tokens], Tap.parse("a", "pool:flat"))
