"""The first random numbers that torch's CPU generator gives after each of many seeds, computed all at once.

`torch.manual_seed(seed)` followed by a draw costs microseconds a sample; here thousands of samples share 400 operations
on arrays. What torch draws from which word is no promise of torch: whoever uses this compares some samples with torch.
"""

import numpy as np

_SHIFT = 397  # of MT19937: word j of the twisted state is made of the words j, j + 1 and j + 397 of the state
_UPPER, _LOWER = 0x8000_0000, 0x7FFF_FFFF


def first_words(seeds: np.ndarray, count: int) -> np.ndarray:
    """The first 32-bit outputs of MT19937 (Matsumoto and Nishimura 1998), seeded as `torch.manual_seed` does.

    Args:
        seeds: (N,) uint64, of which the generator takes the lower half.
        count: How many for each seed, at most 227: later ones depend on words that are not kept.

    Returns:
        (count, N) uint32.
    """
    if not count:
        return np.empty((0, len(seeds)), np.uint32)
    kept: dict[int, np.ndarray] = {}
    word: np.ndarray = (seeds & 0xFFFF_FFFF).astype(np.uint32)
    for place in range(_SHIFT + count):
        if place:
            word = 1_812_433_253 * (word ^ word >> 30) + place
        if place <= count or place >= _SHIFT:
            kept[place] = word
    return np.stack([_output(kept[j], kept[j + 1], kept[j + _SHIFT]) for j in range(count)])


def _output(word: np.ndarray, following: np.ndarray, shifted: np.ndarray) -> np.ndarray:
    """Twists and tempers."""
    odd = (following & 1) * np.uint32(0x9908_B0DF)
    out = shifted ^ ((word & _UPPER | following & _LOWER) >> 1) ^ odd
    out ^= out >> 11
    out ^= out << 7 & 0x9D2C_5680
    out ^= out << 15 & 0xEFC6_0000
    return out ^ out >> 18


def below(words: np.ndarray, bound: int) -> np.ndarray:
    """What `torch.randint(0, bound, ())` makes of words, for bounds below 2^28."""
    return (words % bound).astype(np.int64)


def uniform(words: np.ndarray) -> np.ndarray:
    """What `torch.rand(1)` makes of words: float32 in [0, 1)."""
    return (words & 0xFF_FFFF).astype(np.float32) * np.float32(2**-24)
