"""One pass over a file of lines: its content's hash, and pieces that begin where lines do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from xtuner_core.builtin.files.streams import is_compressed, refuse_binary, stream
from xtuner_core.data.reading.contents import blocks, stamp
from xtuner_core.errors import DataError

SNIFFED = 64 * 1024
"""Bytes at a file's beginning by which its kind is judged."""


def scan_lines(path: Path, file: BinaryIO, *, piece_bytes: int) -> dict[str, Any]:
    """Hash a file of lines and cut it into pieces; a compressed one is a single piece.

    :param piece_bytes: a piece ends with the line that reaches this size.
    :return: `sha256` and `stamp` of the file as it lies there, `pieces` with `bytes`, `start` and `first`.
    :raises DataError: it is empty or no text in UTF-8.
    """
    whole = is_compressed(path)
    refuse_binary(beginning(path), path)
    found, cuts, blank = hashlib.sha256(), _Cuts(piece_bytes), True
    for block in blocks(file):
        found.update(block)
        blank = blank and not whole and block.isspace()
        if not whole:
            cuts.add(block)
    if blank and not whole:
        raise empty(path)
    starts = [(0, 1)] if whole else cuts.starts
    marks = stamp(file)
    ends = [start for start, _ in starts[1:]] + [marks[0]]
    pieces = [
        {"bytes": end - start, "start": start, "first": first} for (start, first), end in zip(starts, ends, strict=True)
    ]
    return {"sha256": found.hexdigest(), "stamp": marks, "pieces": [piece for piece in pieces if piece["bytes"]]}


def beginning(path: Path) -> bytes:
    """The first bytes of a file's content.

    :raises DataError: there are none.
    """
    start = b""
    with stream(path) as content:
        while len(start) < SNIFFED and (block := content.read(SNIFFED - len(start))):
            start += block
    if not start:
        raise empty(path)
    return start


def empty(path: Path) -> DataError:
    """A file without a record."""
    return DataError(f"{path} is empty: it holds no record", fix="name another file, or leave it out")


class _Cuts:
    """Where pieces begin, as blocks of a file go by: byte and number of the line."""

    def __init__(self, piece_bytes: int) -> None:
        self.starts = [(0, 1)]
        self._piece_bytes = piece_bytes
        self._offset, self._line = 0, 1

    def add(self, block: bytes) -> None:
        """Look at the next block."""
        seen = 0
        for end in self._ends(block):
            self._line += block.count(b"\n", seen, end)
            self.starts.append((self._offset + end, self._line))
            seen = end
        self._line += block.count(b"\n", seen)
        self._offset += len(block)

    def _ends(self, block: bytes) -> Iterator[int]:
        """Places in a block at which a piece is full."""
        while True:
            full = self.starts[-1][0] + self._piece_bytes - 1 - self._offset
            end = block.find(b"\n", max(0, full)) + 1
            if not end:
                return
            yield end
