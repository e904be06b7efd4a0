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
        return (_per_document(_weights(batch), batch) > 0).sum().double()

    def total(self, scores: TokenScores, batch: PackedBatch) -> Tensor:
        """Sum over documents of their weighted means."""
        weights_T = _weights(batch).to(scores.log_probs_T.dtype)
        weight_B = _per_document(weights_T, batch)
        nll_B = _per_document(-scores.log_probs_T * weights_T, batch)
        return (nll_B / weight_B.masked_fill(weight_B == 0, 1)).sum()


def _weights(batch: PackedBatch) -> Tensor:
    """Weights of labelled tokens, 0 elsewhere: float32 [T]."""
    return batch.weights * (batch.labels >= 0)


def _per_document(values_T: Tensor, batch: PackedBatch) -> Tensor:
    """Add up within each document: [B]."""
    lengths_B = torch.tensor(batch.lengths, device=values_T.device)
    index_T = torch.repeat_interleave(lengths_B, output_size=values_T.shape[0])
    return values_T.new_zeros(len(batch.lengths)).index_add(0, index_T, values_T)


def build(config: CrossEntropyConfig) -> Loss:
    """Build the loss of `config`."""
    return TokenMean() if config.reduction == "token" else DocumentMean()
