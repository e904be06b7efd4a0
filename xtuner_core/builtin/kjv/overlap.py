"""How much of a chapter stands word for word elsewhere, and the choice of held-out chapters from that.

The Bible repeats itself: Chronicles retells Kings, the gospels one another. A held-out chapter that the
training text also contains would measure memory in the place of prediction, so repetition has two limits.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from xtuner_core.builtin.kjv.text import heading

LONGEST_SHARED_RUN = 120
"""Bytes: the longest verbatim run that a held-out chapter may share with any other chapter.

A verse has 132 bytes on average: below that stand the stock phrases that belong to the language of the book
("are they not written in the book of the chronicles of the kings of Judah"), above it copied passages.
"""

LARGEST_SHARED_SHARE = 0.02
"""The largest share of a held-out chapter's shingles that may stand in any other chapter.

It catches parallel chapters whose wording differs every few words, so that no single run is long.
"""

SHINGLE = 50
"""Bytes: about ten words, long enough that ordinary phrases seldom agree by chance."""

CHAPTERS_PER_HELD_OUT = 20

# Every shared run of at least 2 * _BLOCK - 1 bytes covers one aligned block whole, so looking up aligned blocks
# finds all shingles that are shared, and every run longer than a shingle exactly.
_BLOCK = 25


@dataclass(frozen=True)
class Overlap:
    """What one text shares with others: bytes of the longest run, share of the shingles in [0, 1]."""

    longest_run: int
    shared_share: float

    @property
    def acceptable(self) -> bool:
        """Whether both limits for held-out text hold."""
        return self.longest_run <= LONGEST_SHARED_RUN and self.shared_share <= LARGEST_SHARED_SHARE


def overlap(held: str, train: Iterable[str]) -> Overlap:
    """Measure what `held` shares verbatim with the texts `train`; runs below 49 bytes may count as 0."""
    return TextIndex(train).overlap(held)


def choose_held_out(chapters: list[str]) -> list[str]:
    """Return the headings of the held-out chapters, one from each full run of twenty, in canonical order."""
    index = TextIndex(chapters)
    last = len(chapters) - CHAPTERS_PER_HELD_OUT
    starts = range(0, last + 1, CHAPTERS_PER_HELD_OUT)
    return [_choose_one(chapters[start : start + CHAPTERS_PER_HELD_OUT], index) for start in starts]


def _choose_one(group: list[str], index: TextIndex) -> str:
    by_digest = sorted(group, key=lambda chapter: hashlib.sha256(heading(chapter).encode()).hexdigest())
    return next(heading(c) for c in by_digest if index.overlap(c, exclude=c).acceptable)


class TextIndex:
    """The aligned blocks of some texts by content, for finding every long run that another text shares."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = list(texts)
        self._places: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        for text in self._texts:
            for start in range(0, len(text) - _BLOCK + 1, _BLOCK):
                self._places[text[start : start + _BLOCK]].append((text, start))

    def overlap(self, held: str, exclude: str | None = None) -> Overlap:
        """Measure `held` against all indexed texts but `exclude` (compared by value)."""
        longest = 0
        shared: set[int] = set()
        for first in range(len(held) - _BLOCK + 1):
            for text, start in self._places.get(held[first : first + _BLOCK], ()):
                if text == exclude:
                    continue
                low, high = _extend(held, first, text, start)
                longest = max(longest, high - low)
                shared.update(range(low, high - SHINGLE + 1))
        return Overlap(longest, len(shared) / max(1, len(held) - SHINGLE + 1))


def _extend(held: str, first: int, text: str, start: int) -> tuple[int, int]:
    """Grow a match of one block to the whole run, as a range of positions in `held`."""
    low, high = first, first + _BLOCK
    offset = start - first
    while low > 0 and low + offset > 0 and held[low - 1] == text[low - 1 + offset]:
        low -= 1
    while high < len(held) and high + offset < len(text) and held[high] == text[high + offset]:
        high += 1
    return low, high
