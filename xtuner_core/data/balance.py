"""Micro-batches of a step made equally dear: attention costs the square of a document's length."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

SHARES = (0.05, 0.1, 0.2, 0.4, 0.7)
"""Of the tokens: how many, in the shortest documents, are kept back to fill gaps. Each is tried."""
CHOICE = 256
"""Documents among which those for a gap are chosen."""


def balance(lengths: Sequence[int], packs: Sequence[Sequence[int]], capacity: int) -> list[list[int]]:
    """Deal the documents of some packs out again so that the dearest pack gets cheaper; none holds more than it may.

    Long documents decide what a pack costs: they are dealt first, the longest to the cheapest pack with room (longest
    processing time first, R. Graham 1969, SIAM J. Appl. Math. 17(2)). Packs from best-fit are full but for a few
    tokens, so that the short ones must then fill every gap but the last exactly: for each, a subset of them is chosen
    whose total comes closest. Where the last gap cannot take the rest, or nothing is gained, packs stay as they are.
    The same packs always give the same result.

    :param lengths: tokens of each document.
    :param packs: indices into `lengths`, pack by pack.
    :param capacity: tokens of a pack.
    :return: as many packs, of the same documents; the longest document first in each.
    """
    best = [list(pack) for pack in packs]
    top = max(costs(lengths, best), default=0)
    order = sorted((index for pack in packs for index in pack), key=lambda index: (-lengths[index], index))
    for share in SHARES if len(packs) > 1 else ():
        dealt = _deal(lengths, order, len(packs), capacity, share)
        if dealt and max(costs(lengths, dealt)) < top:
            best, top = dealt, max(costs(lengths, dealt))
    return [sorted(pack, key=lambda index: (-lengths[index], index)) for pack in best]


def _deal(lengths: Sequence[int], order: Sequence[int], count: int, capacity: int, share: float) -> list[list[int]]:
    """Deal to `count` packs, `share` of the tokens into gaps; an empty list where they do not fit."""
    kept, tokens = len(order), 0
    while kept and tokens + lengths[order[kept - 1]] <= share * count * capacity:
        kept -= 1
        tokens += lengths[order[kept]]
    packs = _deal_long(lengths, order[:kept], count, capacity)
    if not packs:
        return []
    rest = list(order[kept:])
    gaps = [capacity - sum(lengths[index] for index in pack) for pack in packs]
    *narrow, widest = sorted(range(count), key=gaps.__getitem__)
    for number in narrow:
        offered = rest[:: -(-len(rest) // CHOICE)] if rest else []
        chosen = {offered[place] for place in _closest([lengths[index] for index in offered], gaps[number])}
        packs[number] += sorted(chosen)
        rest = [index for index in rest if index not in chosen]
    packs[widest] += rest
    return packs if sum(lengths[index] for index in rest) <= gaps[widest] and all(packs) else []


def _deal_long(lengths: Sequence[int], order: Sequence[int], count: int, capacity: int) -> list[list[int]]:
    """Each document to the cheapest pack that has room; an empty list where none has."""
    packs: list[list[int]] = [[] for _ in range(count)]
    room = [capacity] * count
    cheapest = [(0, number) for number in range(count)]
    for index in order:
        passed = []
        while cheapest and room[cheapest[0][1]] < lengths[index]:
            passed.append(heapq.heappop(cheapest))
        if not cheapest:
            return []
        cost, number = cheapest[0]
        heapq.heapreplace(cheapest, (cost + lengths[index] ** 2, number))
        room[number] -= lengths[index]
        packs[number].append(index)
        for each in passed:
            heapq.heappush(cheapest, each)
    return packs


def _closest(sizes: Sequence[int], most: int) -> list[int]:
    """Places of sizes whose total comes closest to `most` from below; of equal totals, of few and great ones.

    :param sizes: the greatest first.
    """
    mask = (1 << (most + 1)) - 1
    sums = [1]  # bit s of entry n: the first n sizes can give the total s
    for size in sizes:
        sums.append((sums[-1] | sums[-1] << size) & mask)
    total = sums[-1].bit_length() - 1
    chosen = []
    for place in reversed(range(len(sizes))):
        if not sums[place] >> total & 1:
            chosen.append(place)
            total -= sizes[place]
    return chosen


def costs(lengths: Sequence[int], packs: Sequence[Sequence[int]]) -> list[int]:
    """What attention costs in each pack: the sum of its documents' squared lengths."""
    return [sum(lengths[index] ** 2 for index in pack) for pack in packs]


def imbalance(lengths: Sequence[int], packs: Sequence[Sequence[int]]) -> float:
    """The dearest pack's cost over the mean; 1 is even."""
    found = costs(lengths, packs)
    return max(found) * len(found) / sum(found) if sum(found) else 1.0
