"""Configuration of the algorithm sft."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from xtuner_core.data.chat.config import ChatConfig
from xtuner_core.data.settings import SupervisedConfig


@dataclass(kw_only=True)
class SftConfig(SupervisedConfig):
    """Next-token prediction on what the assistant says in conversations, on texts, and on given token ids."""

    DEFAULT_EPOCHS: ClassVar[float] = 3.0
    """Passes over the training data where neither steps nor epochs are given."""

    epochs: float | None = None
    """Passes over the training data; not beside `steps`. Where both are null: 3."""
    document_tokens: int = 4096
    """Longest piece of a conversation; what happens to a longer one says `data.over_budget`."""
    evaluate_every: int = 50
    """Steps between evaluations on the held-out data, beside the one after the last step; 0 makes that one alone."""
    evaluate_first: bool = True
    """Whether the model is evaluated before the first step too."""
    chat: ChatConfig = field(default_factory=ChatConfig)
    """Chat template, and what of a conversation is trained on."""
    sample_conversations: int = 3
    """Held-out conversations whose last answer is sampled with each evaluation."""
    sample_prompts: list[str] = field(default_factory=list)
    """Questions of your own that are answered with each evaluation."""
    sample_tokens: int = 128
    """Tokens of an answer at most."""
    sample_temperature: float = 0.0
    """0 takes the most probable token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_below(sample_conversations=0)
