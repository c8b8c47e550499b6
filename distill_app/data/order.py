"""Which samples come when: a pure function of (seed, stage, epoch), for any number of ranks."""

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler

from distill_app.errors import DataError
from distill_app.seeds import permutation

Key = tuple[int, int]  # (position among the samples, view)


class Order(Sampler[list[Key]]):
    """A batch sampler: lists of (position, view), without any state but the epoch and where in it to start.

    Args:
        views: None: a new augmentation each epoch (view = epoch); V: epoch modulo V.

    Attributes:
        num_samples: How many samples an epoch has, over all ranks.
    """

    num_samples: int

    def __init__(self, *, views: int | None) -> None:
        if views is not None and views < 1:
            raise ValueError(f"views: at least 1, or null for a new view each epoch, not {views}")
        self.views = views
        self.epoch = 0
        self.start = 0

    @property
    def view(self) -> int:
        """The view of this epoch's samples."""
        return self.epoch if self.views is None else self.epoch % self.views

    @property
    def sizes(self) -> list[int]:
        """How many samples each batch of this epoch has on this rank."""
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

    Padded (training): each global batch of batch_size * world_size samples is cut into one slice per rank, so
    the ranks together see what one rank with that batch size would; the last global batch wraps around to the
    start of the order until the ranks have equal shares. Not padded (evaluation): the ranks' shares are
    disjoint, cover every sample exactly once, and differ in length by at most one sample.

    Args:
        num_samples: number of positions.
        batch_size: samples a batch, on each rank.
        seed: of the run.
        stage: name of the stage.
        shuffle: a new order each epoch; else ascending.
        drop_last: leave out the last global batch if it is not full.
        rank: of this process.
        world_size: number of processes.
        views: None: a new augmentation each epoch (view = epoch); V: epoch modulo V.
        pad: give all ranks the same number of batches and samples; None: as `shuffle`.
        sampler: epoch -> positions in the order in which they come, `num_samples` of them; in the place of `shuffle`.

    Raises:
        ValueError: No samples, sizes below one, a rank outside of the world, or drop_last leaves nothing.
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
        rank: int = 0,
        world_size: int = 1,
        views: int | None = None,
        pad: bool | None = None,
        sampler: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        super().__init__(views=views)
        pad = shuffle if pad is None else pad
        _check(num_samples, batch_size=batch_size, rank=rank, world_size=world_size)
        if drop_last and not pad:
            raise ValueError("stage.drop_last: an evaluation has to see every sample; leave it false there")
        if drop_last and num_samples < batch_size * world_size:
            raise DataError(
                f"stage.drop_last: {num_samples} samples do not fill one batch of {batch_size} on each of "
                f"{world_size} rank(s), so none is left; lower stage.batch_size or set stage.drop_last=false"
            )
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.stage = stage
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.pad = pad
        self.sampler = sampler

    @property
    def sizes(self) -> list[int]:
        """How many samples each batch of an epoch has on this rank; the last one may have fewer."""
        if self.pad:
            total = self.num_samples
            full = self.batch_size * self.world_size
            shares = [min(full, total - batch * full) for batch in range(len(self))]
            return [-(-share // self.world_size) for share in shares]
        share = self.num_samples // self.world_size + (self.rank < self.num_samples % self.world_size)
        return [min(self.batch_size, share - batch * self.batch_size) for batch in range(len(self))]

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank, wherever it starts."""
        if self.pad:
            global_batch = self.batch_size * self.world_size
            return self.num_samples // global_batch if self.drop_last else -(-self.num_samples // global_batch)
        share = self.num_samples // self.world_size + (self.rank < self.num_samples % self.world_size)
        return -(-share // self.batch_size)

    def _batches(self) -> Callable[[int], np.ndarray]:
        order = self._order()
        if self.pad:
            return lambda batch: self._slice(order, batch)
        share = np.array_split(order, self.world_size)[self.rank]
        return lambda batch: share[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _order(self) -> np.ndarray:
        if self.sampler is not None:
            return self.sampler(self.epoch)
        if not self.shuffle:
            return np.arange(self.num_samples)
        return permutation(self.num_samples, "order", self.seed, self.stage, self.epoch)

    def _slice(self, order: np.ndarray, batch: int) -> np.ndarray:
        """This rank's part of a global batch; the last one wraps around until it divides evenly."""
        size = self.batch_size * self.world_size
        chunk = order[batch * size : (batch + 1) * size]
        return rank_share(chunk, order, rank=self.rank, world_size=self.world_size)


def rank_share(batch: np.ndarray, order: np.ndarray, *, rank: int, world_size: int) -> np.ndarray:
    """One rank's part of a global batch, which is filled up from an order until it divides evenly."""
    share = -(-len(batch) // world_size)
    missing = share * world_size - len(batch)
    if missing:
        batch = np.concatenate([batch, np.resize(order, missing)])
    return batch[rank * share : (rank + 1) * share]


def _check(num_samples: int, *, batch_size: int, rank: int, world_size: int) -> None:
    if num_samples < 1:
        raise DataError("dataset: there are no samples; look at dataset.root and dataset.validation_fraction")
    if batch_size < 1:
        raise ValueError(f"stage.batch_size: at least 1, not {batch_size}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not one of {world_size} rank(s)")
