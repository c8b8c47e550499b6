"""Random state as a function of names: nothing here depends on what was drawn before."""

import hashlib
import operator
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """Random state of its own for building one thing, so that what else is built plays no part."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_hash(seed, "build", name) % 2**63)
        yield


def seed_all(*parts: int | str) -> None:
    """Sets the random state of torch, numpy and Python, on every device, to a function of names; takes 15 us."""
    import numpy as np
    import torch

    value = stable_hash(*parts) % 2**63
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(value)
    np.random.seed(value % 2**32)
    random.seed(value)


@contextmanager
def generator_kept() -> Iterator[None]:
    """Gives the caller torch's generator back as it was: without workers we run in the caller's process."""
    import torch

    state = torch.default_generator.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


def stable_hash(*parts: int | str) -> int:
    """A 64-bit hash that is the same in every process and on every platform (unlike `hash`)."""
    texts = [repr(part) if isinstance(part, str) else str(operator.index(part)) for part in parts]
    return int.from_bytes(hashlib.blake2b("\n".join(texts).encode(), digest_size=8).digest(), "little")


def permutation(size: int, *parts: int | str) -> "np.ndarray":
    """The numbers 0 to size-1 in an order that depends on `parts` only.

    Sorting raw Philox words costs 0.2 s a million; numpy promises to keep those words, and not what its
    `Generator.permutation` makes of them.
    """
    import numpy as np

    words = np.random.Philox(key=stable_hash(*parts)).random_raw(size)
    return np.argsort(words, kind="stable")
