"""Stems for small images: torchvision's networks shrink an image 32-fold, to one pixel of 32."""

from torch import nn
from torchvision.models import MobileNetV2, ResNet


def small_stem(net: nn.Module) -> nn.Module:
    """Gives a network of torchvision a stem that keeps the resolution; changes the network and returns it.

    A ResNet loses its max pooling, and its 7x7 convolution of stride 2 becomes a 3x3 one of stride 1: stages
    at H, H/2, H/4 and H/8. The first convolution of a MobileNetV2 gets stride 1: stages at H/2, H/4, H/8 and
    H/16.

    Args:
        net: A ResNet (wide and grouped ones too) or a MobileNetV2 of torchvision.

    Raises:
        ValueError: A network of another family.
    """
    if isinstance(net, ResNet):
        conv = nn.Conv2d(net.conv1.in_channels, net.conv1.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        net.conv1 = conv
        net.maxpool = nn.Identity()
    elif isinstance(net, MobileNetV2):
        net.get_submodule("features.0.0").stride = (1, 1)
    else:
        raise ValueError(
            f"net: got {type(net).__name__}, small_stem knows torchvision's ResNet and MobileNetV2; "
            "use the network without small_stem, or one of distill_app.models"
        )
    return net
