"""What the model is asked with each evaluation: conversations of the held-out part, and questions of the user's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from xtuner_core.builtin.sft.config import SftConfig
from xtuner_core.contracts.algorithm import Services
from xtuner_core.contracts.dataset import BrokenRecord, ChatRecord, Corpus, Origin
from xtuner_core.data.encoding.chat import ChatEncoder
from xtuner_core.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A conversation up to the answer that is wanted."""

    token_ids: Sequence[int]
    """Ends where the answer begins."""
    prompt: str
    """What was said last."""
    reference: str | None
    """The answer that the data has."""
    origin: str

    def shown(self) -> dict[str, Any]:
        """Plain data."""
        known = {} if self.reference is None else {"reference": self.reference}
        return {"prompt": self.prompt, **known, "origin": self.origin}


def choose_questions(config: SftConfig, services: Services, encoder: ChatEncoder) -> list[Question]:
    """Take the user's questions, and the first held-out conversations that end with an answer, dataset by dataset.

    :raises DataError: one of the user's cannot be rendered.
    """
    asked = [_own(text, encoder) for text in config.sample_prompts]
    each = [_held_out(corpus, config, encoder) for corpus in services.corpora.values()]
    return asked + list(islice(_in_turn(each), config.sample_conversations))


def _own(text: str, encoder: ChatEncoder) -> Question:
    origin = Origin("algorithm.sample_prompts")
    made = _question(ChatRecord(origin=origin, messages=({"role": "user", "content": text},)), encoder)
    if isinstance(made, BrokenRecord):
        raise DataError(f"algorithm.sample_prompts: {made.reason}", fix="mend it, or leave the question out")
    return made


def _held_out(corpus: Corpus, config: SftConfig, encoder: ChatEncoder) -> Iterator[Question]:
    for shard in corpus.shards("held_out"):
        for record in corpus.read("held_out", shard):
            if not isinstance(record, ChatRecord) or not _answered(record):
                continue
            question = _question(record, encoder)
            # What is broken was reported, or refused, when the part was encoded.
            if isinstance(question, Question) and len(question.token_ids) <= config.document_tokens:
                yield question


def _question(record: ChatRecord, encoder: ChatEncoder) -> Question | BrokenRecord:
    ids = encoder.prompt(record)
    if isinstance(ids, BrokenRecord):
        return ids
    *before, last = record.messages
    answered = _answered(record)
    said = (before[-1] if before else {}) if answered else last
    return Question(
        token_ids=ids.tolist(),
        prompt=_text(said),
        reference=_text(last) if answered else None,
        origin=str(record.origin),
    )


def _answered(record: ChatRecord) -> bool:
    return bool(record.messages) and record.messages[-1].get("role") == "assistant"


def _text(message: Mapping[str, Any]) -> str:
    """What a person reads of a message: its text, and the names of the tools that it calls."""
    content = message.get("content") or ""
    parts = [content] if isinstance(content, str) else [str(part.get("text", "")) for part in content]
    calls = [str(call.get("function", call).get("name")) for call in message.get("tool_calls") or ()]
    return "".join(parts) + "".join(f"[calls {name}]" for name in calls)


def _in_turn(each: Sequence[Iterator[Question]]) -> Iterator[Question]:
    """One of each, again and again, until all are used up."""
    left = list(each)
    while left:
        for questions in tuple(left):
            found = next(questions, None)
            if found is None:
                left.remove(questions)
            else:
                yield found
