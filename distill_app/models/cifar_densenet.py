"""Densely connected networks for small images."""

from torch import nn
from torchvision.models import DenseNet


class CifarDenseNet(DenseNet):
    """DenseNet-BC of CIFAR: torchvision's, with three equal blocks and a 3x3 stem that keeps the resolution.

    Huang et al. 2017, section 4, https://arxiv.org/abs/1608.06993: bottleneck layers, transitions that halve the
    channels, 2 x growth_rate channels after the stem. Names and initialisation are torchvision's, as those of the
    files of torchdistill.

    Args:
        depth: 6n + 4.
        growth_rate: Channels that a layer adds.
        num_classes: Size of the output.
        drop_rate: The share of a layer's output that is dropped in training.
        memory_efficient: Computes layers again in the backward pass: less memory, more time.
        in_channels: Of the images.

    Shapes: images (B, in_channels, H, W) to logits (B, num_classes); blocks at H, H/2 and H/4.

    Raises:
        ValueError: A depth other than 6n + 4.
    """

    def __init__(
        self,
        depth: int,
        *,
        growth_rate: int,
        num_classes: int,
        drop_rate: float = 0.0,
        memory_efficient: bool = False,
        in_channels: int = 3,
    ):
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth: got {depth}, a DenseNet-BC of CIFAR has 6n + 4 layers: 40, 100, 190, 250, ...")
        layers = (depth - 4) // 6
        super().__init__(
            growth_rate=growth_rate,
            block_config=(layers, layers, layers),  # it takes any number
            num_init_features=2 * growth_rate,
            drop_rate=drop_rate,
            num_classes=num_classes,
            memory_efficient=memory_efficient,
        )
        stem = nn.Conv2d(in_channels, 2 * growth_rate, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight)
        self.features.conv0 = stem
        for name in ("norm0", "relu0", "pool0"):
            delattr(self.features, name)
