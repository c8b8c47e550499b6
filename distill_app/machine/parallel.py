"""How a stage's step runs when several processes share its batches: the one place that knows torch's wrappers."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from distill_app.errors import RankFailed
from distill_app.world import World, share_sizes, shared_batch

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of a number
# torch 2.15 has another name for it.
_NAMES = inspect.signature(DistributedDataParallel.__init__).parameters
_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"


class Parallel:
    """A module that every rank runs on its part of a batch, with the mean of all ranks' gradients.

    The module stays bare: its attributes, its parameters and their names are its own. What is called is `forward`.

    Args:
        module: With its hooks, its frozen parameters and its compiled parts: it is wrapped last.
        world: The ranks.
        counted: What has running statistics of batch norms, which every rank counts on its own part.
    """

    def __init__(self, module: nn.Module, world: World, *, counted: Sequence[nn.Module] = ()):
        self._module, self._world, self._counted = module, world, nn.ModuleList(counted)
        self.forward: Callable[..., Any] = module
        if world.size > 1:
            # Buffers are left alone: memories of losses are large, and equal; statistics are those of each rank.
            alone: dict[str, Any] = {_BUFFERS: False, "gradient_as_bucket_view": True}
            self.forward = DistributedDataParallel(module, **alone)

    def sharing(self, samples: int) -> AbstractContextManager[Any]:
        """Around all that is done with a batch: terms over the whole batch know what the other ranks have of it.

        Args:
            samples: Of the batch, over all ranks.
        """
        world = self._world
        if world.size == 1:
            return nullcontext()
        return shared_batch(share_sizes(samples, world.size), world.rank)

    def accumulating(self, *, last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward of a batch: gradients are exchanged behind the last one of an optimiser step."""
        if last or not isinstance(self.forward, DistributedDataParallel):
            return nullcontext()
        return self.forward.no_sync()

    def statistics(self) -> dict[str, Tensor]:
        """The running statistics of this rank, by name, on the host."""
        return {name: each.to("cpu", copy=True) for name, each in self._own().items()}

    def mean_statistics(self) -> None:
        """Gives every rank the mean of them: what is evaluated and saved is one network."""
        if self._world.size > 1:
            self._put(_mean(self._world.gather(self.statistics())))

    def restore(self, each: Sequence[Mapping[str, Tensor]]) -> None:
        """Gives every rank the statistics that it had; other numbers of ranks get the mean.

        Args:
            each: What `statistics` gave on every rank, maybe in a world of another size; nothing changes nothing.
        """
        if each:
            own = each[self._world.rank] if len(each) == self._world.size else _mean(each)
            self._put(own)

    def _own(self) -> dict[str, Tensor]:
        return {
            f"{path}.{name}": buffer
            for path, norm in self._counted.named_modules()
            if isinstance(norm, _NormBase)
            for name, buffer in norm.named_buffers(recurse=False)
        }

    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, buffer in self._own().items():
            buffer.copy_(values[name])

    def refuse_divergence(self, *, where: str) -> None:
        """Compares the parameters of the ranks, which are equal bit for bit.

        Args:
            where: When that is, for the message.

        Raises:
            RankFailed: They differ.
        """
        if self._world.size == 1:
            return
        named = [(name, each) for name, each in self._module.named_parameters() if each.requires_grad]
        # Of their bits as whole numbers, whose sum is the same in any order: GPUs of two kinds add up differently.
        sums = torch.stack([each.detach().view(_BITS[each.element_size()]).sum(dtype=torch.int64) for _, each in named])
        low, high = sums.clone(), sums.clone()
        dist.all_reduce(low, dist.ReduceOp.MIN)
        dist.all_reduce(high, dist.ReduceOp.MAX)
        if differ := [name for (name, _), same in zip(named, (low == high).tolist(), strict=True) if not same]:
            raise RankFailed(
                f"the ranks do not have the same weights any more, {where}: {len(differ)} of {len(named)} parameters "
                f"differ, first {differ[0]}; whatever changes weights has to do the same on every rank"
            )


def _mean(each: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each statistic; counters are those of the first rank."""
    return {
        name: torch.stack([one[name] for one in each]).mean(0) if first.is_floating_point() else first
        for name, first in each[0].items()
    }
