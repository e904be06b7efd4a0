"""Best-fit packing of documents into packs of a fixed number of tokens."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from itertools import groupby


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Assign documents to packs, the longest first, each to the fullest pack that still takes it.

    Best-fit decreasing (Johnson et al. 1974, SIAM J. Comput. 3(4)): at most 11/9 of the least possible number
    of packs, plus 4. Documents of a pack stand longest first, so that equal lengths are neighbours, which
    attention batches. Equal lengths are placed together: the fullest pack that takes one takes as many as fit,
    which makes the time one of different lengths rather than of documents.

    :param lengths: tokens of each document, each from 1 to `capacity`.
    :param capacity: tokens of a pack.
    :return: indices into `lengths`, pack by pack; each index once.
    """
    assert all(0 < length <= capacity for length in lengths), "documents are cut to the pack's size before"
    packs: list[list[int]] = []
    spaces: list[tuple[int, int]] = []  # (tokens left, pack), in order
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    for length, group in groupby(order, key=lengths.__getitem__):
        equal, placed = list(group), 0
        while placed < len(equal):
            place = bisect_left(spaces, (length, -1))
            if place == len(spaces):
                packs.append([])
                left, pack = capacity, len(packs) - 1
            else:
                left, pack = spaces.pop(place)
            taken = min(len(equal) - placed, left // length)
            packs[pack] += equal[placed : placed + taken]
            placed += taken
            if left > taken * length:
                insort(spaces, (left - taken * length, pack))
    return packs
