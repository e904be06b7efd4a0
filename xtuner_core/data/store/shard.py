"""One shard to a piece of a store: read, encoded in batches, written as flat arrays. Imports no torch.

A piece is two or three files: ids, weights where any token's differs from 1, and a row of numbers a document.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from xtuner_core.contracts.dataset import BrokenRecord, ChatRecord, Corpus, Record, Shard, Split, TextRecord
from xtuner_core.errors import DataError, UsageError

if TYPE_CHECKING:
    from xtuner_core.data.encoding.encoded import Encoder, Encoding

BATCH_RECORDS = 512
BATCH_CHARACTERS = 1 << 20
"""A batch for the tokenizer ends with the record that brings it to either. Records are never cut."""
FIRST = 10
"""Broken records of a dataset whose place and reason are kept; all are counted."""
KINDS = 50
"""Kinds of reasons that are counted apart; what more there are is counted as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is the same for all shards of a part. It is pickled to the processes."""

    dataset: str
    corpus: Corpus
    split: Split
    encoder: Encoder
    vocabulary: int
    folder: Path
    """Where the pieces are written."""

    @property
    def ids(self) -> np.dtype[Any]:
        """The smallest dtype that holds every id."""
        return np.dtype(np.uint16 if self.vocabulary <= 1 << 16 else np.uint32)


@dataclass(slots=True, kw_only=True)
class Piece:
    """What a shard became. Plain data; the arrays lie in files."""

    index: int
    records: int = 0
    """Readable or not."""
    documents: int = 0
    """A record may become several."""
    tokens: int = 0
    weights: str | None = None
    """The smallest dtype that holds the weights, `uint8` or `float32`; their file is float32. None without a file."""
    files: list[str] = field(default_factory=list)
    """Names that the column `file` of the rows counts."""
    broken: Counter[str] = field(default_factory=Counter)
    first_broken: list[tuple[str, int | None, str]] = field(default_factory=list)

    def count_broken(self, record: BrokenRecord) -> None:
        """Count one, and keep its place if it is among the first."""
        add_counts(self.broken, {kind_of(record.reason): 1})
        if len(self.first_broken) < FIRST:
            self.first_broken.append((record.origin.file, record.origin.line, record.reason))


def kind_of(reason: str) -> str:
    """What is alike in the reasons of one kind: no details in brackets, no numbers."""
    return re.sub(r"\d+", "N", reason.partition(" (")[0])


def add_counts(counts: Counter[str], more: Any) -> None:
    """Add counts of reasons; when there are too many kinds, the new ones are counted together."""
    for reason, count in more.items():
        known = reason in counts or len(counts) < KINDS
        counts[reason if known else "of another kind"] += count


ROW = ("tokens", "text_bytes", "file", "line")
"""Columns of the rows, int64; line 0 means none."""


def piece_file(folder: Path, index: int, name: str) -> Path:
    """Where a part of a piece lies: `ids`, `weights` or `rows`."""
    return folder / f"{index:08d}.{name}"


def encode_shard(job: Job, shard: Shard) -> Piece:
    """Write a shard's piece. In memory at once: one batch of records with its ids, and the shard's rows.

    :raises DataError: the corpus cannot be read further.
    :raises UsageError: the piece cannot be written.
    """
    try:
        with _PieceWriter(job, shard.index) as writer:
            for batch in _batches(_records(job, shard)):
                for record, encoding in zip(batch, job.encoder(batch), strict=True):
                    writer.add(record, encoding)
                writer.write_ids()
            return writer.piece
    except OSError as error:
        raise unusable(job.folder, error) from error


def unusable(cache: Path, error: OSError) -> UsageError:
    """Say that the cache cannot be read or written."""
    return UsageError(
        f"the cache {cache} cannot be used: {error.strerror or error}",
        fix="set data.cache to a folder that you may write to, on a disk with room for the tokens",
    )


def _records(job: Job, shard: Shard) -> Iterator[Record | BrokenRecord]:
    try:
        yield from job.corpus.read(job.split, shard)
    except OSError as error:
        raise DataError(f"dataset {job.dataset} cannot be read: {error}", fix="see that its files are there") from error


def _batches(records: Iterator[Record | BrokenRecord]) -> Iterator[list[Record | BrokenRecord]]:
    batch: list[Record | BrokenRecord] = []
    characters = 0
    for record in records:
        batch.append(record)
        characters += _characters(record)
        if len(batch) >= BATCH_RECORDS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _characters(record: Record | BrokenRecord) -> int:
    """How long a record is, roughly."""
    if isinstance(record, TextRecord):
        return len(record.text)
    if isinstance(record, ChatRecord):
        return sum(len(each) for message in record.messages for each in message.values() if isinstance(each, str))
    return 0 if isinstance(record, BrokenRecord) else 4 * len(record.token_ids)


class _PieceWriter:
    def __init__(self, job: Job, index: int) -> None:
        self.piece = Piece(index=index)
        self._job = job
        self._ids: BinaryIO = piece_file(job.folder, index, "ids").open("wb")
        self._weights: BinaryIO | None = None
        self._batch: list[np.ndarray[Any, Any]] = []
        self._rows = array("q")
        self._files: dict[str, int] = {}

    def __enter__(self) -> _PieceWriter:
        return self

    def __exit__(self, *failure: object) -> None:
        self._ids.close()
        if self._weights is not None:
            self._weights.close()
        with piece_file(self._job.folder, self.piece.index, "rows").open("wb") as rows:
            self._rows.tofile(rows)
        self.piece.files = list(self._files)

    def add(self, record: Record | BrokenRecord, encoding: Encoding) -> None:
        self.piece.records += 1
        if isinstance(encoding, BrokenRecord):
            return self.piece.count_broken(encoding)
        file = self._files.setdefault(record.origin.file, len(self._files))
        text_bytes = _text_bytes(record)
        for encoded in encoding:
            size = len(encoded.token_ids)
            self._add_weights(encoded.weights, size)
            self._batch.append(encoded.token_ids)
            self._rows.extend((size, text_bytes, file, record.origin.line or 0))
            text_bytes = 0  # of a record that becomes several documents, the first has the text
            self.piece.documents += 1
            self.piece.tokens += size
        return None

    def write_ids(self) -> None:
        """Write the ids of a batch's documents at once."""
        if self._batch:
            ids = self._batch[0] if len(self._batch) == 1 else np.concatenate(self._batch)
            assert int(ids.max(initial=0)) < self._job.vocabulary, "an encoder gives ids that the tokenizer has"
            self._ids.write(ids.astype(self._job.ids).data)
            self._batch = []

    def _add_weights(self, weights: np.ndarray[Any, Any] | None, size: int) -> None:
        """Begin the file with the first document that has weights, and fill in those before it."""
        if weights is None and self._weights is None:
            return
        if self._weights is None:
            self._weights = piece_file(self._job.folder, self.piece.index, "weights").open("wb")
            self.piece.weights = "uint8"
            for before in self._rows[:: len(ROW)]:
                self._weights.write(plain_weights(before).data)
        given = plain_weights(size) if weights is None else np.asarray(weights, dtype=np.float32)
        assert len(given) == size, "a weight for every token"
        if not ((given == 0) | (given == 1)).all():
            self.piece.weights = "float32"
        self._weights.write(given.astype(np.float32).data)


def _text_bytes(record: Record | BrokenRecord) -> int:
    if not isinstance(record, TextRecord):
        return 0
    return len(record.text) if record.text.isascii() else len(record.text.encode("utf-8", "surrogatepass"))


def plain_weights(size: int) -> np.ndarray[Any, Any]:
    """Weights where a document names none: every token but the first is a target, float32 [t]."""
    weights = np.ones(size, dtype=np.float32)
    weights[:1] = 0
    return weights
