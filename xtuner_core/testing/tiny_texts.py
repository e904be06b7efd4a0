"""The dataset `tiny_texts`: sentences of few words in an order that a seed decides, and a tokenizer of bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from xtuner_core.contracts.dataset import Split
from xtuner_core.data.memory import TextCorpus

WORDS = ("abra", "cadabra", "hocus", "pocus", "simsala", "bim")
TOKENIZER = Path(str(files("xtuner_core.testing").joinpath("tokenizer")))
"""Folder of a tokenizer whose ids are the bytes, and one for the end of a text."""
DOCUMENTS = {"train": 100, "held_out": 8}


def tiny_texts() -> TextCorpus:
    """Texts of 10 to 30 words, always the same."""
    return TextCorpus("tiny_texts", _texts("train"), _texts("held_out"), tokenizer=TOKENIZER)


def _texts(split: Split) -> Iterator[str]:
    draw = random.Random(split)
    for _ in range(DOCUMENTS[split]):
        yield " ".join(draw.choices(WORDS, k=draw.randint(10, 30)))


def open_texts(config: None, *, cache: Path) -> TextCorpus:
    """Open the texts; there is nothing to configure."""
    del config, cache
    return tiny_texts()
