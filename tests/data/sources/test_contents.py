"""What was found in a file is remembered until the file changes; a damaged note is no obstacle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xtuner_core.data.reading.contents import digest, remembered
from xtuner_core.errors import DataError

pytestmark = pytest.mark.usefixtures("settled")


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def find(file, tmp_path):
    """Asks for the digest; says how often the file was read."""
    looks = []

    def counted(opened):
        looks.append(opened)
        return digest(opened)

    def ask(kind="digest", cache="cache"):
        return remembered(file, tmp_path / cache, kind, counted)["sha256"], len(looks)

    return ask


def test_an_unchanged_file_is_not_read_again(find):
    first, looks = find()
    assert (find(), looks) == ((first, 1), 1)
    assert find("something else")[1] == 2


def test_a_changed_file_is_read_again_even_where_size_and_time_stay(find, file):
    first, _ = find()
    before = file.stat()
    file.write_bytes(b"CONTENT")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert find()[0] != first
    other = file.with_name("b.bin")
    other.write_bytes(b"c0ntent")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    assert find()[1] == 3


def test_a_file_that_was_just_written_is_not_remembered_yet(find, monkeypatch):
    monkeypatch.undo()
    assert [find()[1] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b"\xff", None])
def test_a_damaged_note_is_made_again(find, file, tmp_path, damage):
    first, _ = find()
    (note,) = (tmp_path / "cache" / "contents").iterdir()
    written = note.read_bytes()
    note.write_bytes(written.replace(first[:8].encode(), b"00000000") if damage is None else damage)
    assert find() == (first, 2)
    assert (find(), note.read_bytes()) == ((first, 2), written)


def test_a_cache_that_cannot_be_written_or_read_only_costs_time(find, tmp_path):
    (tmp_path / "full").write_text("a file where a folder would be")
    assert [find(cache="full")[1] for _ in range(2)] == [1, 2]


def test_a_file_that_grows_while_it_is_read_is_refused(file, tmp_path):
    def grow(opened):
        found = digest(opened)
        with file.open("ab") as stream:
            stream.write(b"more")
        return found

    with pytest.raises(DataError, match="changes while it is read"):
        remembered(file, tmp_path / "cache", "digest", grow)
    assert not (tmp_path / "cache").exists()


def test_two_that_write_at_once_leave_one_whole_note(find, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        found = {result[0] for result in pool.map(lambda _: find(), range(32))}
    assert len(found) == 1
    assert len(list((tmp_path / "cache" / "contents").iterdir())) == 1


def test_a_second_start_of_a_corpus_reads_no_file_to_the_end(jsonl, monkeypatch):
    corpus = jsonl([{"text": "a"}] * 100)
    first = corpus.fingerprint(), corpus.shards("train")
    monkeypatch.setattr("xtuner_core.builtin.files.scan.blocks", lambda *_: pytest.fail("it reads the file again"))
    assert (corpus.fingerprint(), corpus.shards("train")) == first


def test_a_moved_file_keeps_its_fingerprint(jsonl):
    fingerprints = {jsonl([{"text": "a"}], name).fingerprint() for name in ("a.jsonl", "b.jsonl")}
    assert len(fingerprints) == 1
