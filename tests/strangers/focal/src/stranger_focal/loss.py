"""The loss focal. T tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.loss import TokenScores


class Focal:
    """`-(1 - p) ** gamma log p`, a mean over weighted tokens (equation 4 of arXiv 1708.02002)."""

    entropy = False

    def __init__(self, config: Any) -> None:
        self.gamma = config.gamma

    def denominator(self, batch: PackedBatch) -> Tensor:
        """Sum of the weights of labelled tokens."""
        return (batch.weights * (batch.labels >= 0)).sum(dtype=torch.float64)

    def total(self, scores: TokenScores, batch: PackedBatch) -> Tensor:
        """Weighted sum."""
        weights_T = batch.weights * (batch.labels >= 0)
        return -((1 - scores.log_probs_T.exp()) ** self.gamma * scores.log_probs_T * weights_T).sum()
