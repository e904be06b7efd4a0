"""Grouped experts in C (``native/experts*.c``): each block of an expert's rows from end to end while it is in a cache.

Shapes: T tokens, D model width, E experts, K experts chosen for a token, F expert width, R = T * K routed rows in the
order of their experts.

Kept for the backward pass: the inputs, the order of the rows and the pre-activations ``gate_up_RF``.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from xtuner_core_kernels.native.library import Library, call, library, native_float32
from xtuner_core_kernels.operator import Implementation


class _Problem(ctypes.Structure):
    """``Experts`` of ``experts.h``."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("tokens", "dim", "experts", "chosen", "width")),
        *((name, ctypes.c_void_p) for name in ("x", "gate_up", "down", "weights", "place", "row", "start", "before")),
    ]


def _order(experts_TK: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """The place of each row, the row of each place, and where each expert's rows begin."""
    places = experts_TK.numel()
    place_R, row_R = experts_TK.new_empty(2, places, dtype=torch.int32)
    start_E = experts_TK.new_empty(experts + 1)
    found = library()
    assert isinstance(found, Library)
    arguments = (ctypes.c_void_p(x.data_ptr()) for x in (experts_TK, place_R, row_R, start_E))
    wrong = found.functions.xck_experts_order(ctypes.c_long(places), ctypes.c_long(experts), *arguments)
    if wrong:
        raise IndexError(f"a token names an expert outside 0 to {experts - 1}")
    return place_R, row_R, start_E


def _problem(
    x_TD: Tensor, gate_up_EFD: Tensor, down_EDF: Tensor, weights_TK: Tensor | None, chosen: int, *others: Tensor
) -> Any:
    addresses = [None if x is None else x.data_ptr() for x in (x_TD, gate_up_EFD, down_EDF, weights_TK, *others)]
    experts, dim, width = down_EDF.shape
    return ctypes.byref(_Problem(len(x_TD), dim, experts, chosen, width, *addresses))


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
        tokens, ctx.chosen = experts_TK.shape
        exact_TK = None if weights_TK is None else weights_TK.to(x_TD.dtype).contiguous()
        order = _order(experts_TK.contiguous(), len(gate_up_EFD))
        gate_up_RF = x_TD.new_empty(tokens * ctx.chosen, gate_up_EFD.shape[1])
        kept = (x_TD.contiguous(), gate_up_EFD.contiguous(), down_EDF.contiguous(), exact_TK)
        y_TD = torch.empty_like(kept[0])
        call("xck_experts_forward", _problem(*kept, ctx.chosen, *order, gate_up_RF), y_TD)
        ctx.save_for_backward(*kept, *order, gate_up_RF)
        ctx.weights_dtype = None if weights_TK is None else weights_TK.dtype
        return y_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, gate_up_EFD, down_EDF, weights_TK, *others = ctx.saved_tensors
        grad_x_TD, grad_gate_up_EFD, grad_down_EDF = map(torch.empty_like, (x_TD, gate_up_EFD, down_EDF))
        grad_weights_TK = None if weights_TK is None else torch.empty_like(weights_TK)
        problem = _problem(x_TD, gate_up_EFD, down_EDF, weights_TK, ctx.chosen, *others)
        grads = (grad_x_TD, grad_gate_up_EFD, grad_down_EDF, grad_weights_TK)
        call("xck_experts_backward", problem, grad_TD.contiguous(), *grads)
        if grad_weights_TK is not None:
            grad_weights_TK = grad_weights_TK.to(ctx.weights_dtype)
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
    operator="experts", name="native", call=experts, supports=native_float32, preference=20, tolerance=5e-6
)
"""float32 on a CPU; other dtypes are the module ``cpu``'s."""
