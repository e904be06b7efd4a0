"""A seeded permutation of any number of things that needs no memory: place to thing, for any places at once."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

ROUNDS = 8


class Permutation:
    """A permutation of 0 … size - 1.

    A Feistel network over the least even number of bits that holds `size` (M. Luby and C. Rackoff 1988, SIAM J.
    Comput. 17(2)), its values at or above `size` sent through again until they fall below (J. Black and P. Rogaway
    2002, "Ciphers with arbitrary finite domains"). The same key gives the same order on every system and with every
    version of NumPy, whose own shuffles promise neither.

    :param size: at least 1.
    :param key: whatever decides the order; its `repr` counts.
    """

    def __init__(self, size: int, *key: object) -> None:
        assert size > 0
        self.size = size
        self._half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
        self._mask = np.uint64((1 << int(self._half)) - 1)
        digest = hashlib.blake2b(repr(key).encode(), digest_size=8 * ROUNDS).digest()
        self._keys = np.frombuffer(digest, dtype="<u8")

    def __call__(self, places: Array) -> Array:
        """What stands at each place, int64 like them."""
        found = self._once(places.astype(np.uint64))
        outside = np.flatnonzero(found >= self.size)
        while outside.size:
            found[outside] = self._once(found[outside])
            outside = outside[found[outside] >= self.size]
        return found.astype(np.int64)

    def _once(self, values: Array) -> Array:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right + key) & self._mask)
        return (left << self._half) | right


def _mixed(values: Array) -> Array:
    """Mix 64 bits so that each depends on all (the finaliser of splitmix64, Steele et al. 2014, OOPSLA)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = values ^ (values >> np.uint64(31))
    return mixed
