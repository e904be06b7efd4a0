"""SwiGLU for CPU: one autograd node, no copy of the halves.

Shapes: F width; ... any leading dims.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from xtuner_core_kernels.operator import Implementation, Use
from xtuner_core_kernels.support import cpu_float

silu_backward = torch.ops.aten.silu_backward


class _SwiGLU(Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        grad_gate_up = torch.empty_like(gate_up)
        grad_gate, grad_up = grad_gate_up.chunk(2, dim=-1)
        torch.mul(functional.silu(gate), grad, out=grad_up)
        silu_backward.grad_input(grad * up, gate, grad_input=grad_gate)
        return grad_gate_up


def swiglu(gate_up: Tensor, limit: float | None = None) -> Tensor:
    """See ``reference.swiglu``; ``limit`` is refused by ``supports``."""
    assert limit is None
    return _SwiGLU.apply(gate_up)  # type: ignore[no-any-return, no-untyped-call]


def supports(use: Use) -> str | None:
    """The plain form only."""
    if use.option("limit") is not None:
        return "computes the plain form, not the one clamped to a limit"
    return cpu_float(use)


IMPLEMENTATION = Implementation(
    operator="swiglu", name="cpu", call=swiglu, supports=supports, preference=10, tolerance=2e-6
)
