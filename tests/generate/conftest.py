"""An invented attention model in float64, with its own attention where there is no cache.

T tokens, D width, H query heads, G key-value heads, C channels, V vocabulary, L tokens of a document.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.model import ModelOutput, Prediction


class Head(nn.Linear):
    def forward(self, hidden_TD, targets_T=None, *, entropy=False):
        assert targets_T is None
        assert not entropy
        return super().forward(hidden_TD)


class ToyAttention(nn.Module):
    """Two layers; positions enter as sines, so a wrong position changes every logit."""

    def __init__(self, *, heads=4, kv_heads=2, window=None, sinks=False, vocabulary=23, width=16, layers=2):
        super().__init__()
        C = width // heads
        self.sizes, self.window, self.sinks = (heads, kv_heads, kv_heads, C), window, sinks
        self.embed = nn.Embedding(vocabulary, width)
        self.qkv = nn.ModuleList(nn.Linear(width, (heads + 2 * kv_heads) * C) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.sink_LH = nn.Parameter(torch.randn(layers, heads))
        self.dropout = nn.Dropout(0.5)
        self.head = Head(width, vocabulary)
        self.packs: list[tuple[int, ...]] = []

    def forward(self, batch: PackedBatch, cache=None) -> ModelOutput:
        self.packs.append(batch.lengths)
        *heads, C = self.sizes
        rate_D = torch.arange(1, self.embed.embedding_dim + 1, dtype=torch.float64) / 7
        x_TD = self.embed(batch.token_ids) + torch.sin(batch.positions[:, None] * rate_D)
        for layer, (qkv, up) in enumerate(zip(self.qkv, self.up, strict=True)):
            q_THC, k_TGC, v_TGC = qkv(x_TD).unflatten(-1, (-1, C)).split(heads, dim=1)
            options = {"window": self.window, "sinks_H": self.sink_LH[layer] if self.sinks else None}
            if cache is None:
                out_THC = packed_attention(q_THC, k_TGC, v_TGC, batch.lengths, C**-0.5, **options)
            else:
                out_THC = cache.attend(layer, q_THC, k_TGC, v_TGC, scale=C**-0.5, **options)
            x_TD = self.dropout(x_TD + out_THC.flatten(1))
            x_TD = x_TD + torch.tanh(up(x_TD))
        return ModelOutput(predictions=(Prediction(hidden_TD=x_TD),))


def packed_attention(q_THC, k_TGC, v_TGC, lengths, scale, *, window=None, sinks_H=None) -> Tensor:
    """A reference that looks at one query at a time."""
    out_THC, start = torch.empty_like(q_THC), 0
    ratio = q_THC.shape[1] // k_TGC.shape[1]
    k_THC, v_THC = (part.repeat_interleave(ratio, dim=1) for part in (k_TGC, v_TGC))
    for length in lengths:
        for t in range(start, start + length):
            first = start if window is None else max(start, t + 1 - window)
            weights_LH = (torch.einsum("lhc,hc->lh", k_THC[first : t + 1], q_THC[t]) * scale).exp()
            total_H = weights_LH.sum(0) + (0 if sinks_H is None else sinks_H.exp())
            out_THC[t] = torch.einsum("lh,lhc->hc", weights_LH / total_H, v_THC[first : t + 1])
        start += length
    return out_THC


@pytest.fixture
def make_model():
    def make(**options) -> ToyAttention:
        torch.manual_seed(0)
        return ToyAttention(**options).double().eval()

    return make


@pytest.fixture
def reference_log_probs():
    """All log-probabilities after a prefix, without a cache, drawn from as the sampling says: a list of V."""

    def compute(model, prefix, sampling) -> list[float]:
        from xtuner_core.contracts.batch import Document, pack

        with torch.no_grad():
            hidden_TD = model(pack([Document.of(prefix)])).predictions[0].hidden_TD
            logits = model.head(hidden_TD[-1:])[0].tolist()
        if sampling.temperature == 0:
            best = max(range(len(logits)), key=lambda n: logits[n])
            return [0.0 if n == best else -math.inf for n in range(len(logits))]
        return by_hand([value / sampling.temperature for value in logits], sampling.top_k, sampling.top_p)

    return compute


def by_hand(logits: list[float], top_k: int, top_p: float) -> list[float]:
    top = max(logits)
    kept = sorted(range(len(logits)), key=lambda n: -logits[n])[: top_k or None]
    total = sum(math.exp(logits[n] - top) for n in kept)
    reached, nucleus = 0.0, []
    for n in kept:
        if reached >= top_p:
            break
        nucleus.append(n)
        reached += math.exp(logits[n] - top) / total
    total = math.fsum(math.exp(logits[n] - top) for n in nucleus)
    return [logits[n] - top - math.log(total) if n in nucleus else -math.inf for n in range(len(logits))]
