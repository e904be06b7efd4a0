"""Log-probabilities of targets for CPU, what the backward pass needs being kept where it fits, else computed again.

With e = exp(logits - highest) and s = sum(e) of a token, ``d log p / d logits = onehot - e / s``. Kept is
``c = e - s * onehot``; the token's own factor ``-gradient / s`` scales rows of width D rather than of width V, so that
the backward pass is two matrix products without a pass of its own over ``[T, V]``. The entropy's gradient adds some.
Exponentials are taken in base 2, which PyTorch computes twice as fast on CPU as those in base e.

Shapes: T tokens, N tokens of one chunk, D model width, V vocabulary.
"""

from __future__ import annotations

import math
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

LOG2_E = math.log2(math.e)


class _Chunk(NamedTuple):
    centred_NV: Tensor  # c above
    sum_N: Tensor  # s above
    log_probs_N: Tensor
    entropy_N: Tensor | None


def _chunk(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, entropy: bool) -> _Chunk:
    shifted_NV = (hidden_ND * LOG2_E) @ head_VD.T
    shifted_NV.sub_(shifted_NV.amax(-1, keepdim=True))
    chosen_N1 = targets_N.clamp(min=0).unsqueeze(1)
    log_probs_N = shifted_NV.gather(1, chosen_N1).squeeze(1)
    exp_NV = shifted_NV.exp2() if entropy else shifted_NV.exp2_()
    sum_N = exp_NV.sum(-1)
    log_probs_N.div_(LOG2_E).sub_(sum_N.log()).masked_fill_(targets_N < 0, 0)
    entropy_N = None
    if entropy:
        mean_N = shifted_NV.mul_(exp_NV).sum(-1).div_(sum_N * LOG2_E)
        entropy_N = sum_N.log().sub_(mean_N).masked_fill_(targets_N < 0, 0)
    exp_NV.scatter_add_(1, chosen_N1, -sum_N.unsqueeze(1))
    return _Chunk(exp_NV, sum_N, log_probs_N, entropy_N)


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
        for hidden_ND, targets_N in zip(torch.split(hidden_TD, rows), torch.split(targets_T, rows), strict=True):
            chunk = _chunk(hidden_ND, head_VD, targets_N, entropy)
            chunks.append(chunk if keep else chunk._replace(centred_NV=hidden_ND))
        entropy_T = torch.cat([chunk.entropy_N for chunk in chunks if chunk.entropy_N is not None]) if entropy else None
        kept = [part for chunk in chunks for part in (chunk.centred_NV, chunk.sum_N)] if keep else []
        ctx.save_for_backward(hidden_TD, head_VD, targets_T, entropy_T, *kept)
        ctx.rows = rows
        return torch.cat([chunk.log_probs_N for chunk in chunks]), entropy_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_T: Tensor, grad_entropy_T: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_TD, head_VD, targets_T, entropy_T, *kept = ctx.saved_tensors
        grad_T = grad_T.masked_fill(targets_T < 0, 0)
        grad_hidden_TD, grad_head_VD = torch.empty_like(hidden_TD), torch.zeros_like(head_VD)
        for index, start in enumerate(range(0, len(targets_T), ctx.rows)):
            rows = slice(start, start + ctx.rows)
            hidden_ND, targets_N = hidden_TD[rows], targets_T[rows]
            if kept:
                centred_NV, sum_N = kept[2 * index : 2 * index + 2]
            else:
                centred_NV, sum_N, *_ = _chunk(hidden_ND, head_VD, targets_N, entropy=False)
            factor_N1 = (-grad_T[rows] / sum_N).unsqueeze(1)
            if entropy_T is not None and grad_entropy_T is not None:
                grad_entropy_N = grad_entropy_T[rows].masked_fill(targets_N < 0, 0)
                spread_NV = _entropy_gradient(centred_NV, sum_N, targets_N, entropy_T[rows], grad_entropy_N)
                centred_NV, factor_N1 = spread_NV.addcmul_(centred_NV, factor_N1), torch.ones_like(factor_N1)
            torch.mm(centred_NV, head_VD, out=grad_hidden_TD[rows]).mul_(factor_N1)
            grad_head_VD.addmm_(centred_NV.T, hidden_ND * factor_N1)
        return grad_hidden_TD, grad_head_VD, None, None, None, None


def _entropy_gradient(
    centred_NV: Tensor, sum_N: Tensor, targets_N: Tensor, entropy_N: Tensor, grad_N: Tensor
) -> Tensor:
    """``d entropy / d logits = -p (log p + entropy)``, 0 where p is 0, times the gradient of the entropy."""
    probs_NV = centred_NV.scatter_add(1, targets_N.clamp(min=0).unsqueeze(1), sum_N.unsqueeze(1))
    probs_NV.div_(sum_N.unsqueeze(1)).clamp_(min=torch.finfo(probs_NV.dtype).tiny)
    return probs_NV.log().add_(entropy_N.unsqueeze(1)).mul_(probs_NV).mul_(-grad_N.unsqueeze(1))


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
