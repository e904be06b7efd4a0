"""Which rows travel in which round: arithmetic on the host, the same on every rank. Imports no torch.

A rank's experts see the rows of source 0 first, then those of source 1 and so on. A round takes the next so many of
this sequence, whatever its sources: no round is larger than the bound, and all but a rank's last are as large as it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Traffic:
    """How many rows go from where to where, and how many of them a rank's experts take at once."""

    rows: Sequence[Sequence[int]]
    """By source and destination."""
    most: int
    """N at most."""

    @cached_property
    def arriving(self) -> list[int]:
        """Rows of each destination, in all rounds."""
        return [sum(column) for column in zip(*self.rows, strict=True)]

    @property
    def rounds(self) -> int:
        """As many as the fullest destination needs, at least one."""
        return max(1, -(-max(self.arriving) // self.most))

    def window(self, destination: int, turn: int) -> slice:
        """Which of its arriving rows a destination takes in a round."""
        end = self.arriving[destination]
        return slice(min(turn * self.most, end), min((turn + 1) * self.most, end))

    def sent(self, source: int, turn: int) -> list[slice]:
        """Which of the rows that a source sends in all, sorted by destination, go to each destination in a round."""
        found, start = [], 0
        for destination, count in enumerate(self.rows[source]):
            own = self._share(source, destination, turn)
            found.append(slice(start + own.start, start + own.stop))
            start += count
        return found

    def received(self, destination: int, turn: int) -> list[int]:
        """How many rows a destination takes from each source in a round."""
        return [_length(self._share(source, destination, turn)) for source in range(len(self.rows))]

    def _share(self, source: int, destination: int, turn: int) -> slice:
        """Which of the rows between the two travel in a round."""
        before = self._before[source][destination]
        count = self.rows[source][destination]
        window = self.window(destination, turn)
        start, stop = (min(max(edge - before, 0), count) for edge in (window.start, window.stop))
        return slice(start, stop)

    @cached_property
    def _before(self) -> list[list[int]]:
        """Rows that arrive at a destination before those of a source."""
        found = [[0] * len(self.rows)]
        for row in self.rows[:-1]:
            found.append([a + b for a, b in zip(found[-1], row, strict=True)])
        return found


def lengths(slices: Sequence[slice]) -> list[int]:
    """Of each slice."""
    return [_length(each) for each in slices]


def _length(each: slice) -> int:
    return int(each.stop - each.start)
