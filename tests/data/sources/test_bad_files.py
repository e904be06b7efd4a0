"""A file that cannot be read as a whole is refused with its name and the cause; a bad record is told with its line."""

from __future__ import annotations

import gzip
import os

import pyarrow
import pytest

from xtuner_core import run
from xtuner_core.contracts.dataset import BrokenRecord
from xtuner_core.errors import DataError
from xtuner_core.testing import compose_tiny
from xtuner_core.testing.tiny_texts import TOKENIZER

ROW = b'{"text": "a"}\n'


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("a.jsonl", b"", "is empty: it holds no record"),
        ("a.jsonl", b"\n  \n", "is empty: it holds no record"),
        ("a.jsonl.gz", gzip.compress(b"\n\n"), "is empty: it holds no record"),
        ("a.jsonl", bytes(range(1, 256)) * 8 + b"\0", "is a binary file: byte 2040 is NUL"),
        ("a.jsonl", "é\nü\n".encode("latin-1"), "is no text in UTF-8"),
        ("a.jsonl", '{"text": "a"}\n'.encode("utf-16"), "is no text in UTF-8: it is UTF-16"),
        ("a.jsonl", gzip.compress(ROW), "is no text in UTF-8: it is gzip-compressed (name it .gz)"),
        (
            "a.jsonl.gz",
            gzip.compress(os.urandom(9000) + ROW)[:4000],
            "is truncated: it ends within its compressed data",
        ),
        ("a.jsonl.gz", ROW, "is damaged, or not compressed by gzip"),
        ("a.jsonl.zst", pyarrow.compress(ROW * 9, codec="zstd", asbytes=True)[:-3], "is damaged or truncated"),
        ("a.jsonl", b'{"txt": 1, "id": 2}\n', "no key 'text' or 'messages' or 'input_ids'; the keys are 'id', 'txt'"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_name_and_the_cause(jsonl, read, name, content, cause):
    corpus = jsonl(content, name)
    with pytest.raises(DataError) as refused:
        read(corpus)
    assert refused.value.message.startswith(corpus.config.path)
    assert cause in refused.value.message
    assert refused.value.fix


def test_what_was_cut_off_late_is_refused_after_the_records_before(jsonl):
    rows = b"".join(b'{"text": "%s"}\n' % os.urandom(40).hex().encode() for _ in range(20_000))
    corpus = jsonl(gzip.compress(rows)[:-2000], "a.jsonl.gz")
    (shard,) = corpus.shards("train")
    records = corpus.read("train", shard)
    assert next(records).origin.line == 1
    with pytest.raises(DataError, match="is truncated"):
        list(records)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"PAR1 is not enough", "is no Parquet file, or a damaged one"),
        (b"", "is no Parquet file, or a damaged one"),
        ([{"txt": "a"}], "no column 'text' or 'messages' or 'input_ids'; the columns are 'txt'"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_its_name_and_the_cause(parquet, read, content, cause):
    with pytest.raises(DataError, match=cause) as refused:
        read(parquet(content))
    assert "a.parquet" in refused.value.message


def test_a_table_that_is_damaged_inside_is_refused_with_its_name(parquet, read):
    corpus = parquet([{"text": f"{number} " * 200} for number in range(50)])
    file = corpus.files["train"][0]
    content = bytearray(file.read_bytes())
    content[4:400] = b"\xff" * 396
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet is no Parquet file, or a damaged one: "):
        read(corpus)


def test_a_library_that_is_missing_is_named_with_the_line_that_installs_it(parquet, read, monkeypatch):
    corpus = parquet([{"text": "a"}])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match="is read with pyarrow, which is not installed") as refused:
        read(corpus)
    assert refused.value.fix == "pip install 'xtuner-core[parquet]'"


def test_a_file_that_is_not_there_or_may_not_be_read_is_refused(jsonl, read, tmp_path):
    missing = jsonl(ROW)
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(DataError, match=r"a\.jsonl does not exist"):
        read(missing)
    (tmp_path / "a.jsonl").symlink_to("a.jsonl")  # the system refuses to open it, whoever asks
    with pytest.raises(DataError, match=r"a\.jsonl cannot be read: Too many levels"):
        read(missing)
    (tmp_path / "a.jsonl").unlink()
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl is no file"):
        read(missing)


