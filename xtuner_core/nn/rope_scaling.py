"""Scaled rotary frequencies: contexts longer than those that a model was first trained with.

P rotated channels of a head. Each scheme is a `rope.Frequencies` with its numbers in fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from xtuner_core.nn.rope import RotaryConfig, default_frequencies


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama3Frequencies:
    """Slow channels are slowed down further, fast ones are left, and those between change over linearly.

    What decides is how often a channel turns within the original context (Grattafiori et al. 2024, arXiv
    2407.21783, section 3.4.3, and the code published with Llama 3.1).
    """

    factor: float
    """How much slower the slow channels turn."""
    low: float
    """Turns up to which a channel is slow."""
    high: float
    """Turns from which a channel is fast; above `low`."""
    original_positions: int
    """Tokens of the original context."""

    def __call__(self, config: RotaryConfig, dtype: torch.dtype) -> tuple[Tensor, float]:
        """Inverse frequencies [P/2] on the CPU; cosine and sine bear no factor."""
        inverse, _ = default_frequencies(config, dtype)
        turns = self.original_positions * inverse / (2 * pi)
        kept = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return inverse * (kept + (1 - kept) / self.factor), 1.0
