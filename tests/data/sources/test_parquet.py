"""Parquet: rows as records, only the columns that are looked at, row groups as shards."""

from __future__ import annotations

import pyarrow.parquet

from xtuner_core.builtin.files import parquet as module

CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}


def test_rows_are_numbered_from_one_over_the_whole_file(parquet, read, monkeypatch):
    monkeypatch.setattr(module, "SHARD_BYTES", 1)
    corpus = parquet([{"text": str(number)} for number in range(8)])
    assert [len(list(corpus.read("train", shard))) for shard in corpus.shards("train")] == [3, 3, 2]
    assert [(r.origin.line, r.text) for r in read(corpus)] == [(number + 1, str(number)) for number in range(8)]


def test_small_row_groups_share_a_shard(parquet):
    assert len(parquet([{"text": "a"}] * 8).shards("train")) == 1


def test_a_null_in_a_message_stands_for_a_key_that_is_not_there_but_content_stays(parquet, read):
    other = {"role": "assistant", "content": "no", "tool_calls": [{"function": {"name": "g", "arguments": {"y": 2}}}]}
    rows = [{"messages": [{"role": "user", "content": "1+1?"}, message]} for message in (CALL, other)]
    records = read(parquet(rows))
    assert [record.messages for record in records] == [row["messages"] for row in rows]


def test_columns_that_nobody_looks_at_are_not_decoded(parquet, read, monkeypatch):
    asked = []
    honest = pyarrow.parquet.ParquetFile.iter_batches

    def spy(table, *arguments, columns, **named):
        asked.append(columns)
        return honest(table, *arguments, columns=columns, **named)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", spy)
    assert read(parquet([{"text": "a", "score": 1.0, "blob": b"x"}]))[0].text == "a"
    assert asked == [["text"]]


def test_a_column_that_is_not_looked_at_moves_no_row_between_the_parts(parquet, read):
    def held_out(more):
        rows = [{"text": str(number), **more} for number in range(60)]
        return [record.text for record in read(parquet(rows, held_out_fraction=0.3), "held_out")]

    assert held_out({}) == held_out({"score": 1.0})
    assert 8 < len(held_out({})) < 30


def test_numbers_of_other_widths_are_token_ids(parquet, read):
    import pyarrow

    table = pyarrow.table({"input_ids": pyarrow.array([[1, 2]], pyarrow.list_(pyarrow.uint16()))})
    corpus = parquet([{"text": "a"}])
    pyarrow.parquet.write_table(table, corpus.config.path)
    assert read(corpus)[0].token_ids == [1, 2]
