"""Drawing the next token: the distribution that the sampling parameters leave, and one draw from it.

B sequences, V vocabulary.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from xtuner_core.contracts.sampling import Sampling


def distribution(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """Work out what is drawn from: log-probabilities [B, V], -inf where nothing may be drawn.

    Temperature first, then the `top_k` most probable, of these the fewest that together reach `top_p`
    (Holtzman et al. 2020, section 3.1). Among equals the lower id comes first. Temperature 0 puts all on one.
    """
    if sampling.temperature == 0:
        log_probs_BV = torch.full_like(logits_BV, float("-inf"))
        return log_probs_BV.scatter_(-1, logits_BV.argmax(-1, keepdim=True), 0.0)
    log_probs_BV = (logits_BV / sampling.temperature).log_softmax(-1)
    if not sampling.top_k and sampling.top_p == 1:
        return log_probs_BV
    sorted_BV, order_BV = log_probs_BV.sort(dim=-1, descending=True, stable=True)
    if sampling.top_k:
        sorted_BV[:, sampling.top_k :] = float("-inf")
    probs_BV = sorted_BV.softmax(-1)
    before_BV = probs_BV.cumsum(-1) - probs_BV
    sorted_BV = sorted_BV.masked_fill(before_BV >= sampling.top_p, float("-inf")).log_softmax(-1)
    return torch.empty_like(sorted_BV).scatter_(-1, order_BV, sorted_BV)


def draw(log_probs_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Draw ids [B]: the inverse of each distribution function at a number in [0, 1)."""
    cumulative_BV = log_probs_BV.exp().cumsum(-1)
    threshold_B1 = uniform_B[:, None] * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, threshold_B1, right=True)[:, 0]


def uniform(seed: int, prompt: int, position: int) -> float:
    """Make a number in [0, 1) from nothing but the arguments.

    52 bits: times any sum of probabilities it stays below that sum, so that no token beyond it is drawn.
    """
    digest = hashlib.sha256(f"{seed}:{prompt}:{position}".encode()).digest()
    return (int.from_bytes(digest[:8], "little") >> 12) / 2**52
