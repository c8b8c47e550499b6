"""Frozen networks of which every process holds a part, gathered block by block while they run (FSDP2)."""

import copy
from collections.abc import Iterator

import torch
from torch import nn

from distill_app.world import World

BLOCKS = 16  # into about as many a network is divided
LEAST = 100_000  # numbers in a block; smaller ones would be gathered one by one


def sharded(module: nn.Module, world: World, *, device: torch.device) -> nn.Module:
    """A copy of a frozen network whose parameters lie in parts on all ranks.

    It has to be what runs: folded, in its final number format, without hooks. The network itself is left as it is, and
    so are its weights in checkpoints.

    Args:
        module: In eval mode, without gradients. All ranks call its forward together.
        world: The ranks.
        device: Where they are.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # Parts are cut from rows that lie behind each other; the network's own tensors stay as they are.
    own = {id(each): nn.Parameter(each.detach().contiguous(), requires_grad=False) for each in module.parameters()}
    part = copy.deepcopy(module, {**own, **{id(each): each for each in module.buffers()}})
    mesh = init_device_mesh(device.type, (world.size,))
    total = _count(part)
    for block in _blocks(part, most=max(LEAST, total // BLOCKS)):
        fully_shard(block, mesh=mesh)
    fully_shard(part, mesh=mesh)
    return part


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _blocks(module: nn.Module, *, most: int) -> Iterator[nn.Module]:
    """Parts of a network that are gathered one after the other, the inner ones first."""
    for child in module.children():
        count = _count(child)
        if count > most:
            yield from _blocks(child, most=most)
        # What only holds others never runs itself.
        if count >= LEAST and not isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield child
