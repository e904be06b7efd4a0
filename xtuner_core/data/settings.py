"""Settings that pre-training and supervised fine-tuning share; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(kw_only=True)
class SupervisedConfig:
    """Length, budget, evaluation and samples of an algorithm that learns documents as they are."""

    DEFAULT_EPOCHS: ClassVar[float] = 1.0
    """Passes over the training data where neither steps nor epochs are given."""

    steps: int | None = None
    """Optimizer steps; null takes `epochs`. 0 evaluates the model as it is."""
    epochs: float | None = None
    """Passes over the training data; not beside `steps`. Where both are null: 1."""
    tokens_per_step: int = 16384
    """Tokens of a global batch, filler included; a multiple of `micro_batch_tokens`."""
    micro_batch_tokens: int = 4096
    """Tokens of one pack, filler included; what is in memory at a time."""
    document_tokens: int = 1024
    """Longest piece of a document; what happens to a longer one says `data.over_budget`."""
    evaluate_every: int = 0
    """Steps between evaluations on the held-out data, beside the one after the last step; 0 makes that one alone."""
    evaluate_first: bool = False
    """Whether the model is evaluated before the first step too."""
    evaluate_tokens: int | None = 262144
    """Tokens of held-out documents that one evaluation scores at most; the same ones each time. Null scores all."""
    evaluate_overlap: float = 0.5
    """Share of `document_tokens` that a window of a long held-out document has in common with the one before,
    as context that is not counted again."""
    sample_tokens: int = 96
    """Tokens of a sampled continuation at most."""
    sample_temperature: float = 0.8
    """0 takes the most probable token."""

    def __post_init__(self) -> None:
        self._refuse_below(steps=0, micro_batch_tokens=1, document_tokens=1, evaluate_every=0, sample_tokens=1)
        self._refuse_below(evaluate_tokens=1, sample_temperature=0)
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"steps ({self.steps}) and epochs ({self.epochs}) exclude each other; set one to null")
        if self.epochs is not None and not self.epochs > 0:
            raise ValueError(f"epochs must be positive, not {self.epochs}")
        if self.tokens_per_step < 1 or self.tokens_per_step % self.micro_batch_tokens:
            raise ValueError(
                f"tokens_per_step must be a multiple of micro_batch_tokens ({self.micro_batch_tokens}), "
                f"not {self.tokens_per_step}"
            )
        if self.document_tokens > self.micro_batch_tokens:
            raise ValueError(
                f"document_tokens must be at most micro_batch_tokens ({self.micro_batch_tokens}), "
                f"not {self.document_tokens}"
            )
        if not 0 <= self.evaluate_overlap < 1:
            raise ValueError(f"evaluate_overlap must lie in [0, 1), not {self.evaluate_overlap}")

    def _refuse_below(self, **least: int) -> None:
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ValueError(f"{name} must be at least {bound}, not {value}")

    @property
    def planned_epochs(self) -> float:
        """Passes over the training data where `steps` is null."""
        return self.DEFAULT_EPOCHS if self.epochs is None else self.epochs
