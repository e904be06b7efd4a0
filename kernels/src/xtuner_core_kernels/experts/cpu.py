"""Grouped experts for CPU: one sort, each expert's work from end to end while it is in a cache, one autograd node.

Shapes: T tokens, D model width, E experts, K experts chosen for a token, F expert width, R = T * K routed rows in
the order of their experts, N rows of one expert.

Kept for the backward pass: the inputs, the order of the rows and the pre-activations ``gate_up_RF``. The router's
weight multiplies the activation before the second product, so that ``d loss / d weight`` is a product of things the
backward pass has anyway and the experts' outputs need not be kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from xtuner_core_kernels.operator import Implementation
from xtuner_core_kernels.support import cpu_float


class _Order(NamedTuple):
    """Which token each routed row belongs to, where each token's rows are, and how many rows each expert has."""

    token_R: Tensor
    place_TK: Tensor
    order_R: Tensor
    counts: list[int]


def _order(experts_TK: Tensor, experts: int) -> _Order:
    flat_R = experts_TK.flatten()
    order_R = flat_R.argsort(stable=True)
    place_R = torch.empty_like(order_R).scatter_(0, order_R, torch.arange(len(order_R)))
    counts = flat_R.bincount(minlength=experts).tolist()
    return _Order(order_R // experts_TK.shape[1], place_R.view_as(experts_TK), order_R, counts)


def _rows(counts: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Each expert that has rows, and its rows."""
    start = 0
    for expert, count in enumerate(counts):
        if count:
            yield expert, slice(start, start + count)
        start += count


def _combine(rows_RD: Tensor, place_TK: Tensor) -> Tensor:
    """The sum of each token's rows, ``place_TK`` saying where they are."""
    return functional.embedding_bag(place_TK, rows_RD, mode="sum")


def _activation_backward(
    grad_hidden_NF: Tensor, gate_up_NF: Tensor, weights_N1: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The hidden activations, the gradient of the pre-activations and of the router's weights.

    With s = sigmoid(gate), ``silu(gate) = s gate`` and ``d silu / d gate = s + silu - s silu``. The hidden
    activations come multiplied by the weights; the gradient given is overwritten.
    """
    gate_NF, up_NF = gate_up_NF.chunk(2, dim=1)
    grad_NF = torch.empty_like(gate_up_NF)
    grad_gate_NF, grad_up_NF = grad_NF.chunk(2, dim=1)
    sigmoid_NF = gate_NF.sigmoid()
    silu_NF = gate_NF * sigmoid_NF
    hidden_NF = silu_NF * up_NF
    grad_weights_N = None
    if weights_N1 is not None:
        grad_weights_N = (grad_hidden_NF * hidden_NF).sum(1)
        hidden_NF.mul_(weights_N1)
        grad_hidden_NF.mul_(weights_N1)
    torch.mul(grad_hidden_NF, silu_NF, out=grad_up_NF)
    slope_NF = sigmoid_NF.addcmul_(sigmoid_NF, silu_NF, value=-1).add_(silu_NF)
    torch.mul(grad_hidden_NF.mul_(up_NF), slope_NF, out=grad_gate_NF)
    return hidden_NF, grad_NF, grad_weights_N


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
        order = _order(experts_TK, gate_up_EFD.shape[0])
        weights_R1 = None if weights_TK is None else weights_TK.flatten()[order.order_R].to(x_TD.dtype).unsqueeze(1)
        gate_up_RF = x_TD.new_empty(len(order.token_R), gate_up_EFD.shape[1])
        output_RD = x_TD.new_empty(len(order.token_R), x_TD.shape[1])
        for expert, rows in _rows(order.counts):
            x_ND = x_TD.index_select(0, order.token_R[rows])
            torch.mm(x_ND, gate_up_EFD[expert].T, out=gate_up_RF[rows])
            gate_NF, up_NF = gate_up_RF[rows].chunk(2, dim=1)
            hidden_NF = functional.silu(gate_NF).mul_(up_NF)
            if weights_R1 is not None:
                hidden_NF.mul_(weights_R1[rows])
            torch.mm(hidden_NF, down_EDF[expert].T, out=output_RD[rows])
        ctx.save_for_backward(x_TD, gate_up_EFD, down_EDF, weights_R1, order.token_R, order.place_TK, gate_up_RF)
        ctx.counts = order.counts
        ctx.weights_dtype = None if weights_TK is None else weights_TK.dtype
        return _combine(output_RD, order.place_TK)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, gate_up_EFD, down_EDF, weights_R1, token_R, place_TK, gate_up_RF = ctx.saved_tensors
        grad_gate_up_EFD, grad_down_EDF = torch.empty_like(gate_up_EFD), torch.empty_like(down_EDF)
        grad_x_RD = x_TD.new_empty(len(token_R), x_TD.shape[1])
        grad_weights_R = None if weights_R1 is None else x_TD.new_empty(len(token_R))
        for expert in [expert for expert, count in enumerate(ctx.counts) if not count]:
            grad_gate_up_EFD[expert].zero_()
            grad_down_EDF[expert].zero_()
        for expert, rows in _rows(ctx.counts):
            grad_ND = grad_TD.index_select(0, token_R[rows])
            hidden_NF, grad_NF, grad_weights_N = _activation_backward(
                grad_ND @ down_EDF[expert], gate_up_RF[rows], None if weights_R1 is None else weights_R1[rows]
            )
            if grad_weights_R is not None:
                grad_weights_R[rows] = grad_weights_N
            torch.mm(grad_ND.T, hidden_NF, out=grad_down_EDF[expert])
            torch.mm(grad_NF.T, x_TD.index_select(0, token_R[rows]), out=grad_gate_up_EFD[expert])
            torch.mm(grad_NF, gate_up_EFD[expert], out=grad_x_RD[rows])
        grad_weights_TK = None if grad_weights_R is None else grad_weights_R[place_TK].to(ctx.weights_dtype)
        return _combine(grad_x_RD, place_TK), grad_gate_up_EFD, grad_down_EDF, grad_weights_TK, None


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
