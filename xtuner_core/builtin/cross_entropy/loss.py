"""Negative log-likelihood with weights, reduced over tokens or over documents.

With w the weights and n = -log p of the labels, over all packs of a step:
token: sum(w n) / sum(w); document: the mean over documents of sum(w n) / sum(w) within each, those
without any weight left out. Positions without a label have no part. T tokens, B documents with the filler.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xtuner_core.builtin.cross_entropy.config import CrossEntropyConfig
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.loss import Loss, TokenScores


class TokenMean:
    """Every unit of weight counts the same."""

    entropy = False

    def denominator(self, batch: PackedBatch) -> Tensor:
        """Sum of the weights of labelled tokens."""
        return _weights(batch).sum(dtype=torch.float64)

    def total(self, scores: TokenScores, batch: PackedBatch) -> Tensor:
        """Weighted sum of the negative log-likelihoods."""
        return -(scores.log_probs_T * _weights(batch)).sum()


class DocumentMean:
    """Every document counts the same, whatever its length."""

    entropy = False

    def denominator(self, batch: PackedBatch) -> Tensor:
        """Documents with a positive sum of weights."""
        return (batch.document_sums(_weights(batch)) > 0).sum().double()

    def total(self, scores: TokenScores, batch: PackedBatch) -> Tensor:
        """Sum over documents of their weighted means."""
        weights_T = _weights(batch).to(scores.log_probs_T.dtype)
        weight_B = batch.document_sums(weights_T)
        shares_T = weights_T / weight_B.masked_fill(weight_B == 0, 1)[batch.document_ids()]
        return -(scores.log_probs_T * shares_T).sum()


def _weights(batch: PackedBatch) -> Tensor:
    """Weights of labelled tokens, 0 elsewhere: float32 [T]."""
    return batch.weights * (batch.labels >= 0)


def build(config: CrossEntropyConfig) -> Loss:
    """Build the loss of `config`."""
    return TokenMean() if config.reduction == "token" else DocumentMean()
