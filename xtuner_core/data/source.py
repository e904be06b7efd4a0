"""An endless source of packs in a seeded order, whose exact position is two numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from xtuner_core.contracts.batch import Document, PackedBatch, pack
from xtuner_core.data.packing import best_fit

WINDOW = 4096
"""Documents that are packed together. More fill better; fewer keep the shuffled order closer."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a source has been read: the pack that comes next."""

    epoch: int = 0
    pack: int = 0


class PackSource:
    """Packs of exactly `capacity` tokens, epoch after epoch, each epoch in an order of its own.

    The order depends on the seed and the epoch only, so a position finds the same packs again.

    :param documents: at least one, each of 1 to `capacity` tokens; any sequence, a lazily read one included.
    :param lengths: their tokens.
    :param capacity: tokens of a pack, filler included.
    :param seed: seeds the order of documents and packs.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        lengths: Sequence[int],
        *,
        capacity: int,
        seed: int,
        window: int = WINDOW,
    ) -> None:
        assert len(documents) == len(lengths) > 0
        self._documents = documents
        self._lengths = lengths
        self._capacity = capacity
        self._seed = seed
        self._window = window

    def read(self, position: Position) -> Iterator[tuple[PackedBatch, Position]]:
        """Yield every pack from `position` on, each with the position that follows it; never ends."""
        epoch, first = position.epoch, position.pack
        while True:
            for index, members in enumerate(self.plan(epoch)):
                if index >= first:
                    batch = pack([self._documents[i] for i in members], capacity=self._capacity)
                    yield batch, Position(epoch, index + 1)
            epoch, first = epoch + 1, 0

    def plan(self, epoch: int) -> Iterator[list[int]]:
        """Yield the indices of the documents of each pack of an epoch."""
        random = torch.Generator().manual_seed(_mix(self._seed, epoch))
        order = torch.randperm(len(self._lengths), generator=random).tolist()
        for start in range(0, len(order), self._window):
            chosen = order[start : start + self._window]
            packs = best_fit([self._lengths[i] for i in chosen], self._capacity)
            for place in torch.randperm(len(packs), generator=random).tolist():
                yield [chosen[i] for i in packs[place]]


def _mix(seed: int, epoch: int) -> int:
    """Make a seed for one epoch; neighbouring seeds and epochs do not meet."""
    return (seed * 1_000_003 + epoch) % 2**63
