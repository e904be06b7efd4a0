"""Questions about the bundled text with their answers, so that fine-tuning has conversations without a download.

Every eighth verse of a chapter gives one: which verse follows it, or how it goes on after its first half. Chapters are
those of the text's own split, so that no held-out answer stands in the training text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from xtuner_core.builtin.kjv.text import documents, heading, verses
from xtuner_core.contracts.dataset import ChatRecord, Origin, Shard, Split

EVERY = 8
"""Verses of a chapter from one question to the next."""


class Questions:
    """The conversations as a corpus, in the order of the text."""

    def __init__(self) -> None:
        self.tokenizer: Path | None = Path(str(files(__package__)))
        self._pairs: dict[Split, tuple[tuple[str, str], ...]] = {
            "train": tuple(pairs("train")),
            "held_out": tuple(pairs("held_out")),
        }

    def fingerprint(self) -> str:
        """Identify the conversations."""
        return hashlib.sha256(repr(self._pairs).encode()).hexdigest()

    def shards(self, split: Split) -> Sequence[Shard]:
        """One piece."""
        return [Shard(index=0, bytes=sum(len(question) + len(answer) for question, answer in self._pairs[split]))]

    def read(self, split: Split, shard: Shard) -> Iterator[ChatRecord]:
        """Yield the conversations of a part."""
        del shard
        for number, (question, answer) in enumerate(self._pairs[split], start=1):
            messages = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
            yield ChatRecord(origin=Origin(f"kjv_questions {split}", number), messages=messages)


def open_corpus(config: None, *, cache: Path) -> Questions:
    """Open the conversations; there is nothing to configure."""
    del config, cache
    return Questions()


def pairs(split: Split) -> Iterator[tuple[str, str]]:
    """Yield questions with their answers, the two kinds in turn."""
    asked = 0
    for chapter in documents(split):
        book, lines = heading(chapter).rpartition(" ")[0], verses(chapter)
        for verse, following in zip(lines[::EVERY], lines[1::EVERY], strict=False):
            yield _next(book, verse, following) if asked % 2 else _rest(book, verse)
            asked += 1


def _next(book: str, verse: str, following: str) -> tuple[str, str]:
    return f"Which verse of {book} follows this one? {verse}", following


def _rest(book: str, verse: str) -> tuple[str, str]:
    words = verse.split(" ")
    half = max(1, len(words) // 2)
    return f"How does this verse of {book} go on? {' '.join(words[:half])}", " ".join(words[half:])
