"""The processes of a run: which of them this one is, and what they tell each other. One process is a world of one.

Every rank runs the same program on its share of every batch. What all of them call together is a collective: `gather`,
`from_main`, `agree`, `total`, and `whole` inside of `shared_batch`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from distill_app.errors import described, of_description

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The place of this process among those of its run.

    Attributes:
        rank: Counted from 0 over all nodes.
        size: How many there are.
        local_rank: Counted from 0 on this node.
        local_size: How many there are on this node.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one process that locks, writes and speaks."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """What every rank has, in their order: plain values, and tensors on the host."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_main(self, make: Callable[[], T]) -> T:
        """What the first rank makes; if it fails, that is the error of all.

        Args:
            make: Called there alone. Its tensors have to be on the host.
        """
        if self.size == 1:
            return make()
        sent: list[Any] = [None, None]
        own: Exception | None = None
        if self.main:
            try:
                sent[0] = make()
            except Exception as error:
                own, sent[1] = error, described(error)
        dist.broadcast_object_list(sent, src=0)
        if own is not None:
            raise own
        if sent[1] is not None:
            raise of_description(sent[1])
        made: T = sent[0]
        return made

    def agree(self, *numbers: int) -> list[int]:
        """The largest of each number over all ranks; the host waits for it, a GPU does not."""
        if self.size == 1:
            return list(numbers)
        largest = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return [int(number) for number in largest]

    def largest(self, value: Tensor) -> None:
        """Makes of a tensor, in place and without waiting, the largest over all ranks."""
        if self.size > 1:
            dist.all_reduce(value, dist.ReduceOp.MAX)

    def total(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sums over all ranks of scalars by name, in one message."""
        if self.size == 1 or not values:
            return dict(values)
        packed = torch.stack([value.detach().double() for value in values.values()])
        dist.all_reduce(packed)
        return {name: value.to(old.dtype) for (name, old), value in zip(values.items(), packed, strict=True)}

    def wait(self) -> None:
        """Goes on when all ranks have come here."""
        self.agree(0)


ALONE = World()


def share_sizes(count: int, ranks: int) -> list[int]:
    """How many of some samples each rank gets: the first ones one more where they do not divide."""
    return [count // ranks + (rank < count % ranks) for rank in range(ranks)]


@dataclass(frozen=True)
class _Shares:
    sizes: tuple[int, ...]  # samples of the batch under way, on every rank
    rank: int


_batch: _Shares | None = None  # of the step under way; None where a batch is this process's own


@contextmanager
def shared_batch(sizes: Sequence[int], rank: int) -> Iterator[None]:
    """Inside, the batch under way is one rank's part of a larger one.

    Args:
        sizes: Samples of it on every rank.
        rank: Of this process.
    """
    global _batch
    before, _batch = _batch, _Shares(tuple(sizes), rank) if len(sizes) > 1 else None
    try:
        yield
    finally:
        _batch = before


def is_shared() -> bool:
    """Whether the batch under way is a part of a larger one."""
    return _batch is not None


def whole(tensor: Tensor) -> Tensor:
    """The rows of the whole batch, (N, ...), from this rank's (n, ...) or, with several rows a sample, (k n, ...).

    The gradient flows back to the rows of every rank. Outside of `shared_batch` the tensor itself.
    """
    if _batch is None or not tensor.dim():
        return tensor
    rows = _rows(tensor)
    if tensor.requires_grad:
        gathered: Tensor = _Gather.apply(tensor, rows, _batch.rank)
        return gathered
    return _gathered(tensor, rows)


def own_rows(count: int) -> slice:
    """Which of the rows of a whole batch are this rank's.

    Args:
        count: Rows of this rank.
    """
    if _batch is None:
        return slice(0, count)
    per_sample = count // _batch.sizes[_batch.rank]
    start = sum(_batch.sizes[: _batch.rank]) * per_sample
    return slice(start, start + count)


def part_of(count: int) -> slice:
    """Which rows of a whole batch are this rank's.

    Args:
        count: Rows of the whole batch.
    """
    if _batch is None:
        return slice(0, count)
    per_sample = count // sum(_batch.sizes)
    return own_rows(_batch.sizes[_batch.rank] * per_sample)


def own_share() -> float:
    """Which part of the samples of the batch under way is this rank's; 1 where the batch is its own."""
    return 1.0 if _batch is None else _batch.sizes[_batch.rank] / sum(_batch.sizes)


def mean_of_means(value: Tensor) -> Tensor:
    """The mean over the samples of the whole batch from that over this rank's; without gradient."""
    if _batch is None:
        return value
    part = value.detach() * own_share()
    dist.all_reduce(part)
    return part


def sum_over_ranks(tensors: list[Tensor]) -> list[Tensor]:
    """The sums over all ranks of tensors that are each rank's own part; in place. Outside of a shared batch as is."""
    for tensor in tensors if _batch is not None else ():
        dist.all_reduce(tensor)
    return tensors


def common_number() -> int:
    """A random number of 62 bits that all ranks share: the first one's, of torch's generator on the host."""
    number = torch.randint(1 << 62, ())
    if _batch is not None:
        dist.broadcast(number, src=0)
    return int(number)


def _rows(tensor: Tensor) -> list[int]:
    assert _batch is not None
    own = _batch.sizes[_batch.rank]
    if len(tensor) % own:
        raise RuntimeError(f"{len(tensor)} rows for {own} samples: a loss over the whole batch needs as many for each")
    return [size * (len(tensor) // own) for size in _batch.sizes]


def _gathered(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    most = max(rows)
    sent = tensor.detach().contiguous()
    if len(sent) < most:
        sent = torch.cat([sent, sent.new_zeros(most - len(sent), *sent.shape[1:])])
    parts = [torch.empty_like(sent) for _ in rows]
    dist.all_gather(parts, sent)
    return torch.cat([part[:count] for part, count in zip(parts, rows, strict=True)])


class _Gather(torch.autograd.Function):
    """Rows of all ranks; every rank computes with all of them, so gradients of all are summed up."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rows: list[int], rank: int) -> Tensor:
        ctx.start, ctx.count = sum(rows[:rank]), rows[rank]
        return _gathered(tensor, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradients[0].contiguous().clone()
        dist.all_reduce(gradient)
        return gradient[ctx.start : ctx.start + ctx.count], None, None
