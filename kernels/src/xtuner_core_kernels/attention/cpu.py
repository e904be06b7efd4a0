"""Attention within packed documents for CPU, by blocks of queries (Dao et al. 2022, arXiv 2205.14135, section 3.1).

Consecutive documents of equal length form one batch. For each block of queries the scores against the keys it can
see are computed, used and forgotten; the backward pass computes them again. Matrix products do most of the work, the
query heads that share a key-value head forming one matrix. Exponentials are taken in base 2, which PyTorch computes
twice as fast on CPU as those in base e: the queries are multiplied by log2(e) besides the scale.

Shapes: T tokens, H query heads, G key-value heads, R = H / G, C channels of queries and keys, V channels of values,
B documents of a run, L tokens of each, N = B * G, M rows: R for each query of the document or block, S keys in sight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from xtuner_core_kernels.operator import Implementation, Use
from xtuner_core_kernels.support import statistics_dtype

LOG2_E = math.log2(math.e)
# Queries of a block, and scores that exist at a time: what a cache of some MiB holds.
BLOCK = 64
RUN_SCORES = 2**20


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


def _runs(lengths: Sequence[int], heads: int) -> Iterator[_Run]:
    """Runs whose blocks of scores are within ``RUN_SCORES``, or of a single document."""
    start = 0
    for length, group in groupby(length for length in lengths if length):
        waiting = len(list(group))
        most = max(1, RUN_SCORES // (heads * min(BLOCK, length) * length))
        while waiting:
            documents = min(waiting, most)
            yield _Run(start, documents, length)
            start += documents * length
            waiting -= documents


class _Block(NamedTuple):
    """A block of queries and the keys that some of them see, as positions in the document."""

    queries: slice
    keys: slice
    mask_MS: Tensor | None  # added to the scores of the last keys: zero where seen, minus infinity elsewhere


def _blocks(length: int, repeats: int, shape: _Shape, dtype: torch.dtype) -> list[_Block]:
    reach = length if shape.window is None else shape.window - 1
    blocks = []
    for first in range(0, length, BLOCK):
        last = min(first + BLOCK, length)
        keys = slice(max(0, first - reach), last if shape.causal else min(length, last + reach))
        # Causal without a window, what a query cannot see lies in its own block.
        masked = slice(first, last) if shape.causal and shape.window is None else keys
        blocks.append(_Block(slice(first, last), keys, _mask(slice(first, last), masked, repeats, shape, dtype)))
    return blocks


def _mask(queries: slice, keys: slice, repeats: int, shape: _Shape, dtype: torch.dtype) -> Tensor | None:
    if not shape.causal and shape.window is None:
        return None
    distance_QS = torch.arange(queries.start, queries.stop).unsqueeze(1) - torch.arange(keys.start, keys.stop)
    hidden_QS = distance_QS < 0 if shape.causal else torch.zeros_like(distance_QS, dtype=torch.bool)
    if shape.window is not None:
        hidden_QS |= distance_QS.abs() >= shape.window
    mask_QS = torch.zeros(hidden_QS.shape, dtype=dtype).masked_fill_(hidden_QS, float("-inf"))
    return mask_QS.repeat_interleave(repeats, dim=0)


def _by_group(x_THC: Tensor, run: _Run, groups: int) -> Tensor:
    """A copy ``[B * G, L * R, C]`` in the dtype of the statistics."""
    documents, length, channels = run.documents, run.length, x_THC.shape[-1]
    run_THC = x_THC[run.start : run.start + documents * length]
    x_BLGRC = run_THC.reshape(documents, length, groups, -1, channels)
    x_BGLRC = torch.empty_like(
        x_BLGRC.transpose(1, 2), dtype=statistics_dtype(x_THC.dtype), memory_format=torch.contiguous_format
    )
    return x_BGLRC.copy_(x_BLGRC.transpose(1, 2)).view(documents * groups, -1, channels)


def _into(x_THC: Tensor, run: _Run, x_NMC: Tensor, groups: int) -> None:
    """Write what :func:`_by_group` would read."""
    documents, length, channels = run.documents, run.length, x_THC.shape[-1]
    x_BLGRC = x_THC[run.start : run.start + documents * length].view(documents, length, groups, -1, channels)
    x_BLGRC.copy_(x_NMC.view(documents, groups, length, -1, channels).transpose(1, 2))


def _scores(q_NMC: Tensor, k_NSC: Tensor, block: _Block, buffer: Tensor) -> Tensor:
    """Masked scores, in the buffer."""
    count, rows, keys = q_NMC.shape[0], q_NMC.shape[1], k_NSC.shape[1]
    scores_NMS = buffer[: count * rows * keys].view(count, rows, keys)
    torch.bmm(q_NMC, k_NSC.transpose(1, 2), out=scores_NMS)
    if block.mask_MS is not None:
        scores_NMS[..., -block.mask_MS.shape[1] :].add_(block.mask_MS)
    return scores_NMS


def _buffer(q_NMC: Tensor, k_NLC: Tensor, repeats: int) -> Tensor:
    return q_NMC.new_empty(q_NMC.shape[0] * min(BLOCK, k_NLC.shape[1]) * repeats * k_NLC.shape[1])


def _forward(q_NMC: Tensor, k_NLC: Tensor, v_NLV: Tensor, repeats: int, blocks: list[_Block]) -> tuple[Tensor, Tensor]:
    """Outputs, and of each row the highest score and the inverse of the sum of ``exp2(score - highest)``.

    They stay apart: their combination into one logarithm would round where scores are large.
    """
    output_NMV = q_NMC.new_empty(*q_NMC.shape[:2], v_NLV.shape[-1])
    rows_2NM1 = q_NMC.new_empty(2, *q_NMC.shape[:2], 1)
    buffer = _buffer(q_NMC, k_NLC, repeats)
    for block in blocks:
        rows = slice(block.queries.start * repeats, block.queries.stop * repeats)
        scores_NMS = _scores(q_NMC[:, rows], k_NLC[:, block.keys], block, buffer)
        highest_NM1 = scores_NMS.amax(-1, keepdim=True)
        scores_NMS.sub_(highest_NM1).exp2_()
        inverse_NM1 = scores_NMS.sum(-1, keepdim=True).reciprocal_()
        torch.mul(torch.bmm(scores_NMS, v_NLV[:, block.keys]), inverse_NM1, out=output_NMV[:, rows])
        rows_2NM1[0, :, rows], rows_2NM1[1, :, rows] = highest_NM1, inverse_NM1
    return output_NMV, rows_2NM1


def _backward(
    q_NMC: Tensor,
    k_NLC: Tensor,
    v_NLV: Tensor,
    highest_NM1: Tensor,
    grad_NMV: Tensor,
    along_NM1: Tensor,
    repeats: int,
    blocks: list[_Block],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients from those of the outputs, ``along_NM1`` being their product with the outputs.

    Both come divided by the softmax's denominator, which spares the probabilities that division.
    """
    grad_q_NMC, grad_k_NLC, grad_v_NLV = torch.empty_like(q_NMC), torch.zeros_like(k_NLC), torch.zeros_like(v_NLV)
    buffers = _buffer(q_NMC, k_NLC, repeats), _buffer(q_NMC, k_NLC, repeats)
    for block in blocks:
        rows, keys = slice(block.queries.start * repeats, block.queries.stop * repeats), block.keys
        p_NMS = _scores(q_NMC[:, rows], k_NLC[:, keys], block, buffers[0])
        p_NMS.sub_(highest_NM1[:, rows]).exp2_()
        grad_v_NLV[:, keys].add_(torch.bmm(p_NMS.transpose(1, 2), grad_NMV[:, rows]))
        grad_s_NMS = buffers[1][: p_NMS.numel()].view_as(p_NMS)
        torch.bmm(grad_NMV[:, rows], v_NLV[:, keys].transpose(1, 2), out=grad_s_NMS)
        grad_s_NMS.sub_(along_NM1[:, rows]).mul_(p_NMS)
        torch.bmm(grad_s_NMS, k_NLC[:, keys], out=grad_q_NMC[:, rows])
        grad_k_NLC[:, keys].add_(torch.bmm(grad_s_NMS.transpose(1, 2), q_NMC[:, rows]))
    return grad_q_NMC, grad_k_NLC, grad_v_NLV


