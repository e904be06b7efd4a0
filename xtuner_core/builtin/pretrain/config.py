"""Configuration of the algorithm pretrain."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class PretrainConfig:
    """Next-token prediction on plain text."""

    steps: int = 1000
    """Optimizer steps; 0 evaluates the untrained model."""
    tokens_per_step: int = 16384
    """Tokens of a global batch, filler included; a multiple of `micro_batch_tokens`."""
    micro_batch_tokens: int = 4096
    """Tokens of one pack, filler included; what is in memory at a time."""
    document_tokens: int = 1024
    """Longest piece of a document; longer documents are cut, and counted."""
    evaluate_every: int = 0
    """Steps between evaluations on the held-out text; 0 evaluates at the end only."""
    evaluate_overlap: float = 0.5
    """Share of `document_tokens` that a window of a long held-out document has in common with the one before,
    as context that is not counted again."""
    compare_xz: bool = False
    """Whether `xz -9e` compresses the same held-out text given the training text (seconds for megabytes)."""
    sample_prompts: list[str] = field(default_factory=list)
    """Beginnings of documents that the trained model continues."""
    sample_tokens: int = 96
    """Tokens of a continuation at most."""
    sample_temperature: float = 0.8
    """0 takes the most probable token."""
    shuffle_targets: bool = False
    """Control experiment: trains on labels permuted within each piece, so that there is nothing to learn but
    how often tokens occur."""

    def __post_init__(self) -> None:
        least = {
            "steps": 0,
            "micro_batch_tokens": 1,
            "document_tokens": 1,
            "evaluate_every": 0,
            "sample_tokens": 1,
        }
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}, not {getattr(self, name)}")
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
        if self.sample_temperature < 0:
            raise ValueError(f"sample_temperature must not be negative, not {self.sample_temperature}")
