"""Which samples come when: a pure function of (seed, stage, epoch), for any number of ranks."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from distill_app.errors import DataError
from distill_app.seeds import permutation
from distill_app.world import ALONE, World, share_sizes

Key = tuple[int, int]  # (position among the samples, view)


class Order(Sampler[list[Key]]):
    """A batch sampler: lists of (position, view), without any state but the epoch and where in it to start.

    Args:
        views: None: a new augmentation each epoch (view = epoch); V: epoch modulo V.

        world: Whose batches are shared out: each rank gets one part of every batch, of as equal parts as there are.

    Attributes:
        num_samples: How many samples an epoch has, over all ranks.
    """

    num_samples: int

    def __init__(self, *, views: int | None, world: World = ALONE) -> None:
        if views is not None and views < 1:
            raise ValueError(f"views: at least 1, or null for a new view each epoch, not {views}")
        self.views = views
        self.world = world
        self.epoch = 0
        self.start = 0

    @property
    def view(self) -> int:
        """The view of this epoch's samples."""
        return self.epoch if self.views is None else self.epoch % self.views

    @property
    def sizes(self) -> list[int]:
        """How many samples each batch of this epoch has, over all ranks."""
        raise NotImplementedError

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration yields, from its first batch."""
        self.epoch = epoch
        self.start = 0

    def set_position(self, batch: int) -> None:
        """Lets the next iterations of this epoch start at that batch, as if those before had been yielded."""
        if not 0 <= batch <= len(self):
            raise ValueError(f"batch {batch} is not in an epoch of {len(self)} batches")
        self.start = batch

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank, wherever it starts."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[list[Key]]:
        view, batch_of = self.view, self._batches()
        for batch in range(self.start, len(self)):
            yield [(position, view) for position in batch_of(batch).tolist()]

    def _batches(self) -> Callable[[int], np.ndarray]:
        """Number of a batch of this epoch -> positions of its samples on this rank."""
        raise NotImplementedError


class EpochOrder(Order):
    """Batches of one size, in an order that is a pure function of (seed, stage, epoch).

    In training the ranks together see, batch by batch, what one process sees. In an evaluation (`disjoint`) they share
    out the samples instead of the batches; every sample is seen exactly once, by shares that differ by one at most.

    Args:
        num_samples: Number of positions.
        batch_size: Samples a batch, over all ranks; with `disjoint` on each.
        seed: Of the run.
        stage: Name of the stage.
        shuffle: A new order each epoch; else ascending.
        drop_last: Leave out the last batch if it is not full.
        world: Of which processes this is one.
        views: None: a new augmentation each epoch (view = epoch); V: epoch modulo V.
        disjoint: See above; None: where nothing is shuffled.
        sampler: Epoch -> positions in the order in which they come, `num_samples` of them; in the place of `shuffle`.
        groups: A number for each position, int64 (N,): in training a batch is filled up with positions of one group.

    Raises:
        DataError: No samples, drop_last leaves nothing, or a batch has fewer samples than there are ranks.
        ValueError: Sizes below one.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        batch_size: int,
        seed: int,
        stage: str,
        shuffle: bool,
        drop_last: bool = False,
        world: World = ALONE,
        views: int | None = None,
        disjoint: bool | None = None,
        sampler: Callable[[int], np.ndarray] | None = None,
        groups: np.ndarray | None = None,
    ) -> None:
        super().__init__(views=views, world=world)
        self.groups = groups
        self.disjoint = not shuffle if disjoint is None else disjoint
        _check(num_samples, batch_size=batch_size)
        if drop_last and self.disjoint:
            raise ValueError("stage.drop_last: an evaluation has to see every sample; leave it false there")
        if drop_last and num_samples < batch_size:
            raise DataError(
                f"stage.drop_last: {num_samples} samples do not fill one batch of {batch_size}, so none is left; lower "
                f"stage.batch_size or set stage.drop_last=false"
            )
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.stage = stage
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.sampler = sampler
        if not self.disjoint:
            refuse_small(self.sizes, world=world)

    @property
    def sizes(self) -> list[int]:
        """How many samples each batch of an epoch has, over all ranks; the last one may have fewer."""
        count, size = self._count, self.batch_size
        return [min(size, count - batch * size) for batch in range(len(self))]

    @property
    def _count(self) -> int:
        """Samples of an epoch: of all ranks, or where they are shared out, of this one."""
        if not self.disjoint:
            return self.num_samples
        return share_sizes(self.num_samples, self.world.size)[self.world.rank]

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank, wherever it starts."""
        return self._count // self.batch_size if self.drop_last else -(-self._count // self.batch_size)

    def _batches(self) -> Callable[[int], np.ndarray]:
        order, size, world = self._order(), self.batch_size, self.world
        if self.disjoint:
            share = np.array_split(order, world.size)[world.rank]
            return lambda batch: share[batch * size : (batch + 1) * size]
        return lambda batch: rank_share(order[batch * size : (batch + 1) * size], world)

    def _order(self) -> np.ndarray:
        order = self._mixed_order()
        if self.groups is None or self.disjoint:
            return order
        return grouped(order, self.groups, self.batch_size, "groups", self.seed, self.stage, self.epoch)

    def _mixed_order(self) -> np.ndarray:
        if self.sampler is not None:
            return self.sampler(self.epoch)
        if not self.shuffle:
            return np.arange(self.num_samples)
        return permutation(self.num_samples, "order", self.seed, self.stage, self.epoch)


def grouped(order: np.ndarray, groups: np.ndarray, batch_size: int, *parts: int | str) -> np.ndarray:
    """The same positions in another order, of which every batch is of one group as far as groups fill batches.

    What is left of the groups follows each other, so that all batches but the last stay full; batches come in an order
    that depends on `parts` only, the last one if it is not full at the end.

    Args:
        order: Positions.
        groups: A number for each position.
        batch_size: Positions a batch.
        *parts: What the order of the batches is a function of.
    """
    members = [order[groups[order] == group] for group in np.unique(groups[order])]
    full = [each[: len(each) // batch_size * batch_size] for each in members]
    rest = [each[len(each) // batch_size * batch_size :] for each in members]
    lined_up = np.concatenate([*full, *rest])
    count = len(lined_up) // batch_size
    whole = lined_up[: count * batch_size].reshape(count, batch_size)
    mixed = whole[permutation(count, *parts)].reshape(-1)
    return np.concatenate([mixed, lined_up[count * batch_size :]])


def rank_share(batch: np.ndarray, world: World) -> np.ndarray:
    """One rank's part of a batch."""
    return batch if world.size == 1 else np.array_split(batch, world.size)[world.rank]


def refuse_small(sizes: Sequence[int], *, world: World, remedy: str = "set stage.drop_last=true") -> None:
    """Refuses batches of which some rank would have nothing.

    Raises:
        DataError: There is one.
    """
    small = min(sizes, default=world.size)
    if small < world.size:
        raise DataError(
            f"stage.batch_size: a batch has {small} samples, too few for {world.size} processes; {remedy}, or use "
            f"fewer processes"
        )


def _check(num_samples: int, *, batch_size: int) -> None:
    if num_samples < 1:
        raise DataError("dataset: there are no samples; look at dataset.root and dataset.validation_fraction")
    if batch_size < 1:
        raise ValueError(f"stage.batch_size: at least 1, not {batch_size}")
