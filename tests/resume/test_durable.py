"""Files and folders are there whole or not at all; what dead writers left is put in order."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from xtuner_core import durable


def names(folder):
    return sorted(item.name for item in folder.iterdir())


def test_a_folder_appears_when_its_block_ends(tmp_path):
    with durable.whole_folder(tmp_path / "a" / "b") as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "file").write_text("x")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "b" / "inner" / "file").read_text() == "x"
    assert names(tmp_path) == ["a"]


def test_a_block_that_fails_leaves_nothing(tmp_path):
    def fill():
        with durable.whole_folder(tmp_path / "a" / "b") as partial:
            (partial / "file").write_text("x")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        fill()
    assert names(tmp_path) == []


def test_every_file_and_folder_is_waited_for_before_the_rename(tmp_path, monkeypatch):
    done = []
    fsync, rename = os.fsync, durable.Path.rename
    name = "/proc/self/fd/{}"
    monkeypatch.setattr(os, "fsync", lambda n: (done.append(str(Path(name.format(n)).readlink())), fsync(n))[1])
    monkeypatch.setattr(durable.Path, "rename", lambda path, to: (done.append("rename"), rename(path, to))[1])
    with durable.whole_folder(tmp_path / "a") as partial:
        (partial / "inner").mkdir()
        durable.write_synced(partial / "inner" / "file", [b"x", b"y"])
    at = done.index("rename")
    assert {os.path.relpath(path, partial) for path in done[:at]} == {"inner/file", "inner", "."}
    assert done[at + 1] == str(tmp_path)
    assert (tmp_path / "a" / "inner" / "file").read_bytes() == b"xy"


def test_a_file_that_cannot_be_written_keeps_what_was_there(tmp_path, monkeypatch):
    durable.write_whole(tmp_path / "file", b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        durable.write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_folder_is_replaced_in_one_piece(tmp_path):
    for text in ("old", "new"):
        with durable.whole_folder(tmp_path / "a", over=True) as partial:
            (partial / "file").write_text(text)
    assert (tmp_path / "a" / "file").read_text() == "new"
    assert names(tmp_path) == ["a"]


def test_what_dead_writers_left_goes_and_what_was_not_yet_replaced_comes_back(tmp_path):
    for name in (".a.0123abcd.partial", ".b.0123abcd.gone", ".c.0123abcd.old", ".d.0123abcd.old", "c", ".lock", ".x"):
        (tmp_path / name).mkdir()
    (tmp_path / ".summary.json.0123abcd.partial").write_text("{")
    removed = durable.sweep(tmp_path)
    assert names(tmp_path) == [".lock", ".x", "c", "d"]
    assert removed == [".a.0123abcd.partial", ".b.0123abcd.gone", ".c.0123abcd.old", ".summary.json.0123abcd.partial"]


def test_a_folder_is_removed_whole(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    seen = []
    monkeypatch.setattr(durable.shutil, "rmtree", lambda path, **more: seen.append((path.name, names(tmp_path))))
    durable.remove_folder(tmp_path / "a")
    ((gone, there),) = seen
    assert there == [gone]
    assert gone.startswith(".a.")
    assert gone.endswith(".gone")