def test_a_file_that_changes_under_a_run_is_refused(jsonl, tmp_path):
    corpus = jsonl(ROW)
    (shard,) = corpus.shards("train")
    (tmp_path / "a.jsonl").write_bytes(ROW * 2)
    with pytest.raises(DataError, match="changed after the run looked at it"):
        list(corpus.read("train", shard))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"text": "a" "b"}', "not JSON (Expecting ',' delimiter at column 14)"),
        ('{"text": "a"', "not JSON (Expecting ',' delimiter at column 13)"),
        ('{"text": "\\ud800"}', "a text holds half a character, the lone surrogate \\ud800"),
        ('{"text": "a", "more": [{"\\uDC01": 1}]}', "a text holds half a character, the lone surrogate \\udc01"),
        (b'{"text": "\xed\xa0\x80"}', "not UTF-8 (byte 0xed at column 11)"),
        (b'{"text": "caf\xe9"}', "not UTF-8 (byte 0xe9 at column 14)"),
        ('{"text": "a", "score": NaN}', "NaN is no JSON number"),
        ('{"text": "a", "score": -Infinity}', "-Infinity is no JSON number"),
        ('{"text": "a", "text": "b"}', "the key 'text' stands twice"),
        ('{"text": "a", "b": {"c": 1, "c": 1}}', "the key 'c' stands twice"),
        ("[", "not JSON (a value over several lines; one object a line is wanted)"),
        ("[1]", "a mapping of keys to values is wanted, not a list"),
        ('{"txt": "a"}', "no key 'text' or 'messages' or 'input_ids'; the keys are 'txt'"),
        ('{"text": null}', "no key 'text' or 'messages' or 'input_ids'; the keys are none"),
        ('{"text": 5}', "text is a number, not a text"),
        ("[" * 100_000, "not readable: nested too deeply"),
        ('{"text": "a\1"}', "not JSON (Invalid control character at at column 12)"),
    ],
)
def test_a_broken_line_is_told_with_its_reason(reason, line, why):
    assert reason(line) == why


def test_a_number_beyond_all_measure_breaks_its_line_alone(reason):
    assert reason('{"text": "a", "n": ' + "1" * 5000 + "}").startswith("not readable: Exceeds the limit")


def test_a_whole_surrogate_pair_is_a_character(jsonl, read):
    assert read(jsonl('{"text": "\\ud83d\\ude00"}'))[0].text == "😀"


def test_a_line_above_the_limit_is_told_with_its_size_and_never_in_memory(jsonl, read):
    long = b'{"text": "' + b"x" * 3_000_000 + b'"}'
    records = read(jsonl(b"\n".join([b'{"text": "a"}', long, b'{"text": "b"}']), max_line_bytes=1000))
    assert [record.origin.line for record in records] == [1, 2, 3]
    assert isinstance(records[1], BrokenRecord)
    assert records[1].reason == "3,000,012 bytes long; max_line_bytes is 1,000"


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("over", [0, 1])
def test_the_limit_counts_a_lines_content_and_not_its_end(jsonl, read, ending, over):
    line = '{"text": "' + "x" * (38 + over) + '"}'
    records = read(jsonl(ending.join(['{"text": "a"}', line, '{"text": "b"}']), max_line_bytes=50))
    assert isinstance(records[1], BrokenRecord) == bool(over)
    assert len(records) == 3


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("a.jsonl", b"", {}, "a.jsonl is empty"),
        ("a.jsonl.gz", gzip.compress(ROW * 99)[:-9], {}, "a.jsonl.gz is truncated"),
        ("a.jsonl", b"\0\1\2", {}, "a.jsonl is a binary file"),
        (
            "a.jsonl",
            ROW + b'{"text" "b"}\n',
            {},
            "a.jsonl:2 cannot be used: not JSON (Expecting ':' delimiter at column 9)",
        ),
        ("a.jsonl", ROW + b'{"text": "\\ud800"}', {}, "a.jsonl:2 cannot be used: a text holds half a character"),
        ("a.jsonl", ROW * 2 + b" " + ROW, {"max_line_bytes": 13}, "a.jsonl:3 cannot be used: 14 bytes long"),
        ("a.jsonl", ROW + b'{"txt": "b"}', {}, "a.jsonl:2 cannot be used: no key 'text' or 'messages'"),
        (
            "a.jsonl",
            ROW,
            {"text_key": "body"},
            "a.jsonl: no key 'body' or 'messages' or 'input_ids'; the keys are 'text'",
        ),
    ],
)
def test_a_run_on_bad_data_ends_with_the_file_the_line_and_the_cause(tmp_path, name, content, settings, message):
    (tmp_path / name).write_bytes(content)
    mine = {"name": str(tmp_path / name), **settings}
    composition = compose_tiny({"dataset": {"tiny_texts": None, "mine": mine}, "tokenizer": str(TOKENIZER)})
    with pytest.raises(DataError) as failed:
        run(composition, folder=tmp_path / "run")
    assert message in failed.value.message
    assert (failed.value.exit_code, bool(failed.value.fix)) == (4, True)
