"""RMS normalisation in C (``native/rms_norm.c``), one pass each way.

Shapes: D channels; ... any leading dims. Only the inverse root mean square of each row is kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from xtuner_core_kernels.native.library import call, native_float32
from xtuner_core_kernels.operator import Implementation


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        x, weight_D, dim = x.contiguous(), weight_D.contiguous(), len(weight_D)
        rows = x.numel() // dim
        scale, y = x.new_empty(rows), torch.empty_like(x)
        call("xck_rms_norm_forward", rows, dim, x, weight_D, float(eps), scale, y)
        ctx.save_for_backward(x, weight_D, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight_D, scale = ctx.saved_tensors
        grad_x, grad_weight_D = torch.empty_like(x), torch.empty_like(weight_D)
        given = (x, weight_D, scale, grad.contiguous())
        call("xck_rms_norm_backward", len(scale), len(weight_D), *given, grad_x, grad_weight_D)
        return grad_x, grad_weight_D, None


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """See ``reference.rms_norm``."""
    return _RMSNorm.apply(x, weight_D, eps)  # type: ignore[no-any-return, no-untyped-call]


IMPLEMENTATION = Implementation(
    operator="rms_norm", name="native", call=rms_norm, supports=native_float32, preference=20, tolerance=2e-6
)
