"""A store as a run reads it: documents by number, from memory-mapped files. D documents, t tokens of one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from xtuner_core.contracts.dataset import Origin
from xtuner_core.data.encoding.encoded import Encoded
from xtuner_core.data.store.header import Header, read_header
from xtuner_core.data.store.shard import ROW

Array = np.ndarray[Any, Any]


class TokenStore(Sequence[Encoded]):
    """The encoded documents of one part of a dataset.

    Only lengths are held in memory (8 bytes a document, when they are asked for); the rest is mapped, so that the
    system drops what it needs no longer.

    :param folder: a finished store; any number of processes may read it.
    :raises Damaged: it is not what was written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header: Header = read_header(folder)
        self._ids = _mapped(folder / "ids", self.header.ids, self.header.tokens)
        self._rows = _mapped(folder / "documents", "int64", self.header.documents * len(ROW)).reshape(-1, len(ROW))
        kind = self.header.weights
        self._weights = None if kind is None else _mapped(folder / "weights", kind, self.header.tokens)

    def __len__(self) -> int:
        return self.header.documents

    @overload
    def __getitem__(self, index: int) -> Encoded: ...

    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...

    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        ids, weights = self.span(place, 0, self._end(place) - self._end(place - 1))
        return Encoded(ids.astype(np.uint32), None if weights is None else weights.astype(np.float32))

    def span(self, document: int, start: int, stop: int) -> tuple[Array, Array | None]:
        """Tokens `start` to `stop` of a document, and their weights, in the store's dtypes.

        :return: ids [t], and weights [t] or None where every token but the document's first counts 1.
        """
        first = self._end(document - 1)
        cut = slice(first + start, first + stop)
        return self._ids[cut], None if self._weights is None else self._weights[cut]

    @cached_property
    def lengths(self) -> Array:
        """Tokens of each document, int64 [D]."""
        return np.diff(self._rows[:, 0], prepend=0)

    @property
    def text_bytes(self) -> Array:
        """UTF-8 bytes of each document's text, int64 [D]; 0 for what was no plain text."""
        return self._rows[:, 1]

    def origin(self, document: int) -> Origin:
        """Where a document stands in its source."""
        _, _, file, line = self._rows[document].tolist()
        return Origin(self._names[file], line or None)

    @cached_property
    def _names(self) -> list[str]:
        names: list[str] = json.loads((self.folder / "files.json").read_text(encoding="utf-8"))
        return names

    def _end(self, document: int) -> int:
        return int(self._rows[document, 0]) if document >= 0 else 0


def _mapped(file: Path, dtype: str, size: int) -> Array:
    if not size:  # an empty file cannot be mapped
        return np.empty(0, dtype=dtype)
    # A plain array on the map: slices of `memmap` cost several times as much.
    return np.asarray(np.memmap(file, dtype=dtype, mode="r", shape=(size,)))
