"""Configuration of conversations; imports nothing, so that a plugin's configuration can mount it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal


@dataclass(kw_only=True)
class ChatConfig:
    """How conversations are rendered, and what of them is trained on."""

    template: str | None = None
    """File of a Jinja chat template, or the name of one of the tokenizer's; null takes the tokenizer's own, the one
    named `tool_use` for a conversation with tools where there is one."""
    variables: dict[str, Any] = field(default_factory=dict)
    """Variables of the template (`enable_thinking: false`); a conversation's own count more."""
    train_on: Literal["assistant", "last", "all"] = "assistant"
    """Every assistant turn, the last one, or every token of the conversation."""
    earlier_turns: Literal["expand", "context", "rendered"] = "expand"
    """What becomes of an assistant turn that the template renders otherwise once others follow (Qwen3 drops its
    reasoning): `expand` makes a document of its own in which it is the last, in the form in which the model produced
    it; `context` trains on the turns that keep their form alone; `rendered` trains on it as it stands."""
    special_tokens: Literal["text", "token", "refuse"] = "text"
    """What a special token is that stands in a message as text (`<|im_end|>`): the text that it is, the token (as
    with `transformers`), or a broken record."""
    date: str = "2026-01-01"
    """Day that a template which prints today's is told, so that data has the same tokens on every day."""

    def __post_init__(self) -> None:
        try:
            date.fromisoformat(self.date)
        except ValueError as error:
            raise ValueError(f"date must be a day such as 2026-01-31, not {self.date!r}") from error
