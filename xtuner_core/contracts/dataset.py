"""What a dataset is: texts of a training and a held-out part, and the tokenizer that it may bring along."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

Split = Literal["train", "held_out"]


class Corpus(Protocol):
    """A source of texts in a fixed order."""

    tokenizer: Path | None
    """Folder of a tokenizer that belongs to these texts; used where the run names none."""

    def texts(self, split: Split) -> Iterator[str]:
        """The documents of a part, each a string."""


class CorpusFactory(Protocol):
    """What a dataset provider's `factory` names."""

    def __call__(self, config: Any) -> Corpus:
        """Open the dataset of `config`."""
