"""Lines of a stream with their numbers, none longer than a limit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from xtuner_core.data.reading.contents import blocks

BOM = b"\xef\xbb\xbf"
"""What some editors write before the first line."""


@dataclass(slots=True)
class Line:
    """A line without its end."""

    number: int
    """From 1 in its file."""
    size: int
    """Bytes."""
    content: bytes | bytearray | None
    """None where it is longer than the limit."""

    def take(self) -> bytes | bytearray:
        """The content, which is let go here."""
        content, self.content = self.content, None
        assert content is not None
        return content


def read_lines(stream: BinaryIO, *, first: int, size: int | None, limit: int) -> Iterator[Line]:
    """Lines of the rest of a stream. Takes memory for one line and one block.

    :param first: number of the first line.
    :param size: bytes to read; None reads to the end.
    :param limit: bytes of a line's content that are kept; of a longer line only the size is known.
    """
    open_line = _Open(limit)
    number = first
    for block in blocks(stream, size):
        head, *rest = block.split(b"\n")
        open_line.add(head)
        if not rest:
            continue
        yield open_line.close(number)
        for place, piece in enumerate(rest[:-1], start=number + 1):
            yield _line(place, piece, limit)
        number += len(rest)
        open_line.add(rest[-1])
    if open_line.size:
        yield open_line.close(number)


class _Open:
    """The line that is being read."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: bytes | bytearray = b""
        self.size = 0

    def add(self, piece: bytes) -> None:
        """Lengthen it."""
        self.size += len(piece)
        if self.size > self._limit + 1:  # a carriage return may still go
            self._parts = b""
        elif not self._parts:
            self._parts = piece
        else:
            if isinstance(self._parts, bytes):
                self._parts = bytearray(self._parts)
            self._parts += piece

    def close(self, number: int) -> Line:
        """The line; the next one begins."""
        content, size = self._parts, self.size
        self._parts, self.size = b"", 0
        return _line(number, content, self._limit) if size == len(content) else Line(number, size, None)


def _line(number: int, content: bytes | bytearray, limit: int) -> Line:
    """A line without its end, nor the mark that some files begin with."""
    if content.endswith(b"\r"):
        if isinstance(content, bytearray):
            del content[-1:]
        else:
            content = content[:-1]
    if number == 1 and content.startswith(BOM):
        content = content[len(BOM) :]
    return Line(number, len(content), content if len(content) <= limit else None)
