"""Parquet as a corpus. pyarrow is imported when a file is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from xtuner_core.builtin.files.config import ParquetConfig
from xtuner_core.builtin.files.corpus import SHARD_BYTES, FilesCorpus, Piece
from xtuner_core.builtin.files.scan import empty
from xtuner_core.builtin.files.streams import pyarrow
from xtuner_core.contracts.dataset import BrokenRecord, Origin, Record, Split
from xtuner_core.data.reading.contents import BLOCK, digest, opened, stamp
from xtuner_core.data.reading.parts import content_of, part_of
from xtuner_core.data.reading.rows import dense, to_record
from xtuner_core.errors import DataError

BATCH = 64
"""Rows that are decoded at once."""


class ParquetCorpus(FilesCorpus):
    """One row a record; of a file only the columns that are looked at are read.

    A piece is a row group, or several small ones; it is decoded by 64 rows. Inside conversations a null stands for
    a key that is not there, since a table has no other way to say so.
    """

    config: ParquetConfig
    suffixes: ClassVar = (".parquet",)
    kind: ClassVar = f"row groups by {SHARD_BYTES}"

    def scan(self, path: Path, file: Any) -> dict[str, Any]:
        """Hash the file and read its footer."""
        with _parquet(path) as table:
            if not table.metadata.num_rows:
                raise empty(path)
            sizes = [table.metadata.row_group(number) for number in range(table.metadata.num_row_groups)]
            pieces = _pieces([(group.num_rows, group.total_byte_size) for group in sizes])
        return {**digest(file), "stamp": stamp(file), "pieces": pieces}

    def check(self, path: Path) -> None:
        """Refuse a file without the columns that are looked for."""
        with _parquet(path) as table:
            columns = dict.fromkeys(table.schema_arrow.names, True)
        if self.config.shape(columns) is None:
            lacking = self.config.lacking(columns).replace("key", "column")
            raise DataError(f"{path}: {lacking}", fix="name it: text_key, messages_key or token_ids_key")

    def records(self, path: Path, piece: Piece, split: Split) -> Iterator[Record | BrokenRecord]:
        """The rows of a piece."""
        number = piece["first"]
        with _parquet(path) as table:
            columns = [name for name in table.schema_arrow.names if name in self.config.wanted]
            for batch in table.iter_batches(BATCH, row_groups=list(piece["groups"]), columns=columns):
                for row in batch.to_pylist():
                    if self._belongs(row, split):
                        yield to_record(dense(row, self.config), Origin(str(path), number), self.config)
                    number += 1

    def _belongs(self, row: dict[str, Any], split: Split) -> bool:
        if self.config.held_out_path is not None or not self.fraction:
            return True
        return part_of(content_of(row), self.fraction) == split


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """The open file.

    :raises DataError: it cannot be opened, is no Parquet file, is damaged, or pyarrow is not installed.
    """
    library = pyarrow(path)
    with opened(path) as file:
        try:
            with library.parquet.ParquetFile(file, buffer_size=BLOCK) as table:
                yield table
        except (library.ArrowException, OSError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise DataError(f"{path} is no Parquet file, or a damaged one: {reason}", fix="write it again") from error


def _pieces(groups: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Row groups gathered to pieces of some size.

    :param groups: rows and bytes of each.
    """
    pieces: list[dict[str, Any]] = []
    row = 1
    for number, (rows, size) in enumerate(groups):
        if not pieces or pieces[-1]["bytes"] >= SHARD_BYTES:
            pieces.append({"bytes": 0, "first": row, "groups": []})
        pieces[-1]["bytes"] += size
        pieces[-1]["groups"].append(number)
        row += rows
    return pieces
