"""The dataset `tiny_texts`: sentences of few words in an order that a seed decides, and a tokenizer of bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from xtuner_core.contracts.dataset import Split

WORDS = ("abra", "cadabra", "hocus", "pocus", "simsala", "bim")
TOKENIZER = Path(str(files("xtuner_core.testing").joinpath("tokenizer")))
"""Folder of a tokenizer whose ids are the bytes, and one for the end of a text."""
DOCUMENTS = {"train": 100, "held_out": 8}


class TinyTexts:
    """Texts of 10 to 30 words."""

    def __init__(self) -> None:
        self.tokenizer: Path | None = TOKENIZER

    def texts(self, split: Split) -> Iterator[str]:
        """Yield the texts of a part, always the same."""
        draw = random.Random(split)
        for _ in range(DOCUMENTS[split]):
            yield " ".join(draw.choices(WORDS, k=draw.randint(10, 30)))


def open_texts(config: None) -> TinyTexts:
    """Open the texts; there is nothing to configure."""
    del config
    return TinyTexts()
