"""Plain text as a corpus: files, paragraphs, lines, or what stands between separators."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from xtuner_core.builtin.files.config import TextConfig
from xtuner_core.builtin.files.corpus import SHARD_BYTES, FilesCorpus, Piece
from xtuner_core.builtin.files.lines import Line, read_lines
from xtuner_core.builtin.files.scan import empty, scan_lines
from xtuner_core.builtin.files.streams import is_compressed, stream
from xtuner_core.contracts.dataset import BrokenRecord, Origin, Split, TextRecord
from xtuner_core.data.reading.parts import part_of

WHOLE = 1 << 62
"""Larger than any file: it is one piece."""


class TextFilesCorpus(FilesCorpus):
    r"""Documents in text files, each named by its first line.

    Line ends inside a document become `\n`; those around it are dropped, and a document of blanks alone is none.
    A document of n bytes takes up to 2 n + k n while it is read (k as for `JsonlCorpus`). Documents of single lines
    are read in pieces of 16 MiB, others by the file.
    """

    config: TextConfig
    suffixes: ClassVar = (".txt", ".txt.gz", ".txt.zst")

    @property
    def kind(self) -> str:  # type: ignore[override]
        """Where the file is cut."""
        return f"lines by {self._piece_bytes}"

    @property
    def _piece_bytes(self) -> int:
        return SHARD_BYTES if self.config.documents == "lines" else WHOLE

    def scan(self, path: Path, file: Any) -> dict[str, Any]:
        """Hash and cut the file."""
        return scan_lines(path, file, piece_bytes=self._piece_bytes)

    def records(self, path: Path, piece: Piece, split: Split) -> Iterator[TextRecord | BrokenRecord]:
        """The documents of a piece."""
        found = False
        with stream(path) as content:
            if piece["start"]:
                content.seek(piece["start"])
            size = None if is_compressed(path) else piece["bytes"]
            limit = self.config.max_document_bytes
            lines = read_lines(content, first=piece["first"], size=size, limit=limit)
            for document in self._documents(lines):
                found = True
                if self._belongs(document, split):
                    yield self._record(path, document)
        if not found and is_compressed(path):
            raise empty(path)

    def _documents(self, lines: Iterator[Line]) -> Iterator[Line]:
        """Lines joined to documents, each under the number of its first line."""
        mark = None if self.config.separator is None else self.config.separator.strip().encode()
        gathered = _Document(self.config.max_document_bytes)
        for line in lines:
            if self._parts(line, mark):
                yield from gathered.close()
            if mark is None or not _is(line, mark):
                gathered.add(line)
            if self.config.documents == "lines":
                yield from gathered.close()
        yield from gathered.close()

    def _parts(self, line: Line, mark: bytes | None) -> bool:
        """Whether a line stands between documents."""
        return _is(line, mark) if mark is not None else self.config.documents == "blank_lines" and _is(line, b"")

    def _belongs(self, document: Line, split: Split) -> bool:
        if self.config.held_out_path is not None:
            return True
        return (part_of(document.content, self.fraction) if document.content is not None else "train") == split

    def _record(self, path: Path, document: Line) -> TextRecord | BrokenRecord:
        origin = Origin(str(path), document.number)
        if document.content is None:
            limit = self.config.max_document_bytes
            return BrokenRecord(origin=origin, reason=f"{document.size:,} bytes long; max_document_bytes is {limit:,}")
        try:
            return TextRecord(origin=origin, text=str(document.take(), "utf-8"))
        except UnicodeDecodeError as error:
            return BrokenRecord(origin=origin, reason=f"not UTF-8 ({error.reason} at byte {error.start + 1})")


def _is(line: Line, mark: bytes) -> bool:
    return line.content is not None and len(line.content) < 1000 and line.content.strip() == mark


class _Document:
    """The document that is being read, as a line of many lines."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begin()

    def _begin(self) -> None:
        self._first: int | None = None
        self._size = 0
        self._content = bytearray()

    def add(self, line: Line) -> None:
        """Lengthen it; blank lines before its first line are passed over."""
        blank = line.content is not None and not line.content.strip()
        if self._first is None and blank:
            return
        end = b"" if self._first is None else b"\n"
        self._first = line.number if self._first is None else self._first
        self._size += len(end) + line.size
        if self._size > self._limit or line.content is None:
            self._content = bytearray()
        elif len(self._content) + len(end) + line.size == self._size:
            self._content += end + line.content
        line.content = None

    def close(self) -> Iterator[Line]:
        """The document, if there is one; the next one begins."""
        if self._first is not None:
            if len(self._content) == self._size:
                self._content = self._content.rstrip()
                yield Line(self._first, len(self._content), self._content)
            else:
                yield Line(self._first, self._size, None)
        self._begin()
