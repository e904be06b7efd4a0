"""Attention within packed documents for CPU, by blocks of queries (Dao et al. 2022, arXiv 2205.14135, section 3.1).

Consecutive documents of equal length form one batch, the query heads that share a key-value head one matrix. For each
block of queries the scores against the keys it can see are computed and used while they are in a cache. The backward
pass uses the exponentials again where all of them fit into ``KEEP_BYTES``, and otherwise computes them again.
Exponentials are taken in base 2, which PyTorch computes twice as fast on CPU as those in base e: the queries are
multiplied by log2(e) besides the scale. Of each row the highest score and the sum stay apart: their combination into
one logarithm would round where scores are large.

Shapes: T tokens, H query heads, G key-value heads, R = H / G, C channels of queries and keys, V channels of values,
B documents of a run, L tokens of each, N = B * G, Q queries of a block, M = Q * R, S keys in sight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from xtuner_core_kernels.attention.cpu_blocks import Block, Problem, blocks, count_scores
from xtuner_core_kernels.attention.cpu_runs import Room, Run, part, read, runs, write
from xtuner_core_kernels.operator import Implementation, Use
from xtuner_core_kernels.support import statistics_dtype

LOG2_E = math.log2(math.e)
# The most that one call keeps of its exponentials until its backward pass: 16 M scores in float32. A token's share
# grows with its document, and from some length on computing them again costs less than the memory.
KEEP_BYTES = 64 * 2**20


def _scores(q_NMC: Tensor, k_NSC: Tensor, block: Block, room: Room) -> Tensor:
    """Masked scores ``[N, M, S]``."""
    scores_NMS = torch.bmm(q_NMC, k_NSC.transpose(1, 2), out=room.take(q_NMC, k_NSC))
    if block.mask_MS is not None:
        scores_NMS[..., -block.mask_MS.shape[1] :].add_(block.mask_MS)
    return scores_NMS


def _forward(inputs: Sequence[Tensor], output_THV: Tensor, run: Run, problem: Problem, keep: bool) -> list[Tensor]:
    """Writes the run's outputs.

    Returns two tensors for each block: ``exp2(score - highest)`` or, not to be kept, the highest score of each row;
    and the inverse of the sum of those exponentials.
    """
    q_BGLRC, output_BGLRV = (part(x, run, problem.groups) for x in (inputs[0], output_THV))
    k_NLC, v_NLV = (read(part(x, run, problem.groups)) for x in inputs[1:])
    room = Room(k_NLC, run, problem, keep)
    kept = []
    for block in blocks(run.length, problem, k_NLC.dtype):
        q_NMC = read(q_BGLRC[:, :, block.queries]).mul_(problem.scale * LOG2_E)
        scores_NMS = _scores(q_NMC, k_NLC[:, block.keys], block, room)
        highest_NM1 = scores_NMS.amax(-1, keepdim=True)
        p_NMS = scores_NMS.sub_(highest_NM1).exp2_()
        inverse_NM1 = p_NMS.sum(-1, keepdim=True).reciprocal_()
        write(output_BGLRV[:, :, block.queries], torch.bmm(p_NMS, v_NLV[:, block.keys]), inverse_NM1)
        kept += [p_NMS if keep else highest_NM1, inverse_NM1]
    return kept


def _backward(
    inputs: Sequence[Tensor],
    output_THV: Tensor,
    grad_THV: Tensor,
    grads: Sequence[Tensor],
    run: Run,
    problem: Problem,
    kept: list[Tensor],
    keep: bool,
) -> None:
    """Writes the run's gradients, taking from the end of ``kept`` what :func:`_forward` put there."""
    q_BGLRC, output_BGLRV, grad_BGLRV, grad_q_BGLRC = (
        part(x, run, problem.groups) for x in (inputs[0], output_THV, grad_THV, grads[0])
    )
    k_NLC, v_NLV = (read(part(x, run, problem.groups)) for x in inputs[1:])
    # Transposed, for the vendor's library is slow at products of a transposed matrix and a narrow one.
    sum_k_NCL, sum_v_NVL = (x.new_zeros(len(x), x.shape[2], x.shape[1]) for x in (k_NLC, v_NLV))
    room, room_again = (Room(k_NLC, run, problem, keep=False) for _ in range(2))
    # From the last block on: what was computed last may still be in a cache.
    for block in reversed(blocks(run.length, problem, k_NLC.dtype)):
        inverse_NM1, p_NMS, k_NSC, v_NSV = kept.pop(), kept.pop(), k_NLC[:, block.keys], v_NLV[:, block.keys]
        q_NMC = read(q_BGLRC[:, :, block.queries]).mul_(problem.scale * LOG2_E)
        if not keep:
            p_NMS = _scores(q_NMC, k_NSC, block, room_again).sub_(p_NMS).exp2_()
        # Divided by the softmax's denominator here, which spares the exponentials that division.
        grad_NMV = read(grad_BGLRV[:, :, block.queries]).mul_(inverse_NM1)
        along_NM1 = read(output_BGLRV[:, :, block.queries]).mul_(grad_NMV).sum(-1, keepdim=True)
        sum_v_NVL[..., block.keys].baddbmm_(grad_NMV.transpose(1, 2), p_NMS)
        grad_s_NMS = torch.bmm(grad_NMV, v_NSV.transpose(1, 2), out=room.take(grad_NMV, v_NSV))
        grad_s_NMS.sub_(along_NM1).mul_(p_NMS)
        sum_k_NCL[..., block.keys].baddbmm_(q_NMC.transpose(1, 2), grad_s_NMS)
        write(grad_q_BGLRC[:, :, block.queries], torch.bmm(grad_s_NMS, k_NSC), problem.scale)
    # The gradient reached the scores in nats; the queries and with them the scores stand in bits.
    write(part(grads[1], run, problem.groups), sum_k_NCL.transpose(1, 2), 1 / LOG2_E)
    write(part(grads[2], run, problem.groups), sum_v_NVL.transpose(1, 2), 1.0)


class _Attention(Function):
    @staticmethod
    def forward(ctx: Any, q_THC: Tensor, k_TGC: Tensor, v_TGV: Tensor, problem: Problem, keep: bool) -> Tensor:
        output_THV = q_THC.new_empty(*q_THC.shape[:2], v_TGV.shape[-1])
        kept = []
        for run in runs(problem):
            kept += _forward((q_THC, k_TGC, v_TGV), output_THV, run, problem, keep)
        ctx.save_for_backward(q_THC, k_TGC, v_TGV, output_THV, *kept)
        ctx.problem, ctx.keep = problem, keep
        return output_THV

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_THV: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        # Asked for once only: recomputation gives each saved tensor out once.
        *inputs, output_THV = (saved := ctx.saved_tensors)[:4]
        kept = list(saved[4:])
        grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs]
        for run in reversed(list(runs(ctx.problem))):
            _backward(inputs, output_THV, grad_THV, grads, run, ctx.problem, kept, ctx.keep)
        return grads[0], grads[1], grads[2], None, None


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
    groups = k_TGC.shape[1]
    problem = Problem(tuple(lengths), groups, q_THC.shape[1] // groups, scale, causal, window)
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (q_THC, k_TGC, v_TGV))
    keep = keep and count_scores(problem) * statistics_dtype(q_THC.dtype).itemsize <= KEEP_BYTES
    return _Attention.apply(q_THC, k_TGC, v_TGV, problem, keep)  # type: ignore[no-any-return, no-untyped-call]


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
