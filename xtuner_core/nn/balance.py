"""Losses on a router's choices: load balancing and z-loss, as sums over a pack's real tokens.

T tokens, S segments, E experts, K chosen experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from xtuner_core.contracts.batch import PackedBatch, TokenPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Which losses a router's choices bear."""

    coefficient: float = 0.0
    """Of the load-balancing loss, summed over layers; 0 leaves it out."""
    scope: Literal["document", "micro_batch"] = "document"
    """Over which tokens shares and mean probabilities are taken."""
    z_coefficient: float = 0.0
    """Of the z-loss, summed over layers; 0 leaves it out."""


@dataclass(frozen=True, slots=True)
class Segments:
    """Which segment each token belongs to; a filler is the last and counts nowhere.

    Shapes depend on those of the batch alone and nothing waits for the device.
    """

    ids_T: Tensor
    """int64 [T]."""
    lengths_S: Tensor
    """int64 [S], of whole segments; 0 where the boundaries were padded."""
    real: int
    """How many segments, from the first, hold real tokens (those after them are filler or padding)."""
    tokens: int
    """Real tokens that are here; they come first."""
    part: TokenPart | None = None
    """Where a pack is spread over ranks, how its counts are added up."""

    @classmethod
    def documents(cls, batch: PackedBatch) -> Segments:
        """One segment a document."""
        lengths_S = batch.cu_seqlens.long().diff()
        return cls(batch.document_ids(), lengths_S, batch.documents, batch.tokens, batch.part)

    @classmethod
    def pack(cls, batch: PackedBatch) -> Segments:
        """One segment for all real tokens."""
        here, device = batch.token_ids.shape[0], batch.cu_seqlens.device
        ids_T = (torch.arange(here, device=device) >= batch.tokens).long()
        lengths_S = torch.tensor([batch.total - batch.filler, batch.filler], device=device)
        return cls(ids_T, lengths_S, 1, batch.tokens, batch.part)

    @classmethod
    def of(cls, batch: PackedBatch, scope: Literal["document", "micro_batch"]) -> Segments:
        """The segments over which a loss of this scope takes its means."""
        return cls.documents(batch) if scope == "document" else cls.pack(batch)


def count_choices(experts_TK: Tensor, experts: int, segments: Segments) -> Tensor:
    """How often each real segment's tokens here chose each expert: float32 [S, E], 0 in the filler.

    Sums of ones below 2 ** 24, hence exact in whatever order a device adds them.
    """
    count = segments.lengths_S.shape[0]
    cells = (segments.ids_T[:, None] * experts + experts_TK).flatten()
    ones = torch.ones(cells.shape, dtype=torch.float32, device=cells.device)
    counts_SE = ones.new_zeros(count * experts).index_add_(0, cells, ones).view(count, experts)
    counts_SE[segments.real :] = 0
    return counts_SE


def load_balancing_loss(probs_TE: Tensor, counts_SE: Tensor, segments: Segments, top_k: int) -> Tensor:
    """Sum over real tokens of their segment's `E * sum_e f_e P_e`.

    Equations 4 to 6 of the Switch Transformer (Fedus et al. 2021, arXiv 2101.03961) with f_e the share of the
    segment's K * tokens assignments that went to e, and P_e the mean probability of e in the segment. An even
    load gives 1 a token. No gradient flows through f, as there.

    :param probs_TE: probabilities over all experts, before top-k.
    :param counts_SE: from `count_choices`; of a pack that is spread over ranks they are added up here.
    """
    experts = probs_TE.shape[1]
    counts_SE = counts_SE if segments.part is None else segments.part.add(counts_SE)
    lengths_S1 = segments.lengths_S.clamp(min=1).to(probs_TE.dtype)[:, None]
    shares_SE = counts_SE.to(probs_TE.dtype) / (top_k * lengths_S1)
    return experts * (probs_TE * shares_SE[segments.ids_T]).sum()


def z_loss(logits_TE: Tensor, tokens: int) -> Tensor:
    """Sum over the first `tokens` tokens of `logsumexp(logits) ** 2`.

    Equation 5 of ST-MoE (Zoph et al. 2022, arXiv 2202.08906), without its mean over tokens.
    """
    exact = logits_TE if logits_TE.dtype == torch.float64 else logits_TE.float()
    return exact[:tokens].logsumexp(-1).square().sum()
