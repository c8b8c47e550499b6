"""The hook engine alone: paths, edges, calls, layouts, the early stop, and what must not be disturbed."""

from collections import Counter

import pytest
import torch
import torchvision
from torch import Tensor, nn

from distill_app.errors import TapError
from distill_app.networks.hooks import TappedModel
from distill_app.networks.modes import untouched
from distill_app.networks.taps import Tap, resolve, shapes_in, tensors_in


class Small(nn.Module):
    """A convolution, an in-place ReLU that is called twice, and a head with a nested output."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.blocks = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 5, 1))
        self.head = Nested()

    def forward(self, x):
        x = self.relu(self.bn(self.conv(x)))
        x = self.blocks(x)
        return self.head(self.relu(x))


class Nested(nn.Module):
    def forward(self, x):
        return {"levels": [x, x.mean((2, 3))], "extra": (x.sum(),)}


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small().eval()


def count_calls(model: nn.Module) -> Counter:
    """Counts how often each leaf module runs."""
    calls: Counter = Counter()
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_pre_hook(lambda module, args, name=name: calls.update([name]))
    return calls


def test_taps_equal_what_the_modules_computed(small, images):
    with TappedModel(small, {"conv": "conv", "last": "blocks.-1:clone", "second": "blocks.1:in"}) as tapped:
        taps = tapped(images)
    conv = small.conv(images)
    assert torch.equal(taps["conv"], conv)
    first = small.blocks[0](torch.relu(small.bn(conv)))
    assert torch.equal(taps["second"], first)
    assert torch.equal(taps["last"], small.blocks[1](first))


def test_nested_output_and_whole_network(small, images):
    with TappedModel(small, {"head": "head", "output": ""}) as tapped:
        taps = tapped(images)
    assert shapes_in(taps["head"]) == {"levels": [(2, 5, 8, 8), (2, 5)], "extra": [()]}
    assert all(torch.equal(a, b) for a, b in zip(tensors_in(taps["head"]), tensors_in(taps["output"]), strict=True))


def test_pre_activation_survives_an_in_place_relu_and_the_output_is_unchanged(images):
    model = torchvision.models.resnet18(num_classes=5).eval()
    expected = model(images.repeat(1, 1, 4, 4))
    with TappedModel(model, {"pre": "layer4.-1.relu:in", "post": "layer4", "output": ""}) as tapped:
        taps = tapped(images.repeat(1, 1, 4, 4))
        assert (taps["pre"] < 0).any()
        assert torch.equal(torch.relu(taps["pre"]), taps["post"])
        assert torch.equal(taps["output"], expected)
    assert model.layer4[-1].relu.inplace


def test_last_call_by_default_and_all_on_request(small, images):
    with TappedModel(small, {"last": "relu", "every": "relu:all"}, stop=False) as tapped:
        taps = tapped(images)
        assert tapped.calls("last") == 2
    assert len(taps["every"]) == 2
    assert torch.equal(taps["every"][1], taps["last"])
    assert taps["every"][0].shape != taps["last"].shape


def test_in_place_change_after_capture_is_an_error_that_names_the_module_and_clone_mends_it(small, images):
    told = pytest.raises(TapError, match=r"student in stage 'hint'.*bn:out was changed in place.*bn:out:clone")
    with TappedModel(small, {"bn": "bn"}, stop=False, owner="student in stage 'hint'") as tapped, told:
        tapped(images)
    with TappedModel(small, {"bn": "bn:out:clone"}, stop=False) as tapped:
        assert torch.equal(tapped(images)["bn"], small.bn(small.conv(images)))


def test_forward_stops_after_the_last_tap_with_equal_losses_and_gradients(small, images):
    small.train()
    with TappedModel(small, {"mid": "blocks.0"}, stop=False) as full:
        full(images)["mid"].square().mean().backward()
    expected = {name: p.grad.clone() for name, p in small.named_parameters() if p.grad is not None}
    small.zero_grad()
    with TappedModel(small, {"mid": "blocks.0"}) as tapped:
        tapped.probe(images)
        calls = count_calls(small)
        tapped(images)["mid"].square().mean().backward()
        assert tapped.stops_at == "mid"
    assert calls == {"conv": 1, "bn": 1, "relu": 1, "blocks.0": 1}
    gradients = {name: p.grad for name, p in small.named_parameters() if p.grad is not None}
    assert gradients.keys() == expected.keys()
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)


def test_probe_leaves_buffers_and_random_state_alone(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    state = torch.get_rng_state()
    with TappedModel(model, {"bn": "1"}) as tapped:
        tapped.probe(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_untouched_restores_buffers_when_the_block_raises():
    module = nn.BatchNorm1d(2).train()
    with pytest.raises(RuntimeError, match="on purpose"), untouched(module):
        module(torch.randn(4, 2))
        raise RuntimeError("on purpose")
    assert module.num_batches_tracked == 0


class Varying(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.swap = False

    def forward(self, x):
        first, second = (self.b, self.a) if self.swap else (self.a, self.b)
        return second(first(x)).relu()


def test_varying_order_falls_back_to_the_full_forward():
    model = Varying()
    x = torch.randn(3, 2)
    with TappedModel(model, {"a": "a", "b": "b"}) as tapped:
        tapped(x)
        assert tapped.stops_at == "b"
        model.swap = True
        taps = tapped(x)
        assert torch.equal(taps["b"], model.b(x))
        assert torch.equal(taps["a"], model.a(taps["b"]))
        assert tapped.stops_at is None
        assert set(tapped(x)) == {"a", "b"}


def test_train_and_eval_learn_their_own_order(images):
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.aux = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            x = self.trunk(x)
            return self.aux(x) if self.training else x.relu()

    with TappedModel(Auxiliary(), {"trunk": "trunk"}) as tapped:
        tapped.train()(images)
        tapped.eval()(images)
        assert tapped.stops_at == "trunk"
        assert set(tapped.train()(images)) == {"trunk"}


def test_a_tap_that_is_the_networks_output_needs_no_stop(images):
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1))
    for taps, stops_at in (({"last": "1"}, None), ({"first": "0"}, "first")):
        with TappedModel(net, taps) as tapped:
            tapped(images)
            assert tapped.stops_at == stops_at
            assert torch.equal(tapped(images)[next(iter(taps))], net[0](images) if stops_at else net(images))


def test_module_that_never_runs_is_named(small, images):
    small.unused = nn.Linear(1, 1)
    with TappedModel(small, {"gone": "unused"}, owner="teacher") as tapped, pytest.raises(TapError) as error:
        tapped(images)
    assert "'gone' of teacher" in str(error.value) and "unused:out never ran" in str(error.value)


def test_wrong_paths_are_all_reported_with_the_nearest(small):
    with pytest.raises(TapError) as error:
        TappedModel(small, {"a": "block.0", "b": "blocks.7", "c": "conv"})
    message = str(error.value)
    assert "tap 'a'" in message and "blocks.0" in message
    assert "tap 'b'" in message and "tap 'c'" not in message


def test_unknown_option_is_refused():
    with pytest.raises(TapError, match=r"unknown option ':input'.*known"):
        Tap.parse("x", "layer1:input")


@pytest.mark.slow
def test_layouts_give_maps_of_tokens_and_channels_last(images):
    vit = torchvision.models.VisionTransformer(
        image_size=8, patch_size=2, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=3
    ).eval()
    taps = {"map": "encoder.layers.-1:tokens", "tokens": "encoder.layers.-1"}
    with TappedModel(vit, taps) as tapped:
        values = tapped(images)
    assert values["map"].shape == (2, 8, 4, 4)
    assert torch.equal(values["map"][:, :, 1, 2], values["tokens"][:, 1 + 1 * 4 + 2])
    swin = torchvision.models.swin_t(num_classes=3).eval()
    with TappedModel(swin, {"map": "features.1:nhwc", "raw": "features.1"}) as tapped:
        values = tapped(images.repeat(1, 1, 4, 4))
    assert torch.equal(values["map"], values["raw"].permute(0, 3, 1, 2))


def test_tokens_that_are_no_square_are_refused():
    with TappedModel(nn.Identity(), {"x": ":tokens"}) as tapped, pytest.raises(TapError, match="not a square"):
        tapped(torch.randn(1, 8, 4))


def test_hooks_return_nothing_and_close_removes_them(small, images):
    expected = tensors_in(small(images))
    tapped = TappedModel(small, {"conv": "conv:out", "relu": "relu:in"})
    tapped(images)
    tapped.close()
    assert all(torch.equal(a, b) for a, b in zip(tensors_in(small(images)), expected, strict=True))
    assert small.relu.inplace
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in small.modules())


def test_wrappers_are_looked_through(small):
    wrapped = nn.DataParallel(small)
    assert resolve(wrapped, "conv") is small.conv
    assert resolve(wrapped, "module.blocks.-1") is small.blocks[1]


def test_stop_of_one_network_does_not_end_another(small, images):
    outer = TappedModel(nn.Sequential(nn.Identity(), Inner(TappedModel(small, {"mid": "conv"}))), {"end": "1"})
    outer(images)
    assert outer(images)["end"].shape == (2, 4, 8, 8)


class Inner(nn.Module):
    def __init__(self, tapped):
        super().__init__()
        self.tapped = tapped

    def forward(self, x):
        return self.tapped(x)["mid"]


@pytest.fixture(scope="module")
def detector() -> nn.Module:
    torch.manual_seed(0)
    make = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn
    return make(weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64).eval()


def test_detector_taps_fpn_levels_and_every_rpn_call(detector):
    taps = {"fpn": "backbone", "rpn": "rpn.head.conv:all", "body": "backbone.body"}
    with TappedModel(detector, taps) as tapped, torch.no_grad():
        values = tapped([torch.rand(3, 64, 64)])
    assert list(values["fpn"]) == ["0", "1", "pool"]
    assert len(values["rpn"]) == 3
    assert list(values["body"]) == ["0", "1"]


def test_detector_stops_after_the_backbone(detector):
    calls = count_calls(detector)
    with TappedModel(detector, {"fpn": "backbone"}) as tapped, torch.no_grad():
        full = tapped([torch.ones(3, 64, 64)])
        assert any(name.startswith("roi_heads") for name in calls)
        calls.clear()
        short = tapped([torch.ones(3, 64, 64)])
    assert not any(name.startswith(("rpn", "roi_heads")) for name in calls)
    assert all(torch.equal(full["fpn"][level], short["fpn"][level]) for level in full["fpn"])


def test_bare_network_runs_in_full_and_the_early_stop_outlives_it(small, images):
    with TappedModel(small, {"conv": "conv"}) as tapped:
        tapped.probe(images)
        expected = tensors_in(small(images))
        assert len(expected) == 3
        calls = count_calls(small)
        tapped(images)
        assert calls == {"conv": 1}
