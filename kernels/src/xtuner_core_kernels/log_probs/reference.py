"""Log-probabilities of targets in plain PyTorch, chunk by chunk.

Shapes: T tokens, N tokens of one chunk, D model width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from xtuner_core_kernels.operator import Implementation
from xtuner_core_kernels.support import any_float, statistics_dtype


def log_probs(
    hidden_TD: Tensor,
    head_VD: Tensor,
    targets_T: Tensor,
    chunk: int = 4096,
    entropy: bool = False,
    keep_bytes: int = 256 * 2**20,
) -> tuple[Tensor, Tensor | None]:
    """``log_softmax(hidden @ head.T)`` at the targets; the logits of more than one chunk never exist at a time.

    Args:
        hidden_TD: ``[T, D]``.
        head_VD: ``[V, D]``.
        targets_T: int64 ``[T]``; a negative target gives log-probability 0 (and entropy 0) and no gradient.
        chunk: tokens whose logits may exist at a time.
        entropy: whether the entropy of each token's distribution (nats) is wanted too.
        keep_bytes: how much an implementation may keep for the backward pass rather than compute again; the
            reference keeps nothing.

    Returns:
        The log-probabilities ``[T]`` and, where asked, the entropies ``[T]`` (otherwise None), in float32 at
        least; both are differentiable with respect to the hidden states and the head.
    """
    del keep_bytes
    parts: list[tuple[Tensor, Tensor]] = [
        checkpoint(_one_chunk, hidden_ND, head_VD, targets_N, entropy, use_reentrant=False)
        for hidden_ND, targets_N in zip(torch.split(hidden_TD, chunk), torch.split(targets_T, chunk), strict=True)
    ]
    log_probs_T = torch.cat([part[0] for part in parts])
    return log_probs_T, torch.cat([part[1] for part in parts]) if entropy else None


def _one_chunk(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, entropy: bool) -> tuple[Tensor, Tensor | None]:
    logits_NV = (hidden_ND @ head_VD.T).to(statistics_dtype(hidden_ND.dtype))
    all_NV = logits_NV.log_softmax(-1)
    counted_N = targets_N >= 0
    chosen_N = all_NV.gather(1, targets_N.clamp(min=0).unsqueeze(1)).squeeze(1)
    entropy_N = -(all_NV.exp() * all_NV).sum(-1) * counted_N if entropy else None
    return chosen_N * counted_N, entropy_N


IMPLEMENTATION = Implementation(
    operator="log_probs", name="reference", call=log_probs, supports=any_float, tolerance=5e-6
)
