"""RMS normalisation for CPU: as few passes over memory as PyTorch's operations allow.

Shapes: D channels; ... any leading dims. Only the inverse root mean square of each row is kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from xtuner_core_kernels.operator import Implementation
from xtuner_core_kernels.support import cpu_float


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """``1 / sqrt(mean(x^2) + eps)`` over the last dim, kept with size 1."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def rms_norm_backward(grad: Tensor, x: Tensor, weight_D: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients with respect to x and the weight, ``scale`` being :func:`inverse_rms` of x."""
    # Both gradients contract the same product: over rows for the weight, over channels for x.
    product_ND = (grad * x).view(-1, x.shape[-1])
    grad_weight_D = product_ND.T.mv(scale.view(-1))
    along = product_ND.mv(weight_D).view_as(scale)
    along.mul_(scale.pow(3)).div_(x.shape[-1])
    grad_x = torch.mul(grad, weight_D).mul_(scale).addcmul_(x, along, value=-1)
    return grad_x, grad_weight_D


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        scale = inverse_rms(x, eps)
        ctx.save_for_backward(x, weight_D, scale)
        return torch.mul(x, scale).mul_(weight_D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return *rms_norm_backward(grad.contiguous(), *ctx.saved_tensors), None


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """See ``reference.rms_norm``."""
    return _RMSNorm.apply(x.contiguous(), weight_D, eps)  # type: ignore[no-any-return, no-untyped-call]


IMPLEMENTATION = Implementation(
    operator="rms_norm", name="cpu", call=rms_norm, supports=cpu_float, preference=10, tolerance=2e-6
)
