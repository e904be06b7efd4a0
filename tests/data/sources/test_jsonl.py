"""JSON Lines: records of each form, shards that several processes read, parts by a fixed rule, memory."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pyarrow
import pytest

from xtuner_core.builtin.files import jsonl as module
from xtuner_core.contracts.dataset import BrokenRecord, ChatRecord, TextRecord, TokenRecord

TALK = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": "u"}}]},
    {"role": "assistant", "content": None, "reasoning_content": "r", "tool_calls": [{"function": {"name": "f"}}]},
    {"role": "tool", "content": "4", "tool_call_id": "1", "name": "f", "own": {"x": 1}},
]


def test_messages_keep_every_key_that_they_had(jsonl, read):
    row = {"messages": TALK, "tools": [{"name": "f"}], "chat_template_kwargs": {"enable_thinking": False}}
    (record,) = read(jsonl([row]))
    assert isinstance(record, ChatRecord)
    assert record.messages == TALK
    assert (record.tools, record.options) == ([{"name": "f"}], {"enable_thinking": False})


@pytest.mark.parametrize(
    ("row", "roles"),
    [
        ({"prompt": "p", "completion": "c"}, ["user", "assistant"]),
        ({"prompt": TALK[:2], "completion": TALK[2:]}, ["system", "user", "assistant", "tool"]),
        ({"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "c"}]}, ["user", "assistant"]),
        ({"conversations": [{"role": "user", "content": "p"}]}, ["user"]),
        ({"messages": TALK[1:3], "tools": json.dumps([{"name": "f"}])}, ["user", "assistant"]),
        ({"messages": TALK, "prompt": "x", "text": "y"}, ["system", "user", "assistant", "tool"]),
    ],
)
def test_other_forms_of_a_conversation_become_messages(jsonl, read, row, roles):
    (record,) = read(jsonl([row]))
    assert [message["role"] for message in record.messages] == roles


def test_token_ids_come_with_what_each_counts_as_a_target(jsonl, read):
    labelled = {"input_ids": [1, 2, 3], "labels": [-100, -100, 3], "attention_mask": [1, 1, 1]}
    records = read(jsonl([{"input_ids": [1, 2]}, labelled, {"input_ids": [1, 2], "weights": [0, 0.5]}]))
    assert all(isinstance(record, TokenRecord) for record in records)
    assert [record.weights for record in records] == [None, [0.0, 0.0, 1.0], [0.0, 0.5]]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"messages": []}, "the list of messages is empty"),
        ({"messages": "hi"}, "a list of messages is wanted, not a text"),
        ({"messages": ["hi"]}, "message 1 is a text, not a mapping with role and content"),
        ({"messages": [{"content": "hi"}]}, "message 1 has no role; its keys are 'content'"),
        ({"messages": [{"role": 1}]}, "the role of message 1 is a number, not a text"),
        (
            {"messages": [{"role": "user", "content": 1}]},
            "the content of message 1 is a number, not a text, a list of parts or null",
        ),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "the content of message 1 has a part that is neither a text nor a mapping with a type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "the content of message 1 has a part of type text without a text",
        ),
        ({"messages": [{"role": "user", "tool_calls": ["f"]}]}, "tool_calls of message 1 is no list of mappings"),
        ({"messages": [{"role": "tool", "name": 1}]}, "name of message 1 is a number, not a text"),
        ({"messages": TALK, "tools": "[1"}, "not JSON (Expecting ',' delimiter at column 3)"),
        ({"messages": TALK, "tools": {}}, "tools is no list of mappings"),
        ({"messages": TALK, "chat_template_kwargs": []}, "chat_template_kwargs is a list, not a mapping"),
        (
            {"conversations": [{"from": "narrator", "value": ""}]},
            "turn 1 of conversations is from 'narrator'; known are human, user, gpt, chatgpt, assistant, system, tool",
        ),
        ({"prompt": "p", "completion": []}, "prompt is a text and completion a list, not two texts or two lists"),
        ({"input_ids": [1, -1]}, "input_ids holds -1, which is no token id"),
        ({"input_ids": [1, True]}, "input_ids holds True, which is no token id"),
        ({"input_ids": "1 2"}, "input_ids is a text, not a list"),
        ({"input_ids": [1, 2], "labels": [1]}, "labels has 1 entries for 2 token ids"),
        ({"input_ids": [1], "labels": [2]}, "entry 0 of labels is 2, neither -100 nor the token id 1"),
        ({"input_ids": [1], "weights": [-1]}, "weights holds -1, which is no finite number from 0"),
        ({"input_ids": [1], "weights": [1], "labels": [1]}, "labels and weights exclude each other"),
        ({"input_ids": [1, 0], "attention_mask": [1, 0]}, "attention_mask marks padding; store the ids without it"),
    ],
)
def test_a_row_of_a_wrong_structure_is_broken_with_its_reason(reason, row, why):
    assert reason(json.dumps(row)) == why


def test_a_set_format_looks_at_nothing_else(jsonl, read):
    rows = [{"text": "t", "messages": TALK, "input_ids": [1]}]
    kinds = [type(read(jsonl(rows, format=name))[0]) for name in ("text", "messages", "tokens", "auto")]
    assert kinds == [TextRecord, ChatRecord, TokenRecord, TokenRecord]
    (broken,) = read(jsonl([{"text": None, "messages": TALK}, *rows], format="text"))[:1]
    assert broken.reason == "no key 'text'; the keys are 'messages'"


def test_keys_have_the_names_that_the_settings_give_them(jsonl, read):
    assert read(jsonl([{"body": "b", "text": 1}], text_key="body"))[0].text == "b"
    with pytest.raises(ValueError, match="the key 'text' cannot hold two things"):
        jsonl([], messages_key="text")


def test_lines_are_numbered_in_the_file_and_blank_ones_hold_no_record(jsonl, read):
    records = read(jsonl('\ufeff{"text": "a"}\r\n\r\n  \n{"text": "b"}'))
    assert [(record.text, record.origin.line) for record in records] == [("a", 1), ("b", 4)]


@pytest.mark.parametrize("piece", [1, 40, 333, 10_000])
def test_shards_meet_at_lines_wherever_they_are_cut(jsonl, read, monkeypatch, piece):
    monkeypatch.setattr("xtuner_core.data.reading.contents.BLOCK", 64)
    rows = [{"text": "x" * (7 * number % 90)} for number in range(60)]
    whole = read(jsonl(rows))
    monkeypatch.setattr(module, "SHARD_BYTES", piece)
    monkeypatch.setattr(module.JsonlCorpus, "kind", str(piece))
    corpus = jsonl(rows)
    shards = corpus.shards("train")
    assert sum(shard.bytes for shard in shards) == (corpus.files["train"][0]).stat().st_size
    assert len(shards) == {1: 60, 10_000: 1}.get(piece, len(shards))
    assert read(corpus) == whole
    assert [record.origin.line for record in whole] == list(range(1, 61))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_compressed_file_reads_like_the_plain_one(jsonl, read, ending):
    content = b"".join(b'{"text": "%d"}\n' % number for number in range(3000))
    packed = gzip.compress(content) if ending == ".gz" else pyarrow.compress(content, codec="zstd", asbytes=True)
    assert [r.text for r in read(jsonl(packed, f"a.jsonl{ending}"))] == [r.text for r in read(jsonl(content))]


def test_added_lines_move_no_other_between_the_parts_and_equal_ones_stay_together(jsonl, read):
    def parts(numbers):
        corpus = jsonl([{"text": str(number)} for number in numbers], held_out_fraction=0.2)
        return [{record.text for record in read(corpus, split)} for split in ("train", "held_out")]

    few, many = parts(range(200)), parts([*range(300, 600), *range(200), *range(200)])
    assert [len(part) for part in few] == [156, 44]
    assert all(one < more for one, more in zip(few, many, strict=True))
    assert many[0] & many[1] == set()


def test_a_part_of_its_own_is_read_whole_and_shares_no_file(jsonl, read, tmp_path):
    from xtuner_core.errors import DataError

    (tmp_path / "held.jsonl").write_text('{"text": "scored"}')
    corpus = jsonl([{"text": "a"}], held_out_path=str(tmp_path / "held.jsonl"))
    assert [[record.text for record in read(corpus, split)] for split in ("train", "held_out")] == [["a"], ["scored"]]
    with pytest.raises(DataError, match="is in path and in held_out_path"):
        jsonl([], held_out_path=str(tmp_path / "a.jsonl")).shards("train")
    with pytest.raises(ValueError, match="exclude each other"):
        jsonl([], held_out_path="b", held_out_fraction=0.1)


MEMORY = """
import resource, sys
from pathlib import Path
from xtuner_core.builtin.files.config import JsonlConfig
from xtuner_core.builtin.files.jsonl import JsonlCorpus

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

corpus = JsonlCorpus(JsonlConfig(path=sys.argv[1], max_line_bytes=int(sys.argv[2])), cache=Path(sys.argv[3]))
corpus.fingerprint()
shards = corpus.shards("train")
before = peak()
kinds = [type(record).__name__ for shard in shards for record in corpus.read("train", shard)]
print(len(shards), *kinds, peak() - before)
"""


def test_a_line_of_many_megabytes_takes_the_stated_memory_and_one_above_the_limit_none(tmp_path):
    file, size = tmp_path / "a.jsonl", 40_000_000
    with file.open("wb") as stream:
        stream.write(b'{"text": "' + b"words \\n " * (size // 9) + b'"}\n{"text": "b"}\n')

    def read(limit: int) -> tuple[list[str], int]:
        command = [sys.executable, "-c", MEMORY, str(file), str(limit), str(tmp_path / "cache")]
        *kinds, grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return kinds, int(grown)

    kinds, grown = read(10**9)
    assert kinds == ["2", "TextRecord", "TextRecord"]
    assert 1.5 * size < grown < 3 * size + 8_000_000
    kinds, grown = read(10**6)
    assert kinds == ["2", BrokenRecord.__name__, "TextRecord"]
    assert grown < 12_000_000
