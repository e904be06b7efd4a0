"""A corpus of texts that are in memory, or made as they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from xtuner_core.contracts.dataset import Origin, Shard, Split, TextRecord


class TextCorpus:
    """Plain texts as a dataset, for what is small: one shard a part.

    :param name: stands in messages where a file's name would.
    :param train: texts to train on; read again for each pass.
    :param held_out: texts to score.
    :param tokenizer: folder of a tokenizer that belongs to them.
    """

    def __init__(
        self, name: str, train: Iterable[str], held_out: Iterable[str] = (), *, tokenizer: Path | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self._name = name
        self._texts: dict[Split, tuple[str, ...]] = {"train": tuple(train), "held_out": tuple(held_out)}

    def fingerprint(self) -> str:
        """Identify the texts and their division."""
        digest = hashlib.sha256()
        for split, texts in self._texts.items():
            for text in (split, *texts):
                content = text.encode("utf-8", "surrogatepass")
                digest.update(len(content).to_bytes(8, "little") + content)
        return digest.hexdigest()

    def shards(self, split: Split) -> Sequence[Shard]:
        """One piece, or none where there are no texts."""
        texts = self._texts[split]
        return [Shard(index=0, bytes=sum(len(text) for text in texts))] if texts else []

    def read(self, split: Split, shard: Shard) -> Iterator[TextRecord]:
        """Yield the texts of a part."""
        del shard
        for number, text in enumerate(self._texts[split], start=1):
            yield TextRecord(origin=Origin(f"{self._name} {split}", number), text=text)
