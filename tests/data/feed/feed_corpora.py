"""Corpora and an encoder that other processes can import: this file's folder is on `sys.path` while tests run."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xtuner_core.contracts.dataset import BrokenRecord, Origin, Record, Shard, Split, TextRecord, TokenRecord
from xtuner_core.data.encoding.encoded import Encoded, Encoding
from xtuner_core.errors import DataError


@dataclass
class Listed:
    """Records in a list, a few a shard."""

    train: Sequence[Record | BrokenRecord]
    held_out: Sequence[Record | BrokenRecord] = ()
    per_shard: int = 4
    tokenizer: Path | None = None

    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def shards(self, split: Split) -> Sequence[Shard]:
        starts = range(0, len(getattr(self, split)), self.per_shard)
        return [Shard(index=i, bytes=100, place={"first": start}) for i, start in enumerate(starts)]

    def read(self, split: Split, shard: Shard) -> Iterator[Record | BrokenRecord]:
        start = shard.place["first"]
        yield from getattr(self, split)[start : start + self.per_shard]


class Deadly(Listed):
    """Kills the process that reads its third shard."""

    def read(self, split: Split, shard: Shard) -> Iterator[Record | BrokenRecord]:
        if shard.index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(split, shard)


class Cut(Listed):
    """Cannot be read beyond its second shard."""

    def read(self, split: Split, shard: Shard) -> Iterator[Record | BrokenRecord]:
        if shard.index == 2:
            raise DataError("corpus.jsonl.gz ends in the middle", fix="fetch it again")
        return super().read(split, shard)


class Buggy(Listed):
    """Has a bug."""

    def read(self, split: Split, shard: Shard) -> Iterator[Record | BrokenRecord]:
        raise ZeroDivisionError("a bug of the corpus")


class Slow(Listed):
    """Leaves a mark for each shard that is read; the first is done a moment after the fourth was begun."""

    def read(self, split: Split, shard: Shard) -> Iterator[Record | BrokenRecord]:
        folder = Path(self.train[0].origin.file)
        (folder / f"read-{shard.index}").touch()
        while shard.index == 0 and not (folder / "read-3").exists():
            time.sleep(0.01)
        time.sleep(0 if shard.index else 0.2)
        return super().read(split, shard)


@dataclass
class Waiting(Listed):
    """Leaves a mark with its process for each shard; the sixth waits for a file named `go`."""

    marks: str = ""

    def read(self, split: Split, shard: Shard) -> Iterator[Record | BrokenRecord]:
        (Path(self.marks) / f"{shard.index}-{os.getpid()}").touch()
        while shard.index == 5 and not (Path(self.marks) / "go").exists():
            time.sleep(0.01)
        return super().read(split, shard)


def marked(folder: Path) -> TokenRecord:
    """A record by which `Slow` knows where to leave its marks."""
    return TokenRecord(origin=Origin(str(folder)), token_ids=[1, 2])


def broken(file: str, line: int, reason: str) -> BrokenRecord:
    """A record that cannot be read."""
    return BrokenRecord(origin=Origin(file, line), reason=reason)


class Ids:
    """Token ids as they are; a text is its code points, and becomes a document a line."""

    def fingerprint(self) -> str:
        return "ids"

    def __call__(self, records: Sequence[Record | BrokenRecord]) -> list[Encoding]:
        return [self._encode(record) for record in records]

    def _encode(self, record: Record | BrokenRecord) -> Encoding:
        if isinstance(record, TokenRecord):
            weights = None if record.weights is None else np.array(record.weights, dtype=np.float32)
            return (Encoded(np.array(record.token_ids, dtype=np.uint32), weights),)
        if isinstance(record, TextRecord):
            lines = record.text.splitlines()
            return tuple(Encoded(np.array([ord(each) for each in line], dtype=np.uint32)) for line in lines)
        return record


def tokens(count: int, *, sizes: Sequence[int] = (5, 9, 3, 12), base: int = 0) -> list[TokenRecord]:
    """Documents of given sizes in turn; every token is another number, so that a test finds it again."""
    records, first = [], base
    for number in range(count):
        size = sizes[number % len(sizes)]
        ids = range(first, first + size)
        records.append(TokenRecord(origin=Origin("listed.jsonl", number + 1), token_ids=list(ids)))
        first += size
    return records
