"""FGD: objects and what lies behind them each by their own, where the teacher looks, and what the whole map says."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distill_app.losses.boxes import Target, boxes_in, require_targets
from distill_app.losses.numerics import as_target, full_precision, require_choice, require_positive, require_same_shape


def space_attention(feature: Tensor, temperature: float) -> Tensor:
    """Where a map is active: HW softmax over positions of the mean of |F|, (B, C, H, W) -> (B, 1, H, W)."""
    batch, _, height, width = feature.shape
    mean = feature.abs().mean(dim=1).flatten(1) / temperature
    return (height * width * mean.softmax(dim=1)).view(batch, 1, height, width)


def channel_attention(feature: Tensor, temperature: float) -> Tensor:
    """Which channels are active: C softmax over channels of the mean of |F|, (B, C, H, W) -> (B, C, 1, 1)."""
    mean = feature.abs().mean(dim=(2, 3), keepdim=True) / temperature
    return feature.shape[1] * mean.softmax(dim=1)


class FocalDistance(nn.Module):
    """FGD's focal part: objects and what lies behind them each count by their own, by where the teacher looks.

    L = 1 / B * sum over elements of (M_o + background M_b) S_t C_t (F_s - F_t)^2

    M_o is, at positions of an object's box, one over their number, the largest of several; M_b is one over the number
    of all other positions of the image. S and C are the teacher's attention over positions and over channels.

    Yang, Li, Shao, Shi, Yuan, Yuan 2022, https://arxiv.org/abs/2111.11837. Boxes are rounded outwards to positions, and
    one further, as in the authors' code. Deliberately different: boxes are placed on the map by the size of the padded
    batch that it is the map of; the authors' code takes the size of each image without its padding, which moves boxes
    by the padding (`placed="image"`). Boxes are cut off at the border of the image, where theirs fall out or wrap.

    Maps (B, C, H, W) of one shape, the student's behind an adapter; `targets` are those of a detection batch, `images`
    the padded batch (B, 3, H, W) that the student's backbone got.

    Args:
        temperature: Of the attention; 0.8 for FCOS.
        background: Weight of the background beside that of objects; the authors' beta / alpha.
        attention: Whether S and C weight; else 1 in their place.
        placed: By the size of the padded "batch" or of each "image".

    Raises:
        ValueError: A temperature that is none, or another place.
    """

    def __init__(
        self, temperature: float = 0.5, *, background: float = 0.5, attention: bool = True, placed: str = "batch"
    ):
        super().__init__()
        require_choice(placed, ("batch", "image"), argument="placed")
        require_positive(temperature, argument="temperature")
        self.temperature, self.background = temperature, background
        self.attention, self.placed = attention, placed

    def forward(self, student: Tensor, teacher: Tensor, targets: Sequence[Target], images: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: Maps that differ in shape, or targets or images that are not theirs.
        """
        require_same_shape(student, teacher, loss="FocalDistance")
        require_targets(targets, student, loss="FocalDistance")
        student, teacher = full_precision(student), as_target(teacher)
        objects, background = self.masks(targets, (teacher.shape[2], teacher.shape[3]), images)
        weights = (objects + self.background * background).to(teacher.dtype)
        if self.attention:
            weights = weights * space_attention(teacher, self.temperature)
            weights = weights * channel_attention(teacher, self.temperature)
        return ((student - teacher).square() * weights).sum() / len(student)

    @torch.no_grad()
    def masks(self, targets: Sequence[Target], size: tuple[int, int], images: Tensor) -> tuple[Tensor, Tensor]:
        """M_o and M_b, (B, 1, H, W) each.

        Args:
            targets: Of each image.
            size: Height and width of the map.
            images: The padded batch.

        Raises:
            ValueError: An image is larger than the batch, so that the network has resized it.
        """
        rows, columns = (torch.arange(side, device=images.device) for side in size)
        objects = []
        for target in targets:
            whole = tuple(target["size"] if self.placed == "image" else images.shape[-2:])
            if any(side > room for side, room in zip(target["size"], images.shape[-2:], strict=True)):
                raise ValueError(
                    f"an image of {tuple(target['size'])} px is in a batch of {tuple(images.shape[-2:])}: the network "
                    f"resizes images by itself, and boxes are not where it sees them"
                )
            boxes = boxes_in(target)
            scaled = boxes * boxes.new_tensor([size[1] / whole[1], size[0] / whole[0]] * 2)
            (x1, y1), (x2, y2) = scaled[:, :2].floor().unbind(1), scaled[:, 2:].ceil().unbind(1)
            inside = _between(rows, y1, y2).unsqueeze(2) & _between(columns, x1, x2).unsqueeze(1)
            share = inside / ((y2 - y1 + 1) * (x2 - x1 + 1)).view(-1, 1, 1)
            objects.append(share.amax(dim=0) if len(boxes) else share.new_zeros(size))
        found = torch.stack(objects).unsqueeze(1)
        behind = (found == 0).to(found.dtype)
        return found, behind / behind.sum(dim=(2, 3), keepdim=True).clamp(min=1)


def _between(positions: Tensor, first: Tensor, last: Tensor) -> Tensor:
    return (positions >= first.unsqueeze(1)) & (positions <= last.unsqueeze(1))


class AttentionDistance(nn.Module):
    """FGD's attention part: the student looks where the teacher looks, in positions and in channels.

    L = 1 / B * (|S_s - S_t|_1 + |C_s - C_t|_1), with S and C as in `FocalDistance`

    Yang, Li, Shao, Shi, Yuan, Yuan 2022, https://arxiv.org/abs/2111.11837. Maps (B, C, H, W) of one shape.

    Args:
        temperature: Of the attention; 0.8 for FCOS.
    """

    def __init__(self, temperature: float = 0.5):
        super().__init__()
        require_positive(temperature, argument="temperature")
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The shapes differ.
        """
        require_same_shape(student, teacher, loss="AttentionDistance")
        student, teacher = full_precision(student), as_target(teacher)
        distances = [
            (attention(student, self.temperature) - attention(teacher, self.temperature)).abs().sum()
            for attention in (space_attention, channel_attention)
        ]
        return torch.stack(distances).sum() / len(student)


class ContextDistance(nn.Module):
    """FGD's global part: maps agree once each has its context added, by adapters that are both learnt.

    L = 1 / B * sum over elements of (G_s(F_s) - G_t(F_t))^2

    Yang, Li, Shao, Shi, Yuan, Yuan 2022, https://arxiv.org/abs/2111.11837. Both are outputs (B, C, H, W) of a
    `adapters.GlobalContext`: the gradient flows into both.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: The shapes differ.
        """
        require_same_shape(student, teacher, loss="ContextDistance")
        return (full_precision(student) - full_precision(teacher)).square().sum() / len(student)
