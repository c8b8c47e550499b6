"""A network in two halves at its bottleneck: the head runs on a device, the tail on a server."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distill_app.models.bottleneck import Quantized, dequantize, quantize
from distill_app.models.cut import bottleneck_of
from distill_app.networks.modes import evaluating

Images = Tensor | Sequence[Tensor]
Message = dict[str, Tensor]


class _Crossed(Exception):
    """Ends a forward at the cut, with what crosses it; never leaves the head that ran it."""

    def __init__(self, crossing: Tensor):
        super().__init__()
        self.crossing = crossing


class _Sending(nn.Module):
    """The encoder, behind which a head ends."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, feature: Tensor) -> Tensor:
        raise _Crossed(self.encoder(feature))


class _Received(nn.Module):
    """Stands for the encoder in a tail, and gives what has come over the cut."""

    def __init__(self) -> None:
        super().__init__()
        self.crossing: list[Tensor] = []  # in a list: exporters take no tensor that a forward sets

    def forward(self, feature: Tensor) -> Tensor:
        return self.crossing[0]


class _Passed(nn.Module):
    """Stands in a tail for what the head has run: it costs nothing, and what it gives is read by nobody."""

    def forward(self, first: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return first


class _Elsewhere(nn.Module):
    """Stands in a head for what is behind the cut."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("this part of the network is behind the cut")


class Head(nn.Module):
    """A network up to its cut, with the weights of this part alone.

    Args:
        net: Cut open: its encoder sends.
        eight_bits: Whether what crosses is quantised.
    """

    def __init__(self, net: nn.Module, *, eight_bits: bool):
        super().__init__()
        self.net, self.eight_bits = net, eight_bits

    def forward(self, images: Images) -> Message:
        """What crosses, by name; all of it are tensors, a row for each image.

        Args:
            images: As the network takes them: (B, C, H, W), or a list of (C, H, W) of any sizes.

        Returns:
            `crossing` (B, c, h, w) float32, or of 8 bits `values` uint8 of that shape, `scale` and `low` float32 (B,).
            Of images in a list also `sizes` int64 (B, 2), their heights and widths.
        """
        try:
            self.net(images)
        except _Crossed as crossed:
            crossing = crossed.crossing
        else:
            raise RuntimeError("the network ran to its end without crossing its cut")
        message = {"crossing": crossing}
        if self.eight_bits:
            message = vars(quantize(crossing))
        if not isinstance(images, Tensor):
            message = {**message, "sizes": torch.tensor([list(image.shape[-2:]) for image in images])}
        return message


class Tail(nn.Module):
    """A network behind its cut, with the weights of this part alone.

    The network itself is called, on images of no content: what the head has run is taken out of it, and what is left
    sees of images but their sizes.

    Args:
        net: Cut open: what stands for its encoder receives.
        received: That part.
        shape: Of an image, (C, H, W); in a list images may have other heights and widths.
    """

    def __init__(self, net: nn.Module, received: _Received, *, shape: Sequence[int]):
        super().__init__()
        self.net, self._received, self._shape = net, [received], tuple(shape)

    def forward(self, **message: Tensor) -> Any:
        """What the network says.

        Args:
            message: What the head gave.
        """
        eight_bits = "values" in message
        crossing = dequantize(_quantized(message)) if eight_bits else message["crossing"]
        channels, height, width = self._shape
        nothing = crossing.new_zeros(())
        sizes = message.get("sizes")
        images: Any = nothing.expand(crossing.shape[0], channels, height, width)
        if sizes is not None:
            images = [nothing.expand(channels, *size) for size in sizes.tolist()]
        received = self._received[0].crossing
        received.append(crossing)
        try:
            return self.net(images)
        finally:
            received.clear()


def _quantized(message: Message) -> Quantized:
    return Quantized(message["values"], message["scale"], message["low"])


class _Order:
    """Which modules of a network run before its cut, and which behind it."""

    def __init__(self, net: nn.Module, encoder: nn.Module, example: Images):
        self.before: set[nn.Module] = set()  # have begun before the cut
        self.after: set[nn.Module] = set()
        self.passed: set[nn.Module] = set()  # take and give a tensor, and have ended before the cut
        self._crossed = False
        handles = []
        for part in net.modules():
            handles += [part.register_forward_pre_hook(self._begins), part.register_forward_hook(self._ends)]
        handles.append(encoder.register_forward_hook(self._crosses))
        try:
            with evaluating(net), torch.no_grad():
                net(example)
        finally:
            for handle in handles:
                handle.remove()

    def is_later(self, part: nn.Module) -> bool:
        """Whether nothing of a part runs before the cut."""
        return not any(each in self.before for each in part.modules())

    def is_over(self, part: nn.Module) -> bool:
        """Whether a part has run before the cut, and nothing of it runs behind it."""
        return part in self.passed and not any(each in self.after for each in part.modules())

    def _begins(self, module: nn.Module, args: tuple) -> None:
        (self.after if self._crossed else self.before).add(module)

    def _ends(self, module: nn.Module, args: tuple, output: Any) -> None:
        if not self._crossed and isinstance(output, Tensor) and args and isinstance(args[0], Tensor):
            self.passed.add(module)

    def _crosses(self, module: nn.Module, args: tuple, output: Any) -> None:
        self._crossed = True


def halves(net: nn.Module, example: Images, *, eight_bits: bool | None = None) -> tuple[Head, Tail]:
    """The two halves of a network, in eval mode; the network stays as it is.

    Each is a copy of the network out of which is taken what the other one runs, so that any network with a bottleneck
    can be halved whose modules before the cut are called one after another.

    Args:
        net: Has a bottleneck.
        example: Of its input.
        eight_bits: Whether what crosses is quantised; None: where the network itself does it.

    Raises:
        ValueError: There is no bottleneck.
    """
    _, bottleneck = bottleneck_of(net)
    in_bits = bottleneck.quantized if eight_bits is None else eight_bits
    head, tail = copy.deepcopy(net).eval(), copy.deepcopy(net).eval()

    encoder = bottleneck_of(head)[1].encoder
    order = _Order(head, encoder, example)
    _replace(head, {encoder: _Sending(encoder)}, order.is_later, _Elsewhere)

    own = bottleneck_of(tail)[1]
    own.quantized = False  # what is received was quantised before it was sent
    order, received = _Order(tail, own.encoder, example), _Received()
    _replace(tail, {own.encoder: received}, order.is_over, _Passed)
    return Head(head, eight_bits=in_bits).eval(), Tail(tail, received, shape=example[0].shape).eval()


def _replace(
    module: nn.Module,
    known: dict[nn.Module, nn.Module],
    is_gone: Callable[[nn.Module], bool],
    stand_in: Callable[[], nn.Module],
) -> None:
    """Puts other modules in the place of some, and a stand-in in that of all that is not needed on this side."""
    for name, child in list(module.named_children()):
        if child in known:
            setattr(module, name, known[child])
        elif is_gone(child):
            setattr(module, name, stand_in())
        else:
            _replace(child, known, is_gone, stand_in)
