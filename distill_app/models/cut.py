"""What a cut of a network costs: the bytes that cross it, and the arithmetic on either side."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from distill_app.models.bottleneck import Bottleneck, Shape
from distill_app.networks.flops import FlopCounter
from distill_app.networks.modes import evaluating

_HEADER = 8  # bytes of a quantised sample: its scale and its lowest value, in float32


@dataclass(frozen=True)
class CutReport:
    """What crosses the network for one image, in bytes, and what is computed before and behind it.

    Figures are means over `images`, each of which runs alone.

    Attributes:
        path: Of the bottleneck.
        shape: Of what crosses, (channels, H, W); of several the largest.
        smallest: The smallest one.
        image: The image itself, in 8 bits.
        original: The input of the replaced module in float32: what would cross without a bottleneck.
        float32: What crosses, in float32.
        eight_bit: The same in 8 bits, with the scale and the lowest value.
        head_flops: Up to the cut; a multiplication and an addition are two operations.
        tail_flops: Behind the cut.
        images: How many were looked at.
    """

    path: str
    shape: Shape
    smallest: Shape
    image: int
    original: int
    float32: int
    eight_bit: int
    head_flops: int
    tail_flops: int
    images: int = 1

    def __str__(self) -> str:
        shape = f"{self.shape} crosses"
        if self.smallest != self.shape:
            shape = f"{self.smallest} to {self.shape} cross"
        over = f", means over {self.images} images" if self.images > 1 else ""
        whole = max(self.head_flops + self.tail_flops, 1)
        return (
            f"cut at {self.path}: {shape}, {self.float32:,} bytes an image in float32, "
            f"{self.eight_bit:,} in 8 bits (the image: {self.image:,}; without the bottleneck: {self.original:,}), "
            f"{self.head_flops / 1e9:.3g} GFLOPs before it and {self.tail_flops / 1e9:.3g} behind it "
            f"({100 * self.head_flops / whole:.0f} % on the device){over}"
        )

    def described(self) -> dict[str, Any]:
        """Plain values by name."""
        return {**asdict(self), "shape": list(self.shape), "smallest": list(self.smallest)}


def has_bottleneck(net: nn.Module) -> bool:
    """Whether a network has a bottleneck."""
    return any(isinstance(module, Bottleneck) for module in net.modules())


def bottleneck_of(net: nn.Module) -> tuple[str, Bottleneck]:
    """The path of a network's bottleneck, and the bottleneck.

    Raises:
        ValueError: There is none.
    """
    for path, module in net.named_modules():
        if isinstance(module, Bottleneck):
            return path, module
    raise ValueError(
        f"{type(net).__name__} has no bottleneck; put one in: distill_app.models.with_bottleneck(net, "
        f"replace='layer1', image_size=224)"
    )


def cut_report(net: nn.Module, *, image_size: int) -> CutReport:
    """The cut of a network for one square image; a detector resizes it as it does in an evaluation.

    Raises:
        ValueError: The network has no bottleneck.
    """
    # A batch of one image is what classifiers take, and iterates to the one image that detectors take.
    images = torch.zeros(1, 3, image_size, image_size, device=next(net.parameters()).device)
    return measured_cut(net, lambda: net(images), image=images[0].numel())


@torch.no_grad()
def measured_cut(net: nn.Module, run: Callable[[], Any], *, image: int) -> CutReport:
    """The cut of a network for what a call runs.

    Args:
        net: In eval mode while it runs; its modes are given back.
        run: Runs the network on one image.
        image: The bytes of that image in 8 bits.

    Raises:
        ValueError: The network has no bottleneck, or it does not run once.
    """
    path, bottleneck = bottleneck_of(net)
    seen: list[tuple[Shape, Shape, int]] = []
    counter = FlopCounter()

    def crossed(module: nn.Module, args: tuple, output: Tensor) -> None:
        seen.append((tuple(args[0].shape[1:]), tuple(output.shape[1:]), counter.total))

    handle = bottleneck.encoder.register_forward_hook(crossed)
    try:
        with evaluating(net), counter:
            run()
    finally:
        handle.remove()
    if len(seen) != 1:
        raise ValueError(f"the bottleneck at {path} ran {len(seen)} times for one image, and a cut is crossed once")
    (given, crossing, head) = seen[0]
    values = prod(crossing)
    return CutReport(
        path=path,
        shape=crossing,
        smallest=crossing,
        image=image,
        original=4 * prod(given),
        float32=4 * values,
        eight_bit=values + _HEADER,
        head_flops=head,
        tail_flops=counter.total - head,
    )


def mean_cut(reports: Sequence[CutReport]) -> CutReport:
    """The means over images of one network."""
    by_size = sorted(reports, key=lambda report: report.float32)
    counted = ("image", "original", "float32", "eight_bit", "head_flops", "tail_flops")
    means = {name: round(fmean(getattr(report, name) for report in reports)) for name in counted}
    return CutReport(
        path=reports[0].path, shape=by_size[-1].shape, smallest=by_size[0].shape, images=len(reports), **means
    )
