"""A text too long for one call of the tokenizer, which needs about 100 bytes for each of its tokens.

It is tokenised in pieces that overlap. Where two neighbours agree on a run of tokens (ids, places, and where the
tokenizer cuts words before it merges anything), both are joined in the middle of the run. That gives the ids of the
whole text:

- Where the run holds a border of words, both pieces continue from it alike: a tokenizer cuts words from left to
  right and its rules look ahead, not back.
- Where it holds none, both are inside one long word, and byte-pair encoding is decided by neighbours: a sequence of
  tokens encodes a text if and only if every two neighbours encode the text of the two (M. Berglund and B. van der
  Merwe, "Formalizing BPE Tokenization", 2023). Every two neighbours of the joined sequence are neighbours in a piece.
  Other models (unigram) need a border.

A piece begins where the one before has a token, so that both usually agree at once. Where they do not (the beginning
of a text counts as a space, say, and shifts the eights in a long row of one letter), other beginnings and longer
overlaps are tried, up to the whole text in one call.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from xtuner_core.contracts.tokenizer import Aligner, Alignment

PIECE = 1 << 18
"""Characters of a piece."""
OVERLAP = 1 << 12
"""Characters that a piece has in common with the one before, at first."""
RUN = 64
"""Tokens in a row on which two pieces must agree."""
SHIFTS = 32
"""Beginnings that are tried, a character apart, before the overlap is doubled."""


def encode_long(text: str, tokenizer: Aligner, *, piece: int = PIECE, overlap: int = OVERLAP) -> NDArray[np.uint32]:
    """Ids of `text` as one call would give them: uint32 [t].

    :param piece: characters of one call; twice as many, and so on, only where neighbours do not agree.
    :param overlap: at most half of `piece`.
    """
    return np.concatenate([part.token_ids for part in _parts(text, tokenizer, piece, overlap)])


def align_long(text: str, tokenizer: Aligner, *, piece: int = PIECE, overlap: int = OVERLAP) -> Alignment:
    """Ids of `text` and their places, as one call would give them; but `words` counts anew in each piece."""
    parts = list(_parts(text, tokenizer, piece, overlap))
    columns = ("token_ids", "starts", "ends", "words")
    return Alignment(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def _parts(text: str, tokenizer: Aligner, piece: int, overlap: int) -> Iterator[Alignment]:
    """Yield the tokens of each piece up to where the next one takes over."""
    start, stop, taken = 0, piece, 0
    here = _align(text, start, stop, tokenizer)
    while stop < len(text):
        for begin in _beginnings(text, here, start, stop, overlap, tokenizer):
            end = max(begin + piece, 2 * stop - begin)
            following = _align(text, begin, end, tokenizer)
            cut = _agreement(here, following, begin, stop, inside=tokenizer.merges)
            if cut:
                yield _cut(here, taken, cut[0])
                start, stop, here, taken = begin, end, following, cut[1]
                break
        else:
            stop += stop - start
            here = _align(text, start, stop, tokenizer)
    yield _cut(here, taken, len(here.token_ids))


def _cut(piece: Alignment, start: int, stop: int) -> Alignment:
    part = slice(start, stop)
    return Alignment(piece.token_ids[part], piece.starts[part], piece.ends[part], piece.words[part])


def _beginnings(text: str, here: Alignment, start: int, stop: int, overlap: int, tokenizer: Aligner) -> Iterator[int]:
    """Yield where a piece behind `here` can begin, as a short look at each place shows."""
    shifts = SHIFTS if tokenizer.merges else 0  # borders of words lie where they lie
    while 2 * overlap <= stop - start:
        token = int(np.searchsorted(here.starts, stop - overlap, side="right")) - 1
        for shift in range(shifts + 1):
            begin = int(here.starts[token]) - shift
            glimpse = _align(text, begin, stop + overlap, tokenizer)
            if begin > start and _agreement(here, glimpse, begin, stop, inside=tokenizer.merges):
                yield begin
        shifts, overlap = 0, 2 * overlap


def _align(text: str, start: int, stop: int, tokenizer: Aligner) -> Alignment:
    """Tokenise a part; places count in the whole text."""
    part = tokenizer.align_batch([text[start:stop]])[0]
    return Alignment(part.token_ids, part.starts + start, part.ends + start, part.words)


def _agreement(left: Alignment, right: Alignment, begin: int, stop: int, *, inside: bool) -> tuple[int, int] | None:
    """Find `RUN` tokens that both have in common, and the index in each at which they are joined.

    :param begin: where the right piece begins; what is near it, or near `stop`, is not looked at.
    :param stop: where the left piece ends, before the right one does.
    :param inside: whether both may be joined inside a word.
    """
    margin = (stop - begin) // 4
    first, second = (_rows(piece, begin + margin, stop - margin) for piece in (left, right))
    i = j = common = 0
    while i < len(first[1]) and j < len(second[1]):
        mine, other = first[1][i], second[1][j]
        common = common + 1 if mine == other else 0
        i, j = i + (mine[:2] <= other[:2]), j + (other[:2] <= mine[:2])
        if common >= RUN:
            back = _joint(first[1][i - RUN : i], inside)
            if back:
                return first[0] + i - back, second[0] + j - back
    return None


def _rows(piece: Alignment, begin: int, stop: int) -> tuple[int, list[tuple[int, ...]]]:
    """Index of the first token within, and of each its place, its id, and whether a word begins with it."""
    low, high = np.searchsorted(piece.starts, [begin, stop])
    words = np.diff(piece.words[max(low - 1, 0) : high], prepend=-2)[-(high - low) :] != 0 if high > low else []
    columns = (piece.starts[low:high], piece.ends[low:high], piece.token_ids[low:high], words)
    return int(low), list(zip(*(np.asarray(column).tolist() for column in columns), strict=True))


def _joint(run: list[tuple[int, ...]], inside: bool) -> int:
    """Count back from a run's end to the token near its middle at which pieces are joined; 0 where there is none."""
    for index in sorted(range(1, len(run)), key=lambda index: abs(index - len(run) // 2)):
        within_a_character = run[index][0] < run[index - 1][1]
        if not within_a_character and (inside or run[index][3]):
            return len(run) - index
    return 0
