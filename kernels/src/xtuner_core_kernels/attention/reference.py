"""Softmax attention within packed documents, in plain PyTorch (Vaswani et al. 2017, section 3.2).

Shapes: T tokens, H query heads, G key-value heads (H a multiple of G), R = H / G, C channels of queries and keys,
V channels of values, L tokens of one document.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xtuner_core_kernels.operator import Implementation
from xtuner_core_kernels.support import any_float, statistics_dtype


def attention(
    q_THC: Tensor,
    k_TGC: Tensor,
    v_TGV: Tensor,
    cu_seqlens: Tensor,
    lengths: Sequence[int],
    scale: float,
    causal: bool = True,
    window: int | None = None,
    sinks_H: Tensor | None = None,
) -> Tensor:
    """Each token attends to tokens of its own document.

    Args:
        q_THC: queries ``[T, H, C]``.
        k_TGC: keys ``[T, G, C]``; query head h reads key-value head ``h // (H / G)``.
        v_TGV: values ``[T, G, V]``.
        cu_seqlens: int32 ``[B + 1]``, where documents begin, padded by repeating the last value.
        lengths: the documents' lengths as integers on the host, summing to T.
        scale: multiplies the scores.
        causal: whether a token sees only itself and what precedes it.
        window: how many keys a token sees, itself included; with ``causal=False`` as many on either side.
        sinks_H: ``[H]``, one more logit a head in the softmax's denominator, without a value of its own
            (gpt-oss 2025, arXiv 2508.10925).

    Returns:
        ``[T, H, V]`` in q's dtype; the softmax is taken in float32 at least.
    """
    documents = [torch.split(part, list(lengths) or [0]) for part in (q_THC, k_TGC, v_TGV)]
    outputs = [
        _one_document(q_LHC, k_LGC, v_LGV, scale, causal, window, sinks_H)
        for q_LHC, k_LGC, v_LGV in zip(*documents, strict=True)
    ]
    return torch.cat(outputs)


def _one_document(
    q_LHC: Tensor,
    k_LGC: Tensor,
    v_LGV: Tensor,
    scale: float,
    causal: bool,
    window: int | None,
    sinks_H: Tensor | None,
) -> Tensor:
    repeats = q_LHC.shape[1] // k_LGC.shape[1]
    keys, values = (part.repeat_interleave(repeats, dim=1).transpose(0, 1) for part in (k_LGC, v_LGV))
    scores_HLL = q_LHC.transpose(0, 1) @ keys.transpose(1, 2) * scale
    scores_HLL = scores_HLL.to(statistics_dtype(q_LHC.dtype))
    hidden_LL = ~visible(q_LHC.shape[0], causal, window, q_LHC.device)
    scores_HLL = scores_HLL.masked_fill(hidden_LL, float("-inf"))
    if sinks_H is not None:
        sinks = sinks_H.to(scores_HLL.dtype)[:, None, None].expand(-1, q_LHC.shape[0], 1)
        probabilities = torch.cat((scores_HLL, sinks), dim=-1).softmax(-1)[..., :-1]
    else:
        probabilities = scores_HLL.softmax(-1)
    return (probabilities.to(v_LGV.dtype) @ values).transpose(0, 1)


def visible(length: int, causal: bool, window: int | None, device: torch.device) -> Tensor:
    """Bool ``[L, L]``: whether the row's token sees the column's."""
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    seen = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    return seen if window is None else seen & (distance.abs() < window)


IMPLEMENTATION = Implementation(
    operator="attention", name="reference", call=attention, supports=any_float, tolerance=5e-6
)
