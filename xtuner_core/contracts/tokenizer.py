"""What the core asks of a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Tokenizer(Protocol):
    """Text to ids and back."""

    size: int
    """Ids run from 0 to size - 1."""
    end_of_text: int
    """Id that stands between documents."""
    folder: Path
    """Where its files lie; export copies them."""

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without special tokens added."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of `token_ids`, special tokens left out."""
