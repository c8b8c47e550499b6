"""In which memory layout a network runs."""

import torch
from torch import nn
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNPredictor

NARROW = 16  # channels


def layout_of(module: nn.Module, *, channels_last: bool, device: torch.device | str) -> tuple[torch.memory_format, str]:
    """The layout of a network's weights, which that of its maps follows, and why it is not the one that was asked for.

    Args:
        module: The network.
        channels_last: Whether that layout was asked for.
        device: Where it runs.

    Returns:
        The layout, and a note for the plan, empty where there is nothing to say.
    """
    if not channels_last:
        return torch.preserve_format, ""
    # Its heat maps are what torchvision's loss for keypoints takes by `view`, which needs them in the other layout.
    heads = [path for path, part in module.named_modules() if isinstance(part, KeypointRCNNPredictor)]
    if heads:
        return torch.preserve_format, f"not in channels_last: torchvision cannot learn keypoints of {heads[0]} there"
    risky = crashing(module) if torch.device(device).type == "cpu" else []
    if not risky:
        return torch.channels_last, ""
    return torch.preserve_format, (
        f"not in channels_last: the backward of a 1x1 convolution with a stride and under {NARROW} channels, such as "
        f"{risky[0]}, ends the process there on a CPU"
    )


def crashing(module: nn.Module) -> list[str]:
    """Paths of the convolutions in whose backward torch 2.15 ends the process on a CPU, in channels_last.

    It writes beyond its memory in the backward of 1x1 convolutions with a stride: seen with under 16 output channels
    on one processor, and with under 8 input channels on another. Without a stride, with larger kernels, in groups or
    in the other layout nothing was seen.
    """
    return [
        path
        for path, part in module.named_modules()
        if isinstance(part, nn.Conv2d)
        and part.groups == 1
        and set(part.kernel_size) == {1}
        and max(part.stride) > 1
        and min(part.in_channels, part.out_channels) < NARROW
    ]
