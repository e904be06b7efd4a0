"""Which keys of a row hold what: the part of a dataset's configuration that all row-wise datasets share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

PROMPT, COMPLETION, CONVERSATIONS = "prompt", "completion", "conversations"
"""Keys of the other common forms of a conversation: two texts or lists of messages; ShareGPT's turns."""
PADDING = "attention_mask"
"""Key that goes with token ids; a zero in it marks padding, which is refused."""


@dataclass(kw_only=True)
class RecordKeys:
    """How a row becomes a record. A key that is not there and one that holds null mean the same."""

    format: Literal["auto", "text", "messages", "tokens"] = "auto"
    """What a row is; `auto` decides for each by the keys that it has: `token_ids_key`, else `messages_key`,
    `conversations` (turns of `from` and `value`), `text_key`, `prompt` with `completion`."""
    text_key: str = "text"
    """Key of a plain text."""
    messages_key: str = "messages"
    """Key of a conversation, a list of messages with `role` and `content`; every other key of them is kept."""
    tools_key: str = "tools"
    """Key of the functions that the assistant may call: JSON schemas, or a text that holds them as JSON."""
    options_key: str = "chat_template_kwargs"
    """Key of further variables of the chat template, a mapping."""
    token_ids_key: str = "input_ids"
    """Key of token ids that were made elsewhere."""
    labels_key: str = "labels"
    """Key of the ids again, -100 where a token is only context; not shifted, as `transformers` has them."""
    weights_key: str = "weights"
    """Key of what each token counts as a target, not shifted; not beside labels."""

    def __post_init__(self) -> None:
        names = [str(getattr(self, item.name)) for item in fields(RecordKeys) if item.name.endswith("_key")]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"the key {min(twice)!r} cannot hold two things")

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every key that is looked at."""
        chat = (self.messages_key, CONVERSATIONS, PROMPT, COMPLETION, self.tools_key, self.options_key)
        tokens = (self.token_ids_key, self.labels_key, self.weights_key, PADDING)
        return {
            "auto": (*tokens, *chat, self.text_key),
            "text": (self.text_key,),
            "messages": chat,
            "tokens": tokens,
        }[self.format]

    def shape(self, row: Mapping[str, Any]) -> Literal["text", "messages", "tokens"] | None:
        """What a row is, by the keys that hold something; None where nothing that is looked for is there."""
        if self.format in ("auto", "tokens") and row.get(self.token_ids_key) is not None:
            return "tokens"
        chat = self.format in ("auto", "messages")
        if chat and (row.get(self.messages_key) is not None or row.get(CONVERSATIONS) is not None):
            return "messages"
        if self.format in ("auto", "text") and row.get(self.text_key) is not None:
            return "text"
        pair = chat and row.get(PROMPT) is not None and row.get(COMPLETION) is not None
        return "messages" if pair else None

    def lacking(self, row: Mapping[str, Any]) -> str:
        """Why a row of no shape cannot be read: a clause that names what is looked for and what is there."""
        names = {"text": self.text_key, "messages": self.messages_key, "tokens": self.token_ids_key}
        sought = " or ".join(repr(name) for kind, name in names.items() if self.format in ("auto", kind))
        there = sorted(repr(key) for key, value in row.items() if value is not None)
        return f"no key {sought}; the keys are {', '.join(there) or 'none'}"
