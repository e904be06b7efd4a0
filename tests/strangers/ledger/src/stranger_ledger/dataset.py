"""A ledger as a corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xtuner_core.contracts.dataset import BrokenRecord, Origin, Shard, Split, TextRecord
from xtuner_core.data.reading.contents import digest, remembered
from xtuner_core.data.reading.parts import part_of
from xtuner_core.errors import DataError


class Ledger:
    """One text a line; a line without a bar is broken."""

    tokenizer = None

    def __init__(self, config: Any, *, cache: Path) -> None:
        self.path = Path(config.path).absolute()
        self.fraction = config.held_out_fraction
        self.titles = config.titles
        self.cache = cache

    def fingerprint(self) -> str:
        """Content and settings; the content's hash is remembered while the file stays as it is."""
        content = remembered(self.path, self.cache, "sha256", digest)["sha256"]
        return hashlib.sha256(f"{content} {self.fraction} {self.titles}".encode()).hexdigest()

    def shards(self, split: Split) -> Sequence[Shard]:
        """One piece: ledgers are small."""
        if not self.path.is_file():
            raise DataError(f"{self.path} does not exist", fix="correct the path")
        if split == "held_out" and not self.fraction:
            return []
        return [Shard(index=0, bytes=self.path.stat().st_size)]

    def read(self, split: Split, shard: Shard) -> Iterator[TextRecord | BrokenRecord]:
        """The lines of a part."""
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if part_of(line.strip(), self.fraction) == split:
                    yield self._record(line, Origin(str(self.path), number))

    def _record(self, line: bytes, origin: Origin) -> TextRecord | BrokenRecord:
        try:
            title, bar, text = line.decode().strip().partition("|")
        except UnicodeDecodeError as error:
            return BrokenRecord(origin=origin, reason=f"not UTF-8 ({error.reason} at byte {error.start + 1})")
        if not bar:
            return BrokenRecord(origin=origin, reason="no bar between title and text")
        return TextRecord(origin=origin, text=f"{title}\n\n{text}" if self.titles else text)
