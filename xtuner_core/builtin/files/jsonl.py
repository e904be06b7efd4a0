"""JSON Lines as a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from xtuner_core.builtin.files.config import JsonlConfig
from xtuner_core.builtin.files.corpus import SHARD_BYTES, FilesCorpus, Piece
from xtuner_core.builtin.files.lines import Line, read_lines
from xtuner_core.builtin.files.scan import SNIFFED, beginning, empty, scan_lines
from xtuner_core.builtin.files.streams import is_compressed, stream
from xtuner_core.contracts.dataset import BrokenRecord, Origin, Record, Split
from xtuner_core.data.reading.faults import Fault
from xtuner_core.data.reading.parts import part_of
from xtuner_core.data.reading.rows import to_record
from xtuner_core.data.reading.strict_json import parse
from xtuner_core.errors import DataError

LOOKED_AT = 8
"""Objects at a file's beginning by which its keys are judged."""


class JsonlCorpus(FilesCorpus):
    """One JSON object a line.

    A line of n bytes takes at most n (as read) + k n (decoded) + 2 k n (parsed) while it becomes a record, with k = 1
    for ASCII, 2 for text with any character beyond Latin-1, 4 with one beyond the basic plane (an emoji): Python's
    strings are as wide as their widest character. Measured: 2.0 n for 200 MB of ASCII with escapes, 4.2 n for CJK.
    """

    config: JsonlConfig
    suffixes: ClassVar = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst")
    kind: ClassVar = f"lines by {SHARD_BYTES}"

    def scan(self, path: Path, file: Any) -> dict[str, Any]:
        """Hash and cut the file."""
        return scan_lines(path, file, piece_bytes=SHARD_BYTES)

    def check(self, path: Path) -> None:
        """Refuse a file of which the first objects all lack what is looked for."""
        start = beginning(path)
        lines = start.split(b"\n")[: None if len(start) < SNIFFED else -1]
        rows = [row for line in lines if isinstance(row := _parsed(line), dict)]
        first = rows[:LOOKED_AT]
        if first and not any(map(self.config.shape, first)):
            fix = "name the key: text_key, messages_key or token_ids_key"
            raise DataError(f"{path}: {self.config.lacking(first[0])}", fix=fix)

    def records(self, path: Path, piece: Piece, split: Split) -> Iterator[Record | BrokenRecord]:
        """The lines of a piece, parsed."""
        found, name = False, str(path)
        with stream(path) as content:
            if piece["start"]:
                content.seek(piece["start"])
            size = None if is_compressed(path) else piece["bytes"]
            for line in read_lines(content, first=piece["first"], size=size, limit=self.config.max_line_bytes):
                if line.content is not None and (not line.content or line.content.isspace()):
                    continue
                found = True
                if self._belongs(line, split):
                    yield self._record(name, line)
        if not found and is_compressed(path):
            raise empty(path)

    def _belongs(self, line: Line, split: Split) -> bool:
        """Whether a line is of a part; one that is too long to be looked at is trained on."""
        if not self.fraction:
            return True
        return (part_of(line.content, self.fraction) if line.content is not None else "train") == split

    def _record(self, file: str, line: Line) -> Record | BrokenRecord:
        origin = Origin(file, line.number)
        if line.content is None:
            limit = self.config.max_line_bytes
            return BrokenRecord(origin=origin, reason=f"{line.size:,} bytes long; max_line_bytes is {limit:,}")
        try:
            row = parse(_decoded(line))
        except Fault as fault:
            return BrokenRecord(origin=origin, reason=str(fault))
        return to_record(row, origin, self.config)


def _decoded(line: Line) -> str:
    content = line.take()
    try:
        return str(content, "utf-8")
    except UnicodeDecodeError as error:
        wrong = f"byte 0x{content[error.start]:02x} at column {error.start + 1}"
        raise Fault(f"not UTF-8 ({wrong})") from None


def _parsed(line: bytes) -> Any:
    try:
        return parse(str(line, "utf-8"))
    except (Fault, UnicodeDecodeError):
        return None
