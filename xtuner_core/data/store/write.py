"""Pieces to a store, in the order of their shards, whatever the order in which they were made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xtuner_core.data.store.header import FileSum, Header, SummedFile, write_header
from xtuner_core.data.store.shard import FIRST, ROW, Piece, add_counts, piece_file, plain_weights

CHUNK = 1 << 22
"""Bytes that are copied at a time."""


class StoreWriter:
    """Appends pieces to the files of a store, and writes the header at the end.

    In memory: the rows of one piece and the names of the files that documents are from.

    :param folder: an empty one, beside the place where the store will stand.
    :param ids: dtype of the ids.
    """

    def __init__(self, folder: Path, ids: np.dtype[Any]) -> None:
        self._folder = folder
        self._dtype = ids
        self._ids = SummedFile(folder / "ids")
        self._documents = SummedFile(folder / "documents")
        self._weights: SummedFile | None = None
        self._kind: str | None = None
        self._names: dict[str, int] = {}
        self._broken: Counter[str] = Counter()
        self._first: list[tuple[str, int | None, str]] = []
        self._records, self._count, self._tokens, self._bytes = 0, 0, 0, 0

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *failure: object) -> None:
        for file in (self._ids, self._documents, self._weights):
            if file is not None:
                file.close()

    def append(self, piece: Piece, folder: Path) -> None:
        """Take over a piece, and remove its files."""
        rows = np.fromfile(piece_file(folder, piece.index, "rows"), dtype=np.int64).reshape(-1, len(ROW))
        assert len(rows) == piece.documents
        self._append_weights(piece, folder, rows[:, 0])
        for part in chunks(piece_file(folder, piece.index, "ids")):
            self._ids.write(part)
        names = [self._names.setdefault(name, len(self._names)) for name in piece.files]
        rows[:, 0] = self._tokens + np.cumsum(rows[:, 0])
        rows[:, 2] = np.array(names, dtype=np.int64)[rows[:, 2]]
        self._documents.write(rows.data.cast("B") if rows.size else b"")
        self._records += piece.records
        self._count += len(rows)
        self._tokens += piece.tokens
        self._bytes += int(rows[:, 1].sum())
        add_counts(self._broken, piece.broken)
        self._first += piece.first_broken[: FIRST - len(self._first)]
        for name in ("ids", "rows", "weights"):
            piece_file(folder, piece.index, name).unlink(missing_ok=True)

    def finish(self, made_from: Mapping[str, Any]) -> None:
        """Close the files and write the header."""
        names = SummedFile(self._folder / "files.json")
        names.write(json.dumps(list(self._names)).encode())
        written = {"ids": self._ids, "documents": self._documents, "files.json": names}
        if self._weights is not None:
            written["weights"] = self._weights
        sums: dict[str, FileSum] = {name: file.close() for name, file in written.items()}
        header = Header(
            records=self._records,
            documents=self._count,
            tokens=self._tokens,
            text_bytes=self._bytes,
            ids=self._dtype.name,
            weights=self._kind,
            broken=dict(self._broken),
            first_broken=tuple(self._first),
            made_from=made_from,
            files=sums,
        )
        write_header(self._folder, header)

    def _append_weights(self, piece: Piece, folder: Path, lengths_D: np.ndarray[Any, Any]) -> None:
        """Add a piece's weights in a dtype that holds all so far; those that no document names are filled in."""
        if piece.weights is None and self._weights is None:
            return
        self._widen(piece.weights or "uint8")
        assert self._weights is not None
        if piece.weights is None:
            for size in lengths_D.tolist():
                self._weights.write(plain_weights(size).astype(self._kind).data.cast("B"))
            return
        for part in chunks(piece_file(folder, piece.index, "weights")):
            self._weights.write(np.frombuffer(part, dtype=np.float32).astype(self._kind).data.cast("B"))

    def _widen(self, kind: str) -> None:
        if self._kind == "float32" or self._kind == kind:
            return
        path, before = self._folder / "weights", self._weights
        wide = SummedFile(path.with_suffix(".wide"))
        if before is None:
            for size in self._lengths():
                wide.write(plain_weights(size).astype(kind).data.cast("B"))
        else:
            before.close()
            for part in chunks(path):
                wide.write(np.frombuffer(part, dtype=np.uint8).astype(kind).data.cast("B"))
        wide.move(path)
        self._weights, self._kind = wide, kind

    def _lengths(self) -> Iterator[int]:
        """Tokens of each document so far."""
        end = 0
        self._documents.flush()
        for part in chunks(self._documents.path):
            for stop in np.frombuffer(part, dtype=np.int64).reshape(-1, len(ROW))[:, 0].tolist():
                yield stop - end
                end = stop


def chunks(file: Path) -> Iterator[bytes]:
    """The bytes of a file, `CHUNK` at a time."""
    with file.open("rb") as stream:
        yield from iter(lambda: stream.read(CHUNK), b"")
