"""The networks of this package: sizes, maps, initialisation."""

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2, resnet18, squeezenet1_1

from distill_app.models import (
    CifarDenseNet,
    CifarResNet,
    MobileNetV1,
    PlainCNN,
    SmallMobileNetV2,
    SmallShuffleNetV1,
    SmallShuffleNetV2,
    SmallVGG,
    WideResNet,
    small_stem,
)


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def weight_layers(net: nn.Module) -> int:
    """Layers as the papers count them: without projections."""
    counted = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return len([name for name in counted if "shortcut" not in name])


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110])
def test_cifar_resnet_has_as_many_layers_as_its_depth_says(depth):
    with torch.device("meta"):
        assert weight_layers(CifarResNet(depth, num_classes=10)) == depth


# Table 6 of He et al. 2016; its shortcuts have no parameters, ours 2752.
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_cifar_resnet_has_the_parameters_of_the_paper(depth, millions):
    with torch.device("meta"):
        count = parameters(CifarResNet(depth, num_classes=10)) - 2752
    assert count / 1e6 == pytest.approx(millions, abs=0.03 if depth == 110 else 0.0066)


def test_wide_variants_have_the_parameters_that_the_distillation_literature_reports():
    with torch.device("meta"):
        resnet8x4 = CifarResNet(8, num_classes=100, widths=(64, 128, 256), stem_width=32)
        assert parameters(resnet8x4) / 1e6 == pytest.approx(1.23, abs=0.005)
        assert parameters(WideResNet(16, num_classes=100, widening=2)) / 1e6 == pytest.approx(0.70, abs=0.005)
        assert parameters(WideResNet(40, num_classes=100, widening=1)) / 1e6 == pytest.approx(0.57, abs=0.005)
        assert parameters(WideResNet(40, num_classes=100, widening=2)) / 1e6 == pytest.approx(2.26, abs=0.005)


def test_mobilenet_v1_has_the_layers_and_parameters_of_the_paper():
    """Table 8 of Howard et al. 2017: 4.2 million; 27 convolutions and the linear layer."""
    with torch.device("meta"):
        net = MobileNetV1(num_classes=1000)
        assert parameters(net) == 4_231_976 and weight_layers(net) == 28
        assert parameters(MobileNetV1(num_classes=1000, width=0.5)) / 1e6 == pytest.approx(1.3, abs=0.05)


def test_shufflenet_v2_is_as_wide_as_asked_for():
    with torch.device("meta"):
        widths = [SmallShuffleNetV2(num_classes=100, width=width).fc.in_features for width in (0.5, 1, 1.5, 2.0)]
    assert widths == [1024, 1024, 1024, 2048]


# Table 2 of Huang et al. 2017, DenseNet-BC.
@pytest.mark.parametrize(("depth", "growth", "millions"), [(100, 12, 0.8), (250, 24, 15.3), (190, 40, 25.6)])
def test_densenet_bc_has_the_parameters_of_the_paper(depth, growth, millions):
    with torch.device("meta"):
        count = parameters(CifarDenseNet(depth, growth_rate=growth, num_classes=10))
    assert count / 1e6 == pytest.approx(millions, abs=0.06)


def test_a_depth_that_no_densenet_has_is_refused():
    with pytest.raises(ValueError, match="6n \\+ 4"):
        CifarDenseNet(101, growth_rate=12, num_classes=10)


def test_stem_stride_halves_every_map():
    images = torch.zeros(1, 3, 28, 28)
    for stride, sizes in ((1, [28, 14, 7]), (2, [14, 7, 4])):
        net = CifarResNet(8, num_classes=10, stem_stride=stride).eval()
        out, seen = net.relu(net.bn1(net.conv1(images))), []
        for stage in (net.layer1, net.layer2, net.layer3):
            out = stage(out)
            seen.append(out.shape[-1])
        assert seen == sizes


def test_convolutions_start_at_kaiming_variance():
    torch.manual_seed(0)
    for net in (CifarResNet(8, num_classes=10, widths=(64, 64, 64)), PlainCNN([64, 64], num_classes=10)):
        weight = [m for m in net.modules() if isinstance(m, nn.Conv2d)][1].weight
        assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


def test_plain_network_halves_the_resolution_per_width():
    net = PlainCNN([16, 32, 64], num_classes=10)
    assert parameters(net) == 24_346
    assert net.features(torch.zeros(2, 3, 28, 28)).shape == (2, 64, 4, 4)
    assert net(torch.zeros(2, 3, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CifarResNet(18, num_classes=10), "depth: got 18"),
        (lambda: CifarResNet(20, num_classes=10, widths=(16, 32)), r"widths: got \[16, 32\]"),
        (lambda: WideResNet(20, num_classes=10, widening=2), "depth: got 20"),
        (lambda: PlainCNN([], num_classes=10), "widths: got none"),
        (lambda: SmallVGG(12, num_classes=10), "depth: got 12, there is a VGG of depth 8, 11, 13, 16, 19"),
        (lambda: SmallMobileNetV2(num_classes=10, width=0.01), "width: got 0.01"),
        (lambda: MobileNetV1(num_classes=10, width=0.01), "width: got 0.01"),
        (lambda: SmallShuffleNetV1(num_classes=10, widths=(200, 400, 800)), r"widths: got \[200, 400, 800\]"),
        (lambda: SmallShuffleNetV2(num_classes=10, width=1.25), "width: got 1.25"),
        (lambda: small_stem(squeezenet1_1()), "got SqueezeNet"),
    ],
)
def test_impossible_architectures_are_refused(make, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        make()


def test_small_stem_keeps_the_resolution_of_small_images():
    images = torch.zeros(2, 3, 32, 32)
    resnet = small_stem(resnet18(num_classes=10)).eval()
    assert resnet.layer1(resnet.maxpool(resnet.conv1(images))).shape == (2, 64, 32, 32)
    assert resnet(images).shape == (2, 10)
    mobilenet = small_stem(mobilenet_v2(num_classes=10)).eval()
    assert mobilenet.features[0](images).shape[-1] == 32
    assert mobilenet.features(images).shape[-1] == 2
