"""Split networks: a bottleneck in the place of one module, small enough to be sent from a device to a server."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill_app.models.detectors import image_part
from distill_app.networks.modes import evaluating
from distill_app.networks.taps import resolve

KERNEL = 2
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Quantized:
    """A batch in 8 bits: values (B, ...) uint8, and of every sample the scale and the lowest value, float32 (B,)."""

    values: Tensor
    scale: Tensor
    low: Tensor


def quantize(tensor: Tensor) -> Quantized:
    """Affine 8-bit quantisation of every sample over its own range: value = round((x - low) / scale).

    The error is at most half a scale, (max - min) / 510.

    Args:
        tensor: (B, ...), finite.
    """
    rows = tensor.detach().float().flatten(1)
    low = rows.amin(dim=1)
    scale = (rows.amax(dim=1) - low) / 255
    # A constant sample has no range: all its values are zeros, and it comes back as its lowest value.
    steps = (rows - low.unsqueeze(1)) / torch.where(scale > 0, scale, 1.0).unsqueeze(1)
    return Quantized(steps.round().clamp(0, 255).to(torch.uint8).view(tensor.shape), scale, low)


def dequantize(quantized: Quantized) -> Tensor:
    """The float32 tensor that a quantised one stands for."""
    shape = (-1, *[1] * (quantized.values.dim() - 1))
    return quantized.values.float() * quantized.scale.view(shape) + quantized.low.view(shape)


class Bottleneck(nn.Module):
    """An encoder to a few channels and a decoder; what is between the two crosses the network.

    Encoder, padding 1: C -> C -> D -> C -> channels; decoder, padding 0: channels -> C -> D/2 -> D -> D. All kernels
    are 2x2, without bias: each encoder layer adds a pixel to height and width, each decoder layer takes one away. The
    stride of what it replaces goes to the first convolution, with a kernel as large as the stride if that is above 2.

    Matsubara, Levorato 2020, https://arxiv.org/abs/2007.15818, where C = 64, D = 256 and channels = 3 in the place of
    layer1 of a large ResNet; here C and D are those of the module in whose place it stands.

    Args:
        in_shape: (B, C, H, W) of what it takes.
        out_shape: (B, D, H', W') of what it gives.
        channels: That cross the network.
        quantized: Whether they cross in 8 bits; in eval mode only.

    Raises:
        ValueError: Not maps, or an output larger than the input.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, *, channels: int = 3, quantized: bool = False):
        super().__init__()
        if len(in_shape) != 4 or len(out_shape) != 4:
            raise ValueError(f"a bottleneck takes and gives maps (B, C, H, W), here {in_shape} -> {out_shape}")
        if channels < 1:
            raise ValueError(f"channels={channels}: at least one has to cross the network")
        width, out = in_shape[1], out_shape[1]
        self.encoder = nn.Sequential(
            *_first_convolution(in_shape, out_shape),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, out, KERNEL, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, width, KERNEL, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, channels, KERNEL, padding=1, bias=False),
        )
        half = max(out // 2, 1)
        self.decoder = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, width, KERNEL, bias=False),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, half, KERNEL, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, out, KERNEL, bias=False),
            nn.BatchNorm2d(out),
            nn.Conv2d(out, out, KERNEL, bias=False),
            nn.BatchNorm2d(out),
        )
        # The last activation is called as in torchvision's ResNets, so that taps of what it replaces find it.
        self.decoder.add_module("relu", nn.ReLU())
        self.quantized = quantized

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H', W')."""
        crossing = self.encoder(feature)
        if self.quantized and not self.training:
            crossing = dequantize(quantize(crossing)).to(crossing.dtype)
        return self.decoder(crossing)


def _first_convolution(in_shape: Shape, out_shape: Shape) -> list[nn.Module]:
    """To one pixel more than the output, with the stride that is needed."""
    side, out_side, width = in_shape[-1], out_shape[-1], in_shape[1]
    stride = round(side / out_side)
    if stride < 1 or any(
        o not in (i // stride, -(-i // stride)) for i, o in zip(in_shape[2:], out_shape[2:], strict=True)
    ):
        raise ValueError(
            f"a bottleneck keeps the size of a map or divides it by a whole number, here {in_shape} -> {out_shape}"
        )
    if stride == 1:
        return [nn.Conv2d(width, width, KERNEL, padding=1, bias=False)]
    kernel = max(KERNEL, stride)
    # A size that the stride does not divide is rounded up by most modules, and down by some poolings.
    rounding = stride - 1 if out_side == -(-side // stride) else 0
    before, after = kernel // 2, kernel - kernel // 2 + rounding
    pad = nn.ZeroPad2d((before, after, before, after))
    return [pad, nn.Conv2d(width, width, kernel, stride=stride, bias=False)]


def with_bottleneck(
    net: nn.Module, *, replace: str, image_size: int, channels: int = 3, quantized: bool = False
) -> nn.Module:
    """Puts a bottleneck in the place of one module, under its name; changes the network and returns it.

    All other weights keep their names, so that they can be copied from the network without a bottleneck
    (`init_from: {student: teacher}`). Shapes come from a forward of one image, of a detector that of its backbone.

    Args:
        net: The network.
        replace: The path of a module that takes and gives a map.
        image_size: In pixels.
        channels: That cross the network.
        quantized: Whether they cross in 8 bits; in eval mode only.

    Raises:
        ValueError: No such module, or one that a bottleneck cannot stand for.
    """
    if ":" in replace:
        raise ValueError(
            f"replace={replace!r} is a tap of tokens or of another layout; a bottleneck can stand for a module that "
            f"gives maps (B, C, H, W)"
        )
    parent_path, _, name = replace.rpartition(".")
    module, parent = resolve(net, replace), resolve(net, parent_path)
    if module is net:
        raise ValueError("replace='' is the whole network; name a module in it")
    name = next(own for own, child in parent.named_children() if child is module)
    in_shape, out_shape = _shapes(net, module, image_size)
    bottleneck = Bottleneck(in_shape, out_shape, channels=channels, quantized=quantized)
    setattr(parent, name, bottleneck)
    if _shapes(net, bottleneck, image_size)[1] != out_shape:
        raise ValueError(
            f"replace={replace!r}: a bottleneck cannot give {out_shape[1:]} from {in_shape[1:]}; cut elsewhere"
        )
    return net


@torch.no_grad()
def _shapes(net: nn.Module, module: nn.Module, image_size: int) -> tuple[Shape, Shape]:
    """Of what a module takes and gives, for one image; draws no random numbers and changes no buffer."""
    seen: list[tuple[Shape, Shape]] = []

    def look(module: nn.Module, args: tuple, output: Tensor) -> None:
        seen.append((tuple(args[0].shape), tuple(output.shape)))

    images = torch.zeros(1, 3, image_size, image_size, device=next(net.parameters()).device)
    handle = module.register_forward_hook(look)
    try:
        with evaluating(net):
            image_part(net, module)(images)
    finally:
        handle.remove()
    if len(seen) != 1:
        raise ValueError(f"a bottleneck stands for a module that runs once a forward, this one ran {len(seen)} times")
    return seen[0]
