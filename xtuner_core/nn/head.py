"""The language head: log-probabilities of targets in chunks, never all logits at a time.

T tokens, V vocabulary, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from xtuner_core.contracts.operator import Use
from xtuner_core.nn.operators import OperatorModule


class TokenHead(OperatorModule):
    """A matrix [V, D] from hidden states to the vocabulary (`contracts.model.LanguageHead`).

    :param tied: the embedding's table, which then serves as this matrix too.
    """

    role = "head"

    def __init__(self, vocab_size: int, dim: int, *, tied: nn.Parameter | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, dim)) if tied is None else tied

    def uses(self, *, device: str, dtype: torch.dtype) -> Mapping[str, Use]:
        """The operator `log_probs`, without and with entropies."""
        vocab, dim = self.weight.shape
        sizes = {"dim": dim, "vocab": vocab}
        return {
            "log_probs": Use.of("log_probs", device, dtype, sizes, {"entropy": False}),
            "log_probs_entropy": Use.of("log_probs", device, dtype, sizes, {"entropy": True}),
        }

    def forward(
        self, hidden_TD: Tensor, targets_T: Tensor | None = None, *, entropy: bool = False
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        """Log-probabilities of the targets (and entropies), or without targets the logits [T, V].

        :param targets_T: int64 [T]; negative where nothing is predicted, which gives 0 and no gradient.
        :param entropy: also return the entropy of every token's distribution, in nats.
        """
        if targets_T is None:
            return functional.linear(hidden_TD, self.weight)
        operator = self.operator("log_probs_entropy" if entropy else "log_probs")
        return operator(hidden_TD, self.weight, targets_T, entropy=entropy)  # type: ignore[no-any-return]
