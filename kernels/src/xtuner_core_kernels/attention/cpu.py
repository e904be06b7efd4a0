"""Attention within packed documents for CPU, by blocks of queries (Dao et al. 2022, arXiv 2205.14135, section 3.1).

Consecutive documents of equal length form one batch. For each block of queries the scores against the keys it can
see are computed, used and forgotten; the backward pass computes them again. Matrix products do most of the work, the
query heads that share a key-value head forming one matrix.

Shapes: T tokens, H query heads, G key-value heads, R = H / G, C channels of queries and keys, V channels of values,
B documents of a run, L tokens of each, N = B * G, M = R rows a query times the queries of a block, S keys in sight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from xtuner_core_kernels.operator import Implementation, Use
from xtuner_core_kernels.support import statistics_dtype

BLOCK = 128


class _Shape(NamedTuple):
    """What the passes need to know besides tensors."""

    lengths: tuple[int, ...]
    scale: float
    causal: bool
    window: int | None


class _Run(NamedTuple):
    """Consecutive documents of equal length."""

    start: int
    documents: int
    length: int


def _runs(lengths: Sequence[int]) -> Iterator[_Run]:
    start = 0
    for length, group in groupby(lengths):
        documents = len(list(group))
        if length:
            yield _Run(start, documents, length)
        start += documents * length


class _Block(NamedTuple):
    """A block of queries and the keys it can see, as positions in the document."""

    first: int
    last: int
    first_key: int
    last_key: int


def _blocks(length: int, shape: _Shape) -> Iterator[_Block]:
    reach = length if shape.window is None else shape.window - 1
    for first in range(0, length, BLOCK):
        last = min(first + BLOCK, length)
        yield _Block(first, last, max(0, first - reach), last if shape.causal else min(length, last + reach))


def _by_group(x_THC: Tensor, run: _Run, groups: int) -> Tensor:
    """``[B * G, L, R, C]`` in the dtype of the statistics, contiguous."""
    documents, length = run.documents, run.length
    x_BLGRC = x_THC[run.start : run.start + documents * length].view(documents, length, groups, -1, x_THC.shape[-1])
    x_BGLRC = x_BLGRC.transpose(1, 2).to(statistics_dtype(x_THC.dtype))
    return x_BGLRC.reshape(documents * groups, length, -1, x_THC.shape[-1])


def _into(x_THC: Tensor, run: _Run, x_NLRC: Tensor) -> None:
    """Write what :func:`_by_group` would read."""
    documents, length, groups = run.documents, run.length, x_NLRC.shape[0] // run.documents
    x_BLGRC = x_THC[run.start : run.start + documents * length].view(documents, length, groups, -1, x_THC.shape[-1])
    x_BLGRC.copy_(x_NLRC.view(documents, groups, length, -1, x_THC.shape[-1]).transpose(1, 2))


def _mask(block: _Block, repeats: int, shape: _Shape, dtype: torch.dtype) -> Tensor | None:
    """Zero where a query (a row each head of the group) sees a key, minus infinity elsewhere."""
    if not shape.causal and shape.window is None:
        return None
    query_Q1 = torch.arange(block.first, block.last).unsqueeze(1)
    distance_QS = query_Q1 - torch.arange(block.first_key, block.last_key)
    hidden_QS = distance_QS < 0 if shape.causal else torch.zeros_like(distance_QS, dtype=torch.bool)
    if shape.window is not None:
        hidden_QS |= distance_QS.abs() >= shape.window
    mask_QS = torch.zeros(hidden_QS.shape, dtype=dtype).masked_fill_(hidden_QS, float("-inf"))
    return mask_QS.repeat_interleave(repeats, dim=0)


def _probabilities(q_NMC: Tensor, k_NSC: Tensor, block: _Block, shape: _Shape, repeats: int) -> Tensor:
    scores_NMS = torch.bmm(q_NMC, k_NSC.transpose(1, 2))
    mask_MS = _mask(block, repeats, shape, scores_NMS.dtype)
    if mask_MS is not None:
        # Without a window only the keys of the block itself can be hidden.
        changed = block.last - block.first if shape.window is None else mask_MS.shape[1]
        scores_NMS[..., -changed:].add_(mask_MS[:, -changed:])
    return scores_NMS.softmax(-1)


def _forward(q_NLRC: Tensor, k_NLC: Tensor, v_NLV: Tensor, shape: _Shape) -> Tensor:
    count, length, repeats, _ = q_NLRC.shape
    output_NLRV = q_NLRC.new_empty(count, length, repeats, v_NLV.shape[-1])
    for block in _blocks(length, shape):
        rows, keys = slice(block.first, block.last), slice(block.first_key, block.last_key)
        p_NMS = _probabilities(q_NLRC[:, rows].flatten(1, 2), k_NLC[:, keys], block, shape, repeats)
        output_NLRV[:, rows] = torch.bmm(p_NMS, v_NLV[:, keys]).unflatten(1, (-1, repeats))
    return output_NLRV


def _backward(
    q_NLRC: Tensor, k_NLC: Tensor, v_NLV: Tensor, grad_NLRV: Tensor, shape: _Shape
) -> tuple[Tensor, Tensor, Tensor]:
    length, repeats = q_NLRC.shape[1:3]
    grad_q_NLRC, grad_k_NLC, grad_v_NLV = torch.empty_like(q_NLRC), torch.zeros_like(k_NLC), torch.zeros_like(v_NLV)
    for block in _blocks(length, shape):
        rows, keys = slice(block.first, block.last), slice(block.first_key, block.last_key)
        q_NMC, grad_NMV = q_NLRC[:, rows].flatten(1, 2), grad_NLRV[:, rows].flatten(1, 2)
        p_NMS = _probabilities(q_NMC, k_NLC[:, keys], block, shape, repeats)
        grad_v_NLV[:, keys].baddbmm_(p_NMS.transpose(1, 2), grad_NMV)
        grad_p_NMS = torch.bmm(grad_NMV, v_NLV[:, keys].transpose(1, 2))
        grad_s_NMS = torch._softmax_backward_data(grad_p_NMS, p_NMS, -1, p_NMS.dtype)
        grad_q_NLRC[:, rows] = torch.bmm(grad_s_NMS, k_NLC[:, keys]).unflatten(1, (-1, repeats))
        grad_k_NLC[:, keys].baddbmm_(grad_s_NMS.transpose(1, 2), q_NMC)
    return grad_q_NLRC, grad_k_NLC, grad_v_NLV


class _Attention(Function):
    @staticmethod
    def forward(ctx: Any, q_THC: Tensor, k_TGC: Tensor, v_TGV: Tensor, shape: _Shape) -> Tensor:
        ctx.save_for_backward(q_THC, k_TGC, v_TGV)
        ctx.shape = shape
        groups = k_TGC.shape[1]
        output_THV = q_THC.new_empty(*q_THC.shape[:2], v_TGV.shape[-1])
        for run in _runs(shape.lengths):
            q_NLRC, k_NLRC, v_NLRV = (_by_group(part, run, groups) for part in (q_THC, k_TGC, v_TGV))
            _into(output_THV, run, _forward(q_NLRC * shape.scale, k_NLRC.squeeze(2), v_NLRV.squeeze(2), shape))
        return output_THV

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_THV: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        saved, shape = ctx.saved_tensors, ctx.shape
        groups = saved[1].shape[1]
        grads = tuple(torch.empty_like(part, memory_format=torch.contiguous_format) for part in saved)
        grad_THV = grad_THV.contiguous()
        for run in _runs(shape.lengths):
            q_NLRC, k_NLRC, v_NLRV, grad_NLRV = (_by_group(part, run, groups) for part in (*saved, grad_THV))
            parts = _backward(q_NLRC * shape.scale, k_NLRC.squeeze(2), v_NLRV.squeeze(2), grad_NLRV, shape)
            _into(grads[0], run, parts[0].mul_(shape.scale))
            _into(grads[1], run, parts[1].unsqueeze(2))
            _into(grads[2], run, parts[2].unsqueeze(2))
        return grads[0], grads[1], grads[2], None


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
    """See ``reference.attention``; ``sinks_H`` is refused by ``supports``."""
    del cu_seqlens
    assert sinks_H is None
    shape = _Shape(tuple(lengths), scale, causal, window)
    return _Attention.apply(q_THC, k_TGC, v_TGV, shape)  # type: ignore[no-any-return, no-untyped-call]


def supports(use: Use) -> str | None:
    """Everything but sinks; what is shorter than float32 is computed in float32."""
    if use.device != "cpu":
        return f"computes on cpu, not on {use.device}"
    if use.dtype not in (torch.float32, torch.float64, torch.bfloat16):
        return f"computes in float32, float64 and bfloat16, not in {use.dtype}"
    if use.option("sinks", False):
        return "has no sinks in the softmax's denominator"
    return None


IMPLEMENTATION = Implementation(
    operator="attention", name="cpu", call=attention, supports=supports, preference=10, tolerance=5e-6
)
