"""The datasets that ship with the core keep the contract."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from xtuner_core.testing import DatasetContract, tiny

TEXTS = [{"text": f"text {number}"} for number in range(12)]
ASSISTANT = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
CHAT = {"messages": [{"role": "user", "content": "1+1?"}, ASSISTANT], "tools": [{"name": "f"}]}
TOKENS = {"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}
"""Rows of each kind."""


def write_lines(file: Path, rows: Sequence[Any]) -> None:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_table(file: Path, rows: Sequence[Any]) -> None:
    columns = {key for row in rows for key in row}  # a table has those of its first row
    table = pyarrow.Table.from_pylist([dict.fromkeys(columns) | row for row in rows])
    pyarrow.parquet.write_table(table, file, row_group_size=4)


def replace(file: Path, old: str, new: str) -> bool:
    content = file.read_text()
    assert old in content
    file.write_text(content.replace(old, new))
    return True


class TestJsonl(DatasetContract):
    plugin, offer, broken = "files", "jsonl", 1
    configs = (
        {"path": "a.jsonl", "held_out_fraction": 0.3},
        {"path": ["a.jsonl"], "held_out_path": "b.jsonl.gz"},
        {"path": "*.jsonl", "max_line_bytes": 200},
    )

    def prepare(self, folder: Path) -> None:
        write_lines(folder / "a.jsonl", [*TEXTS, CHAT, TOKENS, {"txt": 1}])
        (folder / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "scored"}\n'))

    def change(self, folder: Path) -> bool:
        return replace(folder / "a.jsonl", "text 3", "text x")


class TestParquet(DatasetContract):
    plugin, offer, broken = "files", "parquet", 1
    configs = ({"path": "a.parquet", "held_out_fraction": 0.3}, {"path": ".", "held_out_path": "held/b.parquet"})

    def prepare(self, folder: Path) -> None:
        write_table(folder / "a.parquet", [*TEXTS, CHAT, TOKENS, {"text": None}])
        (folder / ".held").mkdir(exist_ok=True)
        (folder / "held").symlink_to(".held")
        write_table(folder / "held" / "b.parquet", [{"text": "scored"}])

    def change(self, folder: Path) -> bool:
        write_table(folder / "a.parquet", [*TEXTS[1:], CHAT, TOKENS, {"text": None}, {"text": "another"}])
        return True


class TestText(DatasetContract):
    plugin, offer, broken = "files", "text", 1
    configs = (
        {"path": "a.txt", "documents": "blank_lines", "held_out_fraction": 0.4},
        {"path": "a.txt", "separator": "<sep>", "held_out_path": "b.txt"},
        {"path": "a.txt", "documents": "lines"},
    )

    def prepare(self, folder: Path) -> None:
        paragraphs = [f"line {number}\n\nof it" for number in range(9)]
        content = "\n<sep>\n\n".join(paragraphs).encode() + b"\n<sep>\n\nno UTF-8: \xff\n"
        (folder / "a.txt").write_bytes(content)
        (folder / "b.txt").write_text("what is scored")

    def change(self, folder: Path) -> bool:
        file = folder / "a.txt"
        file.write_bytes(file.read_bytes().replace(b"line 3", b"line x"))
        return True


@pytest.mark.full
class TestKjv(DatasetContract):
    plugin, offer = "kjv", "kjv"


@pytest.mark.full
class TestKjvQuestions(DatasetContract):
    plugin, offer = "kjv", "kjv_questions"


class TestTextsInMemory(DatasetContract):
    plugin, objects = "tiny", {"tiny": tiny}
