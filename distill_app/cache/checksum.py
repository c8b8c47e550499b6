"""A 32-bit checksum of many rows at once, as fast as memory: a CRC in a loop would take longer than reading them."""

import hashlib
from collections.abc import Mapping

import numpy as np

_FINAL = np.uint64(0x9E37_79B9_7F4A_7C15)
_HALF = np.uint64(32)


class Checksum:
    """Multilinear hashing (Carter and Wegman 1979): h = start(place) + sum of w_i * x_i mod 2^64 over 8-byte words.

    The weights are odd and fixed, so a change of one word always changes h; of h, once mixed, the upper half is kept,
    so that any damage passes with a probability of 2^-32. It guards against accidents, not against forgery. The start
    depends on the salt and on the row's place: a row of elsewhere does not pass either. 0 is never given.

    Args:
        salt: Of one store.
        row_bytes: Array name -> bytes of one row.
    """

    def __init__(self, salt: str, row_bytes: Mapping[str, int]):
        start, *seeds = (
            int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
            for text in (salt, *row_bytes)
        )
        self._salt = np.uint64(start)
        self._weights = {
            name: np.random.Philox(key=seed).random_raw(-(-size // 8)) | np.uint64(1)
            for (name, size), seed in zip(row_bytes.items(), seeds, strict=True)
        }

    def __call__(self, places: np.ndarray, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The checksums, uint32 (B,).

        Args:
            places: int64 (B,), a number for each row.
            arrays: Name -> (B, ...), of the types that are stored, contiguous.
        """
        if not len(places):
            return np.zeros(0, dtype=np.uint32)
        total = _mixed(places.astype(np.uint64) ^ self._salt)
        for name, weights in self._weights.items():
            content = arrays[name].reshape(len(places), -1).view(np.uint8)
            if content.shape[1] % 8:
                padded = np.zeros((len(places), 8 * len(weights)), dtype=np.uint8)
                padded[:, : content.shape[1]] = content
                content = padded
            total += np.einsum("ij,j->i", content.view("<u8"), weights)
        return np.maximum((_mixed(total) >> _HALF).astype(np.uint32), np.uint32(1))


def _mixed(values: np.ndarray) -> np.ndarray:
    values = values ^ (values >> _HALF)
    values = values * _FINAL
    return values ^ (values >> _HALF)
