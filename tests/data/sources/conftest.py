"""Small files of every kind, and how tests read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xtuner_core.builtin.files.config import JsonlConfig, ParquetConfig, TextConfig
from xtuner_core.builtin.files.jsonl import JsonlCorpus
from xtuner_core.builtin.files.parquet import ParquetCorpus
from xtuner_core.builtin.files.text import TextFilesCorpus
from xtuner_core.contracts.dataset import BrokenRecord, Corpus, Record, Split

Opener = Callable[..., Corpus]
"""Writes a file and opens it: `(content, file name, **settings)`; content is text, bytes, or rows."""


@pytest.fixture
def read() -> Callable[..., list[Record | BrokenRecord]]:
    """All records of a part."""

    def read_part(corpus: Corpus, split: Split = "train") -> list[Record | BrokenRecord]:
        return [record for shard in corpus.shards(split) for record in corpus.read(split, shard)]

    return read_part


@pytest.fixture
def reason(read: Callable[..., Any], jsonl: Opener) -> Callable[..., str]:
    """Why the one line of a file is broken; the line before and the line after it are read."""

    def why(line: str | bytes, **settings: Any) -> str:
        middle = line.encode() if isinstance(line, str) else line
        records = read(jsonl(b'{"text": "a"}\n' + middle + b'\n{"text": "b"}\n', **settings))
        assert [getattr(record, "text", None) for record in records] == ["a", None, "b"]
        assert records[1].origin.line == 2
        return records[1].reason

    return why


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found in a file is remembered at once, not only when the file is two seconds old."""
    monkeypatch.setattr("xtuner_core.data.reading.contents.SETTLED_NS", 0)


@pytest.fixture
def jsonl(tmp_path: Path) -> Opener:
    """Opens JSON Lines."""
    return _opener(tmp_path, "a.jsonl", JsonlConfig, JsonlCorpus)


@pytest.fixture
def text(tmp_path: Path) -> Opener:
    """Opens plain text."""
    return _opener(tmp_path, "a.txt", TextConfig, TextFilesCorpus)


@pytest.fixture
def parquet(tmp_path: Path) -> Opener:
    """Opens Parquet; rows are written as a table, three in a row group."""
    return _opener(tmp_path, "a.parquet", ParquetConfig, ParquetCorpus)


def _opener(folder: Path, usual: str, config: Any, corpus: Any) -> Opener:
    def opened(content: str | bytes | list[Any], name: str = usual, **settings: Any) -> Any:
        _write(folder / name, content)
        return corpus(config(path=str(folder / name), **settings), cache=folder / "cache")

    return opened


def _write(file: Path, content: str | bytes | list[Any]) -> None:
    if isinstance(content, list) and file.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), file, row_group_size=3)
        return
    if isinstance(content, list):
        content = "".join(f"{json.dumps(row)}\n" for row in content)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
