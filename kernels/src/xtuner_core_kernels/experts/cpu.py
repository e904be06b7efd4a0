"""Grouped experts for CPU: one sort, one matrix product an expert and direction, one autograd node.

Shapes: T tokens, D model width, E experts, K experts chosen for a token, F expert width, R = T * K routed rows in
the order of their experts.

Kept for the backward pass: the inputs, the order of the rows and the pre-activations ``gate_up_RF``. The router's
weight multiplies the activation before the second product, so that ``d loss / d weight`` is a product of things the
backward pass has anyway and the experts' outputs need not be kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from xtuner_core_kernels.operator import Implementation
from xtuner_core_kernels.support import cpu_float

silu_backward = torch.ops.aten.silu_backward


def _grouped_mm(rows_RA: Tensor, weights_EAB: Tensor, counts: list[int]) -> Tensor:
    """Each expert's rows times its matrix: ``[R, B]``."""
    product_RB = rows_RA.new_empty(rows_RA.shape[0], weights_EAB.shape[2])
    start = 0
    for count, weight_AB in zip(counts, weights_EAB.unbind(), strict=True):
        if count:
            torch.mm(rows_RA[start : start + count], weight_AB, out=product_RB[start : start + count])
            start += count
    return product_RB


def _grouped_outer(left_RA: Tensor, right_RB: Tensor, counts: list[int]) -> Tensor:
    """The sum over each expert's rows of left times right: ``[E, A, B]``."""
    product_EAB = left_RA.new_empty(len(counts), left_RA.shape[1], right_RB.shape[1])
    start = 0
    for count, product_AB in zip(counts, product_EAB.unbind(), strict=True):
        if count:
            torch.mm(left_RA[start : start + count].T, right_RB[start : start + count], out=product_AB)
            start += count
        else:
            product_AB.zero_()
    return product_EAB


def _combine(rows_RD: Tensor, place_TK: Tensor) -> Tensor:
    """The sum of each token's rows, ``place_TK`` saying where they are."""
    return functional.embedding_bag(place_TK, rows_RD, mode="sum")


class _Experts(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        gate_up_EFD: Tensor,
        down_EDF: Tensor,
        weights_TK: Tensor | None,
        experts_TK: Tensor,
    ) -> Tensor:
        flat_R = experts_TK.flatten()
        order_R = flat_R.argsort(stable=True)
        counts = flat_R.bincount(minlength=gate_up_EFD.shape[0]).tolist()
        token_R = order_R // experts_TK.shape[1]
        place_TK = torch.empty_like(order_R).scatter_(0, order_R, torch.arange(len(order_R))).view_as(experts_TK)
        weights_R = None if weights_TK is None else weights_TK.flatten()[order_R].to(x_TD.dtype)
        gate_up_RF = _grouped_mm(x_TD.index_select(0, token_R), gate_up_EFD.transpose(1, 2), counts)
        gate_RF, up_RF = gate_up_RF.chunk(2, dim=1)
        hidden_RF = functional.silu(gate_RF).mul_(up_RF)
        if weights_R is not None:
            hidden_RF.mul_(weights_R.unsqueeze(1))
        ctx.save_for_backward(x_TD, gate_up_EFD, down_EDF, weights_R, token_R, place_TK, gate_up_RF)
        ctx.counts = counts
        ctx.weights_dtype = None if weights_TK is None else weights_TK.dtype
        return _combine(_grouped_mm(hidden_RF, down_EDF.transpose(1, 2), counts), place_TK)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, gate_up_EFD, down_EDF, weights_R, token_R, place_TK, gate_up_RF = ctx.saved_tensors
        counts = ctx.counts
        gate_RF, up_RF = gate_up_RF.chunk(2, dim=1)
        grad_RD = grad_TD.index_select(0, token_R)
        grad_hidden_RF = _grouped_mm(grad_RD, down_EDF, counts)
        silu_RF = functional.silu(gate_RF)
        hidden_RF = silu_RF * up_RF
        grad_weights_TK = None
        if weights_R is not None:
            grad_weights_R = (grad_hidden_RF * hidden_RF).sum(1)
            grad_weights_TK = grad_weights_R[place_TK].to(ctx.weights_dtype)
            hidden_RF.mul_(weights_R.unsqueeze(1))
            grad_hidden_RF.mul_(weights_R.unsqueeze(1))
        grad_down_EDF = _grouped_outer(grad_RD, hidden_RF, counts)
        grad_gate_up_RF = torch.empty_like(gate_up_RF)
        grad_gate_RF, grad_up_RF = grad_gate_up_RF.chunk(2, dim=1)
        torch.mul(grad_hidden_RF, silu_RF, out=grad_up_RF)
        silu_backward.grad_input(grad_hidden_RF.mul_(up_RF), gate_RF, grad_input=grad_gate_RF)
        grad_gate_up_EFD = _grouped_outer(grad_gate_up_RF, x_TD.index_select(0, token_R), counts)
        grad_x_TD = _combine(_grouped_mm(grad_gate_up_RF, gate_up_EFD, counts), place_TK)
        return grad_x_TD, grad_gate_up_EFD, grad_down_EDF, grad_weights_TK, None


def experts(
    x_TD: Tensor,
    gate_up_EFD: Tensor,
    down_EDF: Tensor,
    weights_TK: Tensor | None,
    experts_TK: Tensor,
) -> Tensor:
    """See ``reference.experts``."""
    return _Experts.apply(  # type: ignore[no-any-return, no-untyped-call]
        x_TD, gate_up_EFD, down_EDF, weights_TK, experts_TK
    )


IMPLEMENTATION = Implementation(
    operator="experts", name="cpu", call=experts, supports=cpu_float, preference=10, tolerance=5e-6
)
