"""Which pieces lie in which pack, window by window, and the position that finds the next one. P pieces of a window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from xtuner_core.data.mixture import Mixture
from xtuner_core.data.packing import best_fit
from xtuner_core.data.pieces import Pieces
from xtuner_core.data.shuffle import Permutation

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Position:
    """The pack that comes next."""

    epoch: int = 0
    window: int = 0
    place: int = 0
    """Of the pack within its window."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a document, by where it lies."""

    dataset: int
    """Place of the dataset among those of the run."""
    document: int
    start: int
    length: int
    """Positions at which a token is predicted."""


class Packs:
    """An endless sequence of packs. A window is planned when it is reached; two are held.

    :param mixture: decides which pieces a window has.
    :param pieces: of each part of the mixture.
    :param datasets: the place of each part among the run's datasets.
    :param capacity: tokens of a pack; no piece is longer.
    """

    def __init__(
        self,
        mixture: Mixture,
        pieces: Sequence[Pieces],
        datasets: Sequence[int],
        *,
        capacity: int,
        seed: int,
        shuffle: bool,
    ) -> None:
        self._mixture = mixture
        self._pieces = tuple(pieces)
        self._datasets = tuple(datasets)
        self._capacity = capacity
        self._seed = seed
        self._shuffle = shuffle
        self.window = lru_cache(maxsize=2)(self._plan)

    def read(self, position: Position) -> Iterator[tuple[tuple[Piece, ...], Position]]:
        """Yield every pack from `position` on, each with the position that follows it; never ends."""
        epoch, window, first = position.epoch, position.window, position.place
        while True:
            while window < self._mixture.windows(epoch):
                packs = self.window(epoch, window)
                for place in range(first, len(packs)):
                    last = place + 1 == len(packs)
                    yield packs[place], self._at(epoch, window + 1) if last else Position(epoch, window, place + 1)
                window, first = window + 1, 0
            epoch, window = epoch + 1, 0

    def _at(self, epoch: int, window: int) -> Position:
        """The first pack of a window, which may be the one after an epoch's last."""
        return Position(epoch, window) if window < self._mixture.windows(epoch) else Position(epoch + 1)

    def count(self, epoch: int) -> int:
        """Packs of an epoch. Plans it whole: about two seconds for a million pieces."""
        return sum(
            len(best_fit(self._lengths(epoch, w)[1], self._capacity)) for w in range(self._mixture.windows(epoch))
        )

    def _lengths(self, epoch: int, window: int) -> tuple[list[tuple[Array, Array, Array]], list[int]]:
        """The pieces of a window by part (documents, starts, lengths), and the lengths of all."""
        found = []
        for pieces, numbers in zip(self._pieces, self._mixture.window(epoch, window), strict=True):
            spans = pieces.locate(numbers)
            found.append((spans.documents, spans.starts, spans.lengths))
        return found, np.concatenate([lengths for _, _, lengths in found]).tolist()

    def _plan(self, epoch: int, window: int) -> list[tuple[Piece, ...]]:
        found, lengths = self._lengths(epoch, window)
        members = [
            Piece(dataset, *span)
            for dataset, spans in zip(self._datasets, found, strict=True)
            for span in zip(*(each.tolist() for each in spans), strict=True)
        ]
        packs = best_fit(lengths, self._capacity)
        if self._shuffle:
            order = Permutation(len(packs), self._seed, "packs", epoch, window)(np.arange(len(packs)))
            packs = [packs[place] for place in order.tolist()]
        else:
            packs.sort(key=min)
        return [tuple(members[index] for index in pack) for pack in packs]
