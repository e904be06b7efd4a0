"""Configurations of the datasets in files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xtuner_core.data.reading.keys import RecordKeys
from xtuner_core.data.reading.parts import check_fraction

MAX_LINE_BYTES = 512 * 1024 * 1024


@dataclass(kw_only=True)
class FilesConfig:
    """Which files are read, and what of them is held out."""

    path: str | list[str] = "???"
    """File, folder (every file of the kind in it) or glob, or several of them; `dataset=FILE` sets it."""
    held_out_path: str | list[str] | None = None
    """Likewise, of what is scored and not trained on; null takes `held_out_fraction` of `path`."""
    held_out_fraction: float = 0.0
    """Share of the records of `path` that are held out, chosen by a hash of each record's own bytes: adding records
    moves no other one, and equal ones stay together. Not beside `held_out_path`."""

    def __post_init__(self) -> None:
        check_fraction(self.held_out_fraction)
        if self.held_out_fraction and self.held_out_path is not None:
            raise ValueError("held_out_fraction and held_out_path exclude each other; keep one")


@dataclass(kw_only=True)
class JsonlConfig(FilesConfig, RecordKeys):
    """JSON Lines: one JSON object a line, UTF-8; lines of blanks alone hold no record."""

    max_line_bytes: int = MAX_LINE_BYTES
    """A longer line is broken, and never in memory."""

    def __post_init__(self) -> None:
        FilesConfig.__post_init__(self)
        RecordKeys.__post_init__(self)
        _check_positive("max_line_bytes", self.max_line_bytes)


@dataclass(kw_only=True)
class ParquetConfig(FilesConfig, RecordKeys):
    """Parquet: one row a record, columns as keys; needs `pip install 'xtuner-core[parquet]'`."""

    def __post_init__(self) -> None:
        FilesConfig.__post_init__(self)
        RecordKeys.__post_init__(self)


@dataclass(kw_only=True)
class TextConfig(FilesConfig):
    """Plain text in UTF-8."""

    documents: Literal["file", "blank_lines", "lines"] = "file"
    """What a document is: a whole file, what stands between blank lines, or a line. An empty one is none."""
    separator: str | None = None
    """A line of this alone stands between two documents, `<|endoftext|>`; not beside `documents`."""
    max_document_bytes: int = MAX_LINE_BYTES
    """A longer document is broken, and never in memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive("max_document_bytes", self.max_document_bytes)
        if self.separator is not None and self.documents != "file":
            raise ValueError("separator and documents exclude each other; keep one")
        if self.separator is not None and not self.separator.strip():
            raise ValueError("separator is a line with something in it; for blank lines write documents: blank_lines")


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be positive, not {value}")
