"""What the core asks of a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Alignment:
    """A tokenised text of t tokens and where each stands in it, in characters."""

    token_ids: NDArray[np.uint32]
    """[t]."""
    starts: NDArray[np.int64]
    """[t]: first character of which a token holds something."""
    ends: NDArray[np.int64]
    """[t]: the character after the last."""
    words: NDArray[np.int64]
    """[t]: number of the piece that the tokenizer cut off before it merged anything; no token crosses two."""


class Aligner(Protocol):
    """What tells which characters each token stands for."""

    merges: bool
    """Whether a word's tokens are merged pair by pair (byte-pair encoding), so that neighbours decide them; with
    other models (a unigram's most probable split) the whole word does."""

    def align_batch(self, texts: Sequence[str]) -> list[Alignment]:
        """Ids of each text, and the characters that each id stands for."""


class LiteralAligner(Aligner, Protocol):
    """A tokenizer to which the texts of special tokens are text, and which knows the tokens by stand-ins."""

    stand_ins: Mapping[str, str]
    """What to write for a special token, by the token's own text."""


class Tokenizer(Aligner, Protocol):
    """Text to ids and back. It is pickled to the processes that tokenise."""

    size: int
    """Ids run from 0 to size - 1."""
    end_of_text: int
    """Id that stands between documents."""
    folder: Path
    """Where its files lie; export copies them."""
    special_tokens: Mapping[str, int]
    """Text and id of the tokens that mark structure, not content."""
    stop_tokens: Sequence[int]
    """Ids after any of which a model has ended its turn; `end_of_text` is the first of them."""

    def fingerprint(self) -> str:
        """Identify everything that decides which ids a text has; hexadecimal SHA-256."""

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without special tokens added."""

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Ids of each text, as `encode` gives them; it may use several threads."""

    def literal(self) -> LiteralAligner:
        """The same vocabulary and rules, for texts in which special tokens are spelled out as content."""

    def decode(self, token_ids: Sequence[int], *, special_tokens: bool = False) -> str:
        """Text of `token_ids`, special tokens left out or as their own text."""
