"""The algorithm sft: what it trains on, what it scores, what it asks the model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from xtuner_core.builtin.sft.algorithm import build
from xtuner_core.builtin.sft.config import SftConfig
from xtuner_core.contracts.algorithm import Services, StepResult
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.dataset import ChatRecord, Origin, Record, Shard, TextRecord, TokenRecord
from xtuner_core.data.memory import TextCorpus
from xtuner_core.errors import DataError
from xtuner_core.hf.tokenizer import load_tokenizer
from xtuner_core.testing.tiny_chats import TinyChats, tiny_chats
from xtuner_core.testing.tiny_texts import TOKENIZER

Make = Callable[..., Services]
Result = Callable[..., StepResult]
TOKENS = load_tokenizer(TOKENIZER)
IDS, END = TOKENS.encode, TOKENS.end_of_text
CONFIG: dict[str, Any] = {"steps": 4, "tokens_per_step": 256, "micro_batch_tokens": 128, "document_tokens": 128}


@dataclass
class Records:
    """A corpus of what it is given."""

    train: Sequence[Record]
    held_out: Sequence[Record] = ()
    tokenizer: Path | None = field(default=None)

    def fingerprint(self) -> str:
        return str((self.train, self.held_out))

    def shards(self, split: str) -> list[Shard]:
        return [Shard(index=0, bytes=1)] if getattr(self, split) else []

    def read(self, split: str, shard: Shard) -> Any:
        yield from getattr(self, split)


def chat(*said: str, number: int = 1) -> ChatRecord:
    """A conversation of user and assistant in turn."""
    messages = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 9, said, strict=False)]
    return ChatRecord(origin=Origin("chats.jsonl", number), messages=messages)


def config(**values: Any) -> SftConfig:
    return SftConfig(**{**CONFIG, **values})


def trained(batches: Sequence[PackedBatch]) -> list[int]:
    """Targets of weight 1."""
    return [int(label) for batch in batches for label in batch.labels[batch.weights == 1]]


def of_an_epoch(services: Services) -> Counter[int]:
    """Targets of one step that holds each document once."""
    whole = config(steps=1, tokens_per_step=512, micro_batch_tokens=512, document_tokens=512, evaluate_first=False)
    (batches,) = build(whole, services).batches()
    (batch,) = batches
    assert ((batch.weights == 1) == (batch.labels >= 0)).all()
    return Counter(trained(batches))


def test_the_assistants_words_and_the_ends_of_its_turns_are_trained_on_and_nothing_else(services: Make):
    made = services([], [], corpora={"chats": Records([chat("ask", "say"), chat("a", "b", "c", "d", number=2)])})
    assert of_an_epoch(made) == Counter([*IDS("say"), END, *IDS("b"), END, *IDS("d"), END])


def test_texts_are_trained_on_whole_and_token_ids_by_their_own_weights(services: Make):
    text = TextRecord(origin=Origin("texts"), text="plain")
    ids = TokenRecord(origin=Origin("ids"), token_ids=[7, 8, 9, 10], weights=[0, 0, 1, 1])
    made = services([], [], corpora={"mixed": Records([chat("ask", "say"), text, ids])})
    assert of_an_epoch(made) == Counter([*IDS("say"), END, *IDS("plain"), END, 9, 10])


def test_batches_say_which_dataset_each_document_is_from(services: Make):
    corpora = {"chats": Records([chat("ask", "say")]), "texts": TextCorpus("texts", ["plain"])}
    (batch,), *_ = build(config(tokens_per_step=128), services([], [], corpora=corpora)).batches()
    from_texts = [END in ids[:1].tolist() for ids in batch.token_ids.split(batch.lengths)][: batch.documents]
    assert batch.named("dataset").tolist() == from_texts
    assert set(from_texts) == {True, False}


def test_it_evaluates_first_every_few_steps_and_last(services: Make, result: Result):
    made = services([], [], corpora={"a": TinyChats(), "b": TextCorpus("b", ["x"], ["one", "two"])})
    algorithm = build(config(steps=5, evaluate_every=2), made)
    metrics = [algorithm.after_step(result(step)) for step, _ in enumerate(algorithm.batches(), 1)]
    evaluated = [{name for name in found if name.startswith("held_out.")} for found in metrics]
    names = {"loss", "perplexity", "bits_per_byte", "loss.a", "loss.b"}
    assert evaluated == [{f"held_out.{name}" for name in wanted} for wanted in (set(), names, set(), names, names)]
    summary = algorithm.finish()
    assert summary["held_out"]["loss"] == summary["held_out_at_start"]["loss"] == metrics[-1]["held_out.loss"]


def test_what_the_first_evaluation_found_outlives_a_resumption_and_is_not_made_again(services: Make, result: Result):
    corpora = {"chats": TinyChats()}
    first = build(config(), services([], [], corpora=corpora))
    next(first.batches())
    first.after_step(result(1))
    again = services([], [], corpora=corpora)
    resumed = build(config(), again)
    resumed.load_state_dict(first.state_dict())
    next(resumed.batches())
    assert again.engine.scored == []
    assert resumed.finish()["held_out_at_start"] == first.finish()["held_out_at_start"]


def test_without_held_out_data_nothing_is_evaluated_and_the_log_says_so(services: Make, reported: list[Any]):
    algorithm = build(config(steps=0), services([], [], corpora={"chats": Records([chat("ask", "say")])}))
    assert list(algorithm.batches()) == []
    assert "held_out" not in algorithm.finish()
    ((event, values),) = reported
    assert event == "nothing is evaluated: no dataset has held-out data"
    assert "held_out_fraction" in values["fix"]


def test_held_out_conversations_are_asked_up_to_their_last_answer_and_own_questions_too(
    services: Make, result: Result, tmp_path: Path
):
    held_out = [chat("one", "two", "three", "four"), chat("five", "six", number=2)]
    corpora = {"chats": Records([chat("ask", "say")], held_out), "more": TinyChats()}
    made = services([], [], corpora=corpora)
    algorithm = build(config(steps=1, sample_conversations=3, sample_prompts=["mine?"]), made)
    for step, _ in enumerate(algorithm.batches(), 1):
        algorithm.after_step(result(step))
    (first, *_) = tiny_chats("held_out")
    before = "".join(f"{m['role']}: {m['content']}" + "\n\0"[m["role"] == "assistant"] for m in first[:-1])
    asked = ["user: mine?\n", "user: one\nassistant: two\0user: three\n", before, "user: five\n"]
    assert made.engine.prompts == 2 * [spelled(f"{text}assistant: ") for text in asked]
    for number in (0, 1):
        lines = (tmp_path / "artifacts" / f"samples-{number}.jsonl").read_text().splitlines()
        answered = {"step": number, "text": "and so on", "stop": "length"}
        assert [json.loads(line) for line in lines[:2]] == [
            {**answered, "prompt": "mine?", "origin": "algorithm.sample_prompts"},
            {**answered, "prompt": "three", "reference": "four", "origin": "chats.jsonl:1"},
        ]
    assert [sample["prompt"] for sample in algorithm.finish()["samples"]][:2] == ["mine?", "three"]


def spelled(text: str) -> list[int]:
    """Ids of a text in which a zero stands for the end of a turn."""
    first, *others = text.split("\0")
    return [*IDS(first), *(token for part in others for token in (END, *IDS(part)))]


def test_a_question_without_a_template_is_refused_with_the_setting_to_change(services: Make, tmp_path: Path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = TOKENIZER.joinpath(name).read_text()
        (tmp_path / name).write_text(text if name == "tokenizer.json" else json.dumps({"eos_token": "<end>"}))
    made = services(["text"], [])
    bare = Services(**{name: getattr(made, name) for name in made.__slots__} | {"tokenizer": load_tokenizer(tmp_path)})
    with pytest.raises(DataError, match=r"has no chat template; set algorithm\.chat\.template=FILE"):
        build(config(sample_prompts=["mine?"]), bare)


def test_fine_tuning_reads_its_data_three_times_where_nothing_else_is_asked(services: Make):
    made = build(config(steps=None, tokens_per_step=128), services([], [], corpora={"chats": TinyChats()}))
    assert made.steps == 3 * made.feed.steps_per_epoch
