"""Which files a path means."""

from __future__ import annotations

from pathlib import Path

import pytest

from xtuner_core.builtin.files.paths import find_files
from xtuner_core.errors import DataError

SUFFIXES = (".jsonl", ".jsonl.gz")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    for name in ("b.jsonl", "a.JSONL", "c.jsonl.gz", "notes.md", "deep/d.jsonl", ".hidden/e.jsonl", "[x].jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("written", "files"),
    [
        ("b.jsonl", ["b.jsonl"]),
        ("notes.md", ["notes.md"]),
        (["b.jsonl", "a.JSONL"], ["b.jsonl", "a.JSONL"]),
        (".", ["[x].jsonl", "a.JSONL", "b.jsonl", "c.jsonl.gz", "deep/d.jsonl"]),
        ("*.jsonl", ["[x].jsonl", "b.jsonl"]),
        ("**/*.jsonl", ["[x].jsonl", "b.jsonl", "deep/d.jsonl"]),
        ("d*", ["deep/d.jsonl"]),
        ("[x].jsonl", ["[x].jsonl"]),
        ("missing.jsonl", ["missing.jsonl"]),
    ],
)
def test_a_file_a_folder_and_a_glob_mean_files_in_a_fixed_order(folder, written, files):
    assert find_files(written, SUFFIXES) == [folder / name for name in files]


@pytest.mark.parametrize(
    ("written", "cause"),
    [
        ("*.csv", "matches no file"),
        (["b.jsonl", "b.jsonl"], "twice"),
        (["b.jsonl", "*.jsonl"], "twice"),
        ([], "names no file"),
        (".hidden/none*", "matches no file"),
    ],
)
def test_what_means_no_file_or_one_twice_is_refused(written, cause):
    with pytest.raises(DataError, match=cause):
        find_files(written, SUFFIXES)


def test_a_folder_without_a_file_of_the_kind_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no file ending in \.parquet"):
        find_files(str(tmp_path), (".parquet",))
