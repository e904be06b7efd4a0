"""Sampling parameters and what a generation returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn.

    :raises ValueError: a value is out of its range.
    """

    max_tokens: int = 128
    temperature: float = 1.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps every token."""
    stop_token_ids: tuple[int, ...] = ()
    seed: int = 0
    """Draws are keyed by seed, prompt index and position, so they do not depend on who shares the batch."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError(f"max_tokens >= 1, temperature >= 0, 0 < top_p <= 1 and top_k >= 0 are wanted, not {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One continuation."""

    token_ids: tuple[int, ...]
    """The new tokens, the stop token included where one ended it."""
    log_probs: tuple[float, ...]
    """Log-probability of each under the distribution that it was drawn from (temperature, top-k, top-p)."""
    stop: str
    """`stop` or `length`."""
