"""What a loss is: per-token log-probabilities and the batch's fields to one scalar, summed.

T tokens of a pack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from xtuner_core.contracts.batch import PackedBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScores:
    """What the core computes of every token, in chunks, never holding all logits."""

    log_probs_T: Tensor
    """Float [T]: log-probability of the label; 0 where there is none."""
    entropy_T: Tensor | None = None
    """Float [T] where the loss asked for it."""


class Loss(Protocol):
    """A loss is a sum over a pack divided by a denominator that is known before the step's first forward.

    The engine adds `denominator` over all micro-batches, data ranks and sequence ranks, and calls
    `backward` on each micro-batch's `total` divided by it: so no split of the work changes the result.
    """

    entropy: bool
    """Whether it needs the entropy of every token."""

    def denominator(self, batch: PackedBatch) -> Tensor:
        """Float64 scalar: this pack's share of the step's denominator."""

    def total(self, scores: TokenScores, batch: PackedBatch) -> Tensor:
        """Scalar: the pack's sum, with gradient."""


class LossFactory(Protocol):
    """What a loss provider's `factory` names."""

    def __call__(self, config: Any) -> Loss:
        """Build the loss of `config`."""