class _Attention(Function):
    @staticmethod
    def forward(ctx: Any, q_THC: Tensor, k_TGC: Tensor, v_TGV: Tensor, shape: _Shape) -> Tensor:
        groups, repeats = k_TGC.shape[1], q_THC.shape[1] // k_TGC.shape[1]
        output_THV = q_THC.new_empty(*q_THC.shape[:2], v_TGV.shape[-1])
        rows = []
        for run in _runs(shape.lengths, q_THC.shape[1]):
            q_NMC, k_NLC, v_NLV = (_by_group(part, run, groups) for part in (q_THC, k_TGC, v_TGV))
            blocks = _blocks(run.length, repeats, shape, q_NMC.dtype)
            output_NMV, rows_2NM1 = _forward(q_NMC.mul_(shape.scale * LOG2_E), k_NLC, v_NLV, repeats, blocks)
            _into(output_THV, run, output_NMV, groups)
            rows.append(rows_2NM1)
        ctx.save_for_backward(q_THC, k_TGC, v_TGV, output_THV, *rows)
        ctx.shape = shape
        return output_THV

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_THV: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        inputs, (output_THV, *rows), shape = ctx.saved_tensors[:3], ctx.saved_tensors[3:], ctx.shape
        groups, repeats = inputs[1].shape[1], inputs[0].shape[1] // inputs[1].shape[1]
        grads = [torch.empty_like(part, memory_format=torch.contiguous_format) for part in inputs]
        along_TH1 = (grad_THV * output_THV).sum(-1, keepdim=True)
        for run, (highest_NM1, inverse_NM1) in zip(_runs(shape.lengths, inputs[0].shape[1]), rows, strict=True):
            q_NMC, k_NLC, v_NLV, grad_NMV, along_NM1 = (
                _by_group(part, run, groups) for part in (*inputs, grad_THV, along_TH1)
            )
            blocks = _blocks(run.length, repeats, shape, q_NMC.dtype)
            q_NMC.mul_(shape.scale * LOG2_E)
            grad_NMV.mul_(inverse_NM1)
            along_NM1.mul_(inverse_NM1)
            parts = _backward(q_NMC, k_NLC, v_NLV, highest_NM1, grad_NMV, along_NM1, repeats, blocks)
            # The gradient reached the scores in nats; the queries and with them the scores stand in bits.
            parts[0].mul_(shape.scale)
            parts[1].div_(LOG2_E)
            for grad, part in zip(grads, parts, strict=True):
                _into(grad, run, part, groups)
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
