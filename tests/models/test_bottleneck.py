"""Split networks: the bottleneck, what crosses it, 8-bit quantisation, and freezing of the tail."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision.models import densenet121, mobilenet_v2, resnet18, resnet50, vgg11_bn
from torchvision.ops import FrozenBatchNorm2d

from distill_app.analysis.cut import cut_of
from distill_app.models import (
    Bottleneck,
    CifarResNet,
    cut_report,
    dequantize,
    detector,
    quantize,
    tiny_fasterrcnn,
    with_bottleneck,
)
from distill_app.networks.flops import flops
from distill_app.networks.network import Network
from distill_app.tasks import Detection
from distill_app.training.trainable import frozen_modules


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def kinds(module: nn.Module) -> list[str]:
    names = []
    for part in module:
        if isinstance(part, nn.Conv2d):
            names.append(f"conv {part.in_channels}->{part.out_channels}")
            assert part.kernel_size == (2, 2) and part.bias is None
        else:
            names.append(f"bn {part.num_features}" if isinstance(part, nn.BatchNorm2d) else "relu")
    return names


def test_layers_for_a_large_resnet_are_the_published_ones():
    bottleneck = Bottleneck((1, 64, 56, 56), (1, 256, 56, 56))
    encoder = "conv 64->64,bn 64,conv 64->256,bn 256,relu,conv 256->64,bn 64,conv 64->3"
    decoder = "bn 3,relu,conv 3->64,bn 64,conv 64->128,bn 128,relu,conv 128->256,bn 256,conv 256->256,bn 256,relu"
    assert kinds(bottleneck.encoder) == encoder.split(",")
    assert kinds(bottleneck.decoder) == decoder.split(",")
    assert all(part.padding == (1, 1) for part in bottleneck.encoder if isinstance(part, nn.Conv2d))
    assert all(part.padding == (0, 0) for part in bottleneck.decoder if isinstance(part, nn.Conv2d))
    feature = torch.randn(2, 64, 9, 9)
    assert bottleneck.encoder(feature).shape == (2, 3, 13, 13)
    assert bottleneck(feature).shape == (2, 256, 9, 9)


NETS = [
    (resnet18, "layer1"),
    (resnet18, "layer2"),
    (resnet18, "maxpool"),
    (resnet50, "layer1"),
    (mobilenet_v2, "features.3"),
    (mobilenet_v2, "features.-13"),
    (vgg11_bn, "features.6"),
    (densenet121, "features.transition1"),
    (lambda num_classes: CifarResNet(8, num_classes=num_classes, widths=(8, 16, 32)), "layer2"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "replace"), NETS)
@pytest.mark.parametrize("size", [64, 75])
def test_a_bottleneck_keeps_the_shape_and_all_other_names(make, replace, size):
    with torch.device("meta"):
        plain = make(num_classes=10)
        net = with_bottleneck(make(num_classes=10), replace=replace, image_size=size, channels=5)
        images = torch.zeros(2, 3, size, size)
    assert net.eval()(images).shape == (2, 10)
    path = cut_report(net, image_size=size).path
    kept = {name: value.shape for name, value in plain.state_dict().items() if not name.startswith(path + ".")}
    ours = {name: value.shape for name, value in net.state_dict().items()}
    assert all(ours[name] == shape for name, shape in kept.items())
    assert all(name.startswith((f"{path}.encoder", f"{path}.decoder")) for name in ours.keys() - kept.keys())
    shapes = []
    plain.eval().get_submodule(path).register_forward_hook(lambda m, a, out: shapes.append(out.shape))
    net.get_submodule(path).register_forward_hook(lambda m, a, out: shapes.append(out.shape))
    plain(images), net(images)
    assert shapes[0] == shapes[1]


def test_building_changes_no_mode_and_no_buffer_and_draws_nothing_for_the_rest():
    torch.manual_seed(0)
    plain = resnet18(num_classes=3)
    torch.manual_seed(0)
    net = with_bottleneck(resnet18(num_classes=3), replace="layer1", image_size=64)
    assert all(module.training for module in net.modules())
    state = net.state_dict()
    assert all(state[name].equal(v) for name, v in plain.state_dict().items() if not name.startswith("layer1"))


@pytest.mark.slow
def test_the_report_counts_the_bytes_that_cross():
    net = with_bottleneck(resnet50(), replace="layer1", image_size=224, channels=3)
    report = cut_report(net, image_size=224)
    crossing = []
    net.layer1.encoder.register_forward_hook(lambda module, args, out: crossing.append(out))
    with torch.no_grad():
        net.eval()(torch.randn(1, 3, 224, 224))
    assert report.shape == tuple(crossing[0].shape[1:]) == (3, 60, 60)
    assert report.float32 == crossing[0].numel() * 4 == 43200
    packed = quantize(crossing[0])
    parts = (packed.values, packed.scale, packed.low)
    assert report.eight_bit == sum(part.numel() * part.element_size() for part in parts) == 10808
    assert (report.image, report.original) == (150528, 64 * 56 * 56 * 4)
    assert "10,808 in 8 bits" in str(report) and report.smallest == report.shape
    with torch.no_grad():
        whole = flops(lambda: net(torch.zeros(1, 3, 224, 224)))
        head = flops(lambda: net.layer1.encoder(net.maxpool(net.conv1(torch.zeros(1, 3, 224, 224)))))
    assert (report.head_flops, report.head_flops + report.tail_flops) == (head, whole)
    assert f"{head / 1e9:.3g} GFLOPs before it" in str(report)


@pytest.mark.parametrize("architecture", ["fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn"])
def test_a_detector_of_torchvision_gets_the_published_bottleneck(architecture):
    with torch.device("meta"):
        plain = detector(architecture, num_classes=90)
        net = with_bottleneck(detector(architecture, num_classes=90), replace="backbone.body.layer1", image_size=800)
    bottleneck = net.backbone.body.layer1
    encoder = "conv 64->64,bn 64,conv 64->256,bn 256,relu,conv 256->64,bn 64,conv 64->3"
    decoder = "bn 3,relu,conv 3->64,bn 64,conv 64->128,bn 128,relu,conv 128->256,bn 256,conv 256->256,bn 256,relu"
    assert kinds(bottleneck.encoder) == encoder.split(",") and kinds(bottleneck.decoder) == decoder.split(",")
    feature = torch.zeros(1, 64, 200, 336, device="meta")
    assert bottleneck.encoder(feature).shape == (1, 3, 204, 340)
    assert bottleneck(feature).shape == (1, 256, 200, 336)
    inside = "backbone.body.layer1."
    kept = {name: value.shape for name, value in plain.state_dict().items() if not name.startswith(inside)}
    ours = {name: value.shape for name, value in net.state_dict().items() if not name.startswith(inside)}
    assert ours == kept
    norms = [part for part in net.modules() if isinstance(part, FrozenBatchNorm2d)]
    assert len(norms) == 53 - 10, "norms of the rest of the backbone are frozen, those of the bottleneck are not"
    assert sum(isinstance(part, nn.BatchNorm2d) for part in net.modules()) == 8


def test_the_report_of_a_detector_is_of_the_padded_size_of_each_image():
    net = tiny_fasterrcnn(num_classes=3, image_size=64, max_size=107)
    net = with_bottleneck(net, replace="backbone.body.layer1", image_size=64)
    network, task = Network("student", net, {}), Detection(num_classes=3)
    images = [torch.zeros(3, 48, 64), torch.zeros(3, 32, 64)]
    report = cut_of(task, network, ({"input": [image]} for image in images))
    # 48 x 64 becomes 64 x 85, 32 x 64 becomes 53 x 107: padded to multiples of 32, a quarter of it and 4 pixels more.
    assert report.images == 2 and (report.smallest, report.shape) == ((3, 20, 28), (3, 20, 36))
    assert report.float32 == 4 * 3 * 20 * 32 and report.eight_bit == 3 * 20 * 32 + 8
    assert report.image == 3 * 40 * 64 and report.original == 4 * 16 * 32 * 56
    assert 0 < report.head_flops < report.tail_flops
    assert "(3, 20, 28) to (3, 20, 36) cross" in str(report) and "means over 2 images" in str(report)
    assert cut_of(task, Network("teacher", tiny_fasterrcnn(num_classes=3, image_size=64), {}), []) is None


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_quantisation_is_off_by_half_a_step_at_most(scale):
    tensor = torch.randn(5, 3, 7, 7) * scale * torch.arange(1, 6).view(-1, 1, 1, 1) + 3 * scale
    packed = quantize(tensor)
    assert packed.values.dtype == torch.uint8 and packed.values.shape == tensor.shape
    back = dequantize(packed)
    rows, range_ = tensor.flatten(1), tensor.flatten(1).amax(1) - tensor.flatten(1).amin(1)
    error = (back.flatten(1) - rows).abs().amax(1)
    assert (error <= range_ / 510 * (1 + 1e-3)).all()
    assert (error > 0).all()


def test_quantisation_of_constants_gives_them_back():
    tensor = torch.full((2, 3, 2, 2), -1.5)
    assert dequantize(quantize(tensor)).equal(tensor)


def test_eight_bits_cross_in_eval_mode_only():
    bottleneck = Bottleneck((1, 4, 8, 8), (1, 8, 8, 8), quantized=True)
    feature = torch.randn(2, 4, 8, 8)
    exact = bottleneck.decoder.eval()(bottleneck.encoder.eval()(feature))
    quantized = bottleneck.eval()(feature)
    assert not quantized.equal(exact)
    torch.testing.assert_close(quantized, exact, atol=0.05, rtol=0.05)
    bottleneck.train()(feature).sum().backward()
    assert all(p.grad is not None for p in bottleneck.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replace": "layer9"}, "no module at 'layer9'"),
        ({"replace": "encoder.layers.2:tokens"}, "a tap of tokens"),
        ({"replace": "fc"}, "takes and gives maps"),
        ({"replace": "avgpool", "image_size": 96}, None),
        ({"channels": 0}, "at least one"),
        ({"replace": ""}, "the whole network"),
        ({"replace": "layer1.0.relu"}, "ran 2 times"),
    ],
)
def test_what_a_bottleneck_cannot_stand_for_is_refused_with_the_reason(changes, message):
    arguments = {"replace": "layer1", "image_size": 64, **changes}
    if message is None:  # three pixels to one: a stride of three
        assert with_bottleneck(resnet18(), **arguments).eval()(torch.zeros(1, 3, 96, 96)).shape == (1, 1000)
        return
    with pytest.raises(ValueError, match=message):
        with_bottleneck(resnet18(), **arguments)


def test_a_network_without_a_bottleneck_has_no_report():
    with pytest.raises(ValueError, match="has no bottleneck; put one in"):
        cut_report(resnet18(), image_size=64)


def frozen(entry: str) -> tuple[Network, list[nn.Module]]:
    network = Network("student", resnet18(num_classes=3), {"stage2": "layer2", "stage4_pre": "layer4.-1.relu:in"})
    plan = SimpleNamespace(key="k", conf=SimpleNamespace(freeze=[entry]), network=lambda role: role)
    return network, frozen_modules({"student": network}, plan)  # type: ignore[arg-type]


def test_freeze_takes_taps_where_no_module_has_the_name():
    network, modules = frozen("student.stage2")
    assert modules == [network.module.layer2]
    network, modules = frozen("student.stage4_pre")
    assert modules == [network.module.layer4[1].relu]


def test_freeze_takes_all_that_is_behind_a_module():
    network, modules = frozen("student.stage2:after")
    net = network.module
    held = {id(p) for module in modules for p in module.parameters()}
    assert held == {id(p) for part in (net.layer3, net.layer4, net.fc) for p in part.parameters()}


def test_freeze_refuses_what_is_neither_module_nor_tap():
    with pytest.raises(ValueError, match=r"k.freeze: 'student.stage9'.*taps: stage2"):
        frozen("student.stage9")
