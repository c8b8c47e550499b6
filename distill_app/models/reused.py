"""SimKD's student: the layers of one network, a projector, and the classifier of another."""

from typing import Any

import torch
from torch import Tensor, nn

from distill_app.networks.hooks import TappedModel
from distill_app.networks.modes import evaluating
from distill_app.networks.taps import Tap, resolve

Shape = tuple[int, ...]


class FeatureProjector(nn.Sequential):
    """SimKD's projector from the student's last map to the teacher's.

    conv1x1 (to a share of the teacher's channels), conv3x3, conv1x1 (to all of them), each with batch norm and ReLU, no
    biases. A map larger than the teacher's is average-pooled first; a smaller one keeps its size.

    Chen, Mei, Zhang, Wang, Feng, Chen 2022, https://arxiv.org/abs/2203.14001.

    Args:
        in_shape: (B, C, H, W) of the student's map.
        out_shape: (B, C', H', W') of the teacher's.
        factor: By how much the layers between are narrower than the teacher's map; 2 in the published results.

    Raises:
        ValueError: The factor leaves no channel.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, *, factor: int = 2):
        narrow = out_shape[1] // factor if factor > 0 else 0
        if not narrow:
            raise ValueError(
                f"factor={factor} must lie between 1 and the channels of the teacher's map, {out_shape[1]}"
            )
        size = [min(side, other) for side, other in zip(in_shape[2:], out_shape[2:], strict=True)]
        pool: list[nn.Module] = [] if size == list(in_shape[2:]) else [nn.AdaptiveAvgPool2d((size[0], size[1]))]
        layers: list[nn.Module] = []
        for before, after, kernel in ((in_shape[1], narrow, 1), (narrow, narrow, 3), (narrow, out_shape[1], 1)):
            convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        super().__init__(*pool, *layers)


class ReusedHead(nn.Module):
    """The layers of one network up to its last map, a projector, and the last linear layer of another.

    Args:
        student: The network; its own last linear layer is taken out of it.
        projector: From its last map to one of as many channels as the classifier takes features.
        classifier: A linear layer.
        student_map: The tap of the student's last map, as configs write it.
        student_pooled: The tap that is the input of the student's last linear layer.
        path: Of the classifier in the network that it comes from, and here: so that its weights can be copied by name.
    """

    def __init__(
        self,
        student: nn.Module,
        projector: nn.Module,
        classifier: nn.Module,
        *,
        student_map: str,
        student_pooled: str,
        path: str,
    ):
        super().__init__()
        _replace(student, Tap.parse("student_pooled", student_pooled).path, nn.Identity())
        self.student, self.projector = student, projector
        self._map, self._path = student_map, path
        _add(self, path, classifier)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, classes)."""
        # Hooks of a forward, not of the network's life: they would be copied along with it.
        tapped = TappedModel(self.student, {"map": self._map})
        try:
            feature = tapped(images)["map"]
        finally:
            tapped.close()
        return resolve(self, self._path)(self.projector(feature).mean(dim=(2, 3)))


def with_reused_head(
    student: nn.Module,
    teacher: nn.Module,
    *,
    student_map: str,
    student_pooled: str,
    teacher_map: str,
    teacher_pooled: str,
    image_size: int,
    factor: int = 2,
) -> nn.Module:
    """A student that ends in the teacher's classifier; shapes come from one forward of each.

    The classifier has the name that it has in the teacher, so that its weights can be copied from there
    (`init_from: {student: teacher}`).

    Args:
        student: The student's architecture; it becomes a part of the result.
        teacher: The teacher's; its last linear layer becomes one.
        student_map: Taps as configs write them: of the last maps, and of the input of the last linear layers.
        student_pooled: The same.
        teacher_map: The same.
        teacher_pooled: The same.
        image_size: In pixels.
        factor: Of the projector.

    Raises:
        ValueError: The teacher's classifier is not one linear layer on the average of its last map.
    """
    pooled_tap = Tap.parse("teacher_pooled", teacher_pooled)
    path = _named(teacher, pooled_tap.path)
    classifier = resolve(teacher, path)
    images = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    theirs = _activations(teacher, {"map": teacher_map, "pooled": teacher_pooled}, images)
    ours = _activations(student, {"map": student_map}, images)["map"]
    average = theirs["map"].mean(dim=(2, 3)) if theirs["map"].dim() == 4 else theirs["map"]
    pooled = theirs["pooled"].flatten(1)
    fits = average.shape == pooled.shape and torch.allclose(average, pooled, rtol=1e-3, atol=1e-4)
    if not (fits and isinstance(classifier, nn.Linear)):
        raise ValueError(
            f"the teacher's classifier can be reused only if it is one linear layer on the average of its last map, "
            f"{tuple(theirs['map'].shape)}; this one is {classifier} and reads {tuple(pooled.shape)}"
        )
    if ours.dim() != 4:
        raise ValueError(f"the student's last map has to be one (B, C, H, W), got {tuple(ours.shape)}")
    projector = FeatureProjector(tuple(ours.shape), tuple(theirs["map"].shape), factor=factor)
    taps = {"student_map": student_map, "student_pooled": student_pooled}
    return ReusedHead(student, projector, classifier, **taps, path=path)


@torch.no_grad()
def _activations(net: nn.Module, taps: dict[str, str], images: Tensor) -> dict[str, Any]:
    tapped = TappedModel(net, taps)
    try:
        with evaluating(tapped):
            return tapped(images)
    finally:
        tapped.close()


def _named(net: nn.Module, path: str) -> str:
    """The path by names alone, where numbers count children from the end."""
    module = resolve(net, path)
    return next(name for name, other in net.named_modules() if other is module)


def _replace(net: nn.Module, path: str, module: nn.Module) -> None:
    """Puts a module in the place of another."""
    parents, _, last = _named(net, path).rpartition(".")
    setattr(resolve(net, parents), last, module)


def _add(net: nn.Module, path: str, module: nn.Module) -> None:
    """Puts a module at a path where nothing is; modules on the way are empty ones."""
    *parents, last = path.split(".")
    for name in parents:
        setattr(net, name, nn.Module())
        net = getattr(net, name)
    setattr(net, last, module)
