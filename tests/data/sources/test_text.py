"""Plain text: what a document is, and where it stands."""

from __future__ import annotations

import pytest

from xtuner_core.builtin.files import text as module

CONTENT = b"\n\nA\r\nb\r\n\r\n  c\n\n\n\nd\n<sep>\nlast"


@pytest.mark.parametrize(
    ("settings", "documents"),
    [
        ({}, {3: "A\nb\n\n  c\n\n\n\nd\n<sep>\nlast"}),
        ({"documents": "blank_lines"}, {3: "A\nb", 6: "  c", 10: "d\n<sep>\nlast"}),
        ({"documents": "lines"}, {3: "A", 4: "b", 6: "  c", 10: "d", 11: "<sep>", 12: "last"}),
        ({"separator": "<sep>"}, {3: "A\nb\n\n  c\n\n\n\nd", 12: "last"}),
    ],
)
def test_a_document_is_what_the_settings_say_and_is_named_by_its_first_line(text, read, settings, documents):
    assert {record.origin.line: record.text for record in read(text(CONTENT, **settings))} == documents


def test_a_folder_is_read_file_by_file_in_order(text, read, tmp_path):
    corpus = text("a", "2.txt")
    (tmp_path / "1.txt").write_text("b")
    corpus.config.path = str(tmp_path)
    assert [record.text for record in read(corpus)] == ["b", "a"]


def test_a_document_above_the_limit_is_told_with_its_size(text, read):
    records = read(text("short\n\n" + "long\n" * 50 + "\nend", documents="blank_lines", max_document_bytes=30))
    assert [getattr(record, "text", None) for record in records] == ["short", None, "end"]
    assert records[1].reason == "249 bytes long; max_document_bytes is 30"
    assert records[1].origin.line == 3


def test_a_document_that_is_no_utf8_is_broken_alone(text, read):
    records = read(text(b"one\n\nt\xffo\n\nthree", documents="blank_lines"))
    assert [getattr(record, "text", None) for record in records] == ["one", None, "three"]
    assert records[1].reason == "not UTF-8 (invalid start byte at byte 2)"


def test_lines_are_read_in_pieces_and_documents_by_the_file(text, read, monkeypatch):
    monkeypatch.setattr(module, "SHARD_BYTES", 10)
    content = "".join(f"line {number}\n" for number in range(20))
    assert len(text(content, documents="lines").shards("train")) == 10
    assert len(text(content).shards("train")) == 1
    assert [r.origin.line for r in read(text(content, documents="lines"))] == list(range(1, 21))


def test_settings_that_exclude_each_other_are_refused(text):
    with pytest.raises(ValueError, match="separator and documents exclude each other"):
        text("", separator="x", documents="lines")
    with pytest.raises(ValueError, match="for blank lines write documents: blank_lines"):
        text("", separator="\n\n")
