"""Log-probabilities of targets for CPU: the softmax of a chunk is kept where it fits, else computed again.

With p the softmax, z its target's log-probability and g the gradient of z, ``d z / d hidden = head[target] - p @ head``
and ``d z / d head = (onehot - p).T @ hidden``: g scales rows of width D, so that the backward pass needs two matrix
products and no pass of its own over ``[T, V]``. The entropy's gradient adds one.

Shapes: T tokens, N tokens of one chunk, D model width, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from xtuner_core_kernels.operator import Implementation
from xtuner_core_kernels.support import cpu_float

# Small enough that a chunk's logits stay in a cache, and below the size at which the C library asks the system for
# fresh pages at every allocation.
CHUNK_BYTES = 16 * 2**20


class _Chunk(NamedTuple):
    probs_NV: Tensor
    log_probs_N: Tensor
    entropy_N: Tensor | None


def _chunk(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, entropy: bool) -> _Chunk:
    logits_NV = hidden_ND @ head_VD.T
    counted_N = targets_N >= 0
    highest_N, at_N = logits_NV.max(-1)
    chosen_N = logits_NV.gather(1, targets_N.clamp(min=0).unsqueeze(1)).squeeze(1)
    probs_NV = logits_NV.softmax(-1)
    # The highest logit's probability is 1 / sum(exp(logits - highest)).
    log_sum_N = highest_N - probs_NV.gather(1, at_N.unsqueeze(1)).squeeze(1).log()
    entropy_N = None
    if entropy:
        mean_N = torch.linalg.vecdot(probs_NV, logits_NV)
        entropy_N = (log_sum_N - mean_N).masked_fill_(~counted_N, 0)
    return _Chunk(probs_NV, (chosen_N - log_sum_N).masked_fill_(~counted_N, 0), entropy_N)


class _LogProbs(Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: Tensor,
        head_VD: Tensor,
        targets_T: Tensor,
        rows: int,
        entropy: bool,
        keep: bool,
    ) -> tuple[Tensor, Tensor | None]:
        chunks = []
        for hidden_ND, targets_N in zip(hidden_TD.split(rows), targets_T.split(rows), strict=True):
            chunk = _chunk(hidden_ND, head_VD, targets_N, entropy)
            chunks.append(chunk if keep else chunk._replace(probs_NV=None))
        kept = [chunk.probs_NV for chunk in chunks] if keep else []
        entropy_T = torch.cat([chunk.entropy_N for chunk in chunks]) if entropy else None
        ctx.save_for_backward(hidden_TD, head_VD, targets_T, entropy_T, *kept)
        ctx.rows = rows
        return torch.cat([chunk.log_probs_N for chunk in chunks]), entropy_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_T: Tensor, grad_entropy_T: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_TD, head_VD, targets_T, entropy_T, *kept = ctx.saved_tensors
        counted_T = targets_T >= 0
        grad_T = grad_T * counted_T
        chosen_T = targets_T.clamp(min=0)
        grad_hidden_TD = head_VD[chosen_T].mul_(grad_T.unsqueeze(1))
        scaled_TD = hidden_TD * grad_T.unsqueeze(1)
        grad_head_VD = torch.zeros_like(head_VD).index_add_(0, chosen_T, scaled_TD)
        for index, start in enumerate(range(0, len(targets_T), ctx.rows)):
            rows = slice(start, start + ctx.rows)
            if kept:
                probs_NV = kept[index]
            else:
                probs_NV = (hidden_TD[rows] @ head_VD.T).softmax(-1)
            if entropy_T is not None and grad_entropy_T is not None:
                spread_NV = _entropy_gradient(probs_NV, entropy_T[rows], grad_entropy_T[rows] * counted_T[rows])
                spread_NV.addcmul_(probs_NV, grad_T[rows].unsqueeze(1), value=-1)
                grad_hidden_TD[rows].addmm_(spread_NV, head_VD)
                grad_head_VD.addmm_(spread_NV.T, hidden_TD[rows])
            else:
                grad_hidden_TD[rows].sub_((probs_NV @ head_VD).mul_(grad_T[rows].unsqueeze(1)))
                grad_head_VD.addmm_(probs_NV.T, scaled_TD[rows], alpha=-1)
        return grad_hidden_TD, grad_head_VD, None, None, None, None


def _entropy_gradient(probs_NV: Tensor, entropy_N: Tensor, grad_N: Tensor) -> Tensor:
    """``d entropy / d logits = -p (log p + entropy)``, times the gradient of the entropy; 0 where p is 0."""
    tiny = torch.finfo(probs_NV.dtype).tiny
    return probs_NV.clamp(min=tiny).log_().add_(entropy_N.unsqueeze(1)).mul_(probs_NV).mul_(-grad_N.unsqueeze(1))


def log_probs(
    hidden_TD: Tensor,
    head_VD: Tensor,
    targets_T: Tensor,
    chunk: int = 4096,
    entropy: bool = False,
    keep_bytes: int = 256 * 2**20,
) -> tuple[Tensor, Tensor | None]:
    """See ``reference.log_probs``."""
    row_bytes = head_VD.shape[0] * head_VD.element_size()
    rows = max(1, min(chunk, CHUNK_BYTES // row_bytes))
    keep = row_bytes * len(targets_T) <= keep_bytes and (hidden_TD.requires_grad or head_VD.requires_grad)
    return _LogProbs.apply(  # type: ignore[no-any-return, no-untyped-call]
        hidden_TD, head_VD, targets_T, rows, entropy, keep and torch.is_grad_enabled()
    )


IMPLEMENTATION = Implementation(
    operator="log_probs", name="cpu", call=log_probs, supports=cpu_float, preference=10, tolerance=5e-6
)
