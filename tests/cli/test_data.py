"""`data check` and `data preview` show what a run would read, before it does."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import click
import pytest

from xtuner_core.builtin.kjv.dataset import open_corpus
from xtuner_core.cli import data_render
from xtuner_core.cli.data_counts import Counts
from xtuner_core.data.chat.config import ChatConfig
from xtuner_core.data.encoding.chat import ChatEncoder
from xtuner_core.hf.tokenizer import load_tokenizer

TOKENIZER = str(files("xtuner_core.builtin.kjv"))
SPIDER = {
    "messages": [
        {"role": "user", "content": "How many legs has a spider?"},
        {"role": "assistant", "content": "Eight."},
        {"role": "user", "content": "An ant?"},
        {"role": "assistant", "content": "Six."},
    ]
}
GOOD = [json.dumps(SPIDER), json.dumps({"text": "In the beginning."})]
BROKEN = [*GOOD, '{"text": "a", ', '{"body": 3}']


@pytest.fixture
def lines(tmp_path: Path) -> Callable[[list[str]], str]:
    def write(texts: list[str]) -> str:
        file = tmp_path / "some.jsonl"
        file.write_text("".join(f"{line}\n" for line in texts))
        return str(file)

    return write


def check(cli, *arguments: str):
    said = cli("data", "check", *arguments, "--json")
    return said.code, json.loads(said.out)


def test_records_messages_and_tokens_are_counted(cli, lines):
    code, data = check(cli, lines(GOOD), f"tokenizer={TOKENIZER}")
    train = data["train"]
    assert code == 0
    assert train["records"] == {"conversations": 1, "texts": 1}
    assert train["messages"] == {"user": 2, "assistant": 2}
    assert sum(row["documents"] for row in train["histogram"]) == train["documents"] == 2
    assert 0 < train["trained"] < train["tokens"]["sum"]


def test_what_is_trained_on_follows_the_settings_of_a_run(cli, lines):
    file = lines(GOOD[:1])
    trained = [
        check(cli, file, f"tokenizer={TOKENIZER}", f"chat.train_on={turns}")[1]["train"]["trained"]
        for turns in ("last", "assistant", "all")
    ]
    assert trained[0] < trained[1] < trained[2]


def test_without_a_tokenizer_characters_are_counted(cli, lines):
    _, data = check(cli, lines(GOOD))
    assert data["train"]["trained"] is None
    assert data["train"]["characters"]["max"] == sum(len(m["content"]) for m in SPIDER["messages"])


def test_broken_records_are_named_and_make_the_exit_code(cli, lines):
    file = lines(BROKEN)
    code, data = check(cli, file)
    assert code == 4
    first, second = data["train"]["broken"]["first"]
    assert first.startswith(f"{file}:3: not JSON")
    assert second.startswith(f"{file}:4: no key")
    assert data["train"]["records"]["broken"] == 2
    assert check(cli, file, "data.broken=skip")[0] == 0


def test_held_out_records_are_a_part_of_their_own(cli, lines):
    texts = [json.dumps({"text": f"text {number}"}) for number in range(200)]
    _, data = check(cli, lines(texts), "dataset.held_out_fraction=0.2")
    assert data["train"]["documents"] + data["held_out"]["documents"] == 200
    assert 20 < data["held_out"]["documents"] < 60


def test_the_page_shows_a_histogram_and_a_record_with_what_is_trained_on(cli, lines):
    said = cli("data", "check", lines(GOOD), f"tokenizer={TOKENIZER}")
    assert said.out.count("█") > 40
    assert "⟦Eight.<|endoftext|>⟧" in said.out
    assert "⟦How many" not in said.out


def test_a_preview_shows_the_records_that_were_asked_for(cli, lines):
    said = cli("data", "preview", lines(BROKEN), f"tokenizer={TOKENIZER}", "-n", "2", "--skip", "1")
    assert "some.jsonl:2 (" in said.out
    assert "⟦In the beginning.<|endoftext|>⟧" in said.out
    assert "some.jsonl:3: broken: not JSON" in said.out
    assert "some.jsonl:1" not in said.out
    assert "some.jsonl:4" not in said.out


def test_on_a_terminal_the_mask_is_in_colour(monkeypatch, lines):
    monkeypatch.setattr(data_render, "_coloured", lambda: True)
    pieces = [("context", 0.0), ("answer", 1.0)]
    shown = [data_render._styled(text, weight) for text, weight in pieces]
    assert shown == [click.style("context", dim=True), click.style("answer", fg="green")]


def test_a_dataset_of_a_plugin_is_looked_at_by_name(cli):
    said = cli("data", "preview", "kjv", "-n", "1", "--held-out")
    assert said.code == 0
    assert "kjv held_out:1 (" in said.out


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (["dataset.text_ky=body"], "did you mean 'text_key'"),
        (["chat.train_on=first"], "chat.train_on"),
        (["tokenizer=/nowhere"], "there is no tokenizer in /nowhere"),
        (["dataset.held_out_fraction=2"], "held_out_fraction"),
    ],
)
def test_a_wrong_value_is_refused_as_a_run_would(cli, lines, values, complaint):
    said = cli("data", "check", lines(GOOD), *values)
    assert said.code != 0
    assert complaint in said.err


def test_every_document_of_a_corpus_is_measured_once(tmp_path):
    corpus, tokenizer = open_corpus(None, cache=tmp_path), load_tokenizer(TOKENIZER)
    counts = Counts()
    (shard,) = corpus.shards("held_out")
    counts.add(corpus.read("held_out", shard), ChatEncoder(tokenizer, ChatConfig()))
    lengths = [len(tokenizer.encode(record.text)) + 2 for record in corpus.read("held_out", shard)]
    assert list(counts.lengths) == lengths
    assert counts.trained == sum(lengths) - len(lengths)
    assert counts.figures()["max"] == max(lengths)
    assert sum(number for *_, number in counts.histogram()) == len(lengths)
