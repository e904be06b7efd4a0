"""Rotary position embedding for CPU, with the normalisation of heads in the same autograd node.

Shapes: T tokens, H heads, C channels of a head, P channels that rotate (P <= C).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from xtuner_core_kernels.operator import Implementation
from xtuner_core_kernels.rms_norm.cpu import inverse_rms, rms_norm_backward
from xtuner_core_kernels.support import cpu_float


def _partners(x: Tensor, rotating: int, interleaved: bool) -> tuple[Tensor, Tensor]:
    """Views of the first and of the second channel of every pair."""
    if interleaved:
        return x[..., 0:rotating:2], x[..., 1:rotating:2]
    return x[..., : rotating // 2], x[..., rotating // 2 : rotating]


def _rotate(x_THC: Tensor, cos_TP: Tensor, sin_TP: Tensor, interleaved: bool, back: bool) -> Tensor:
    """The rotation, or its transpose, which the backward pass needs."""
    rotating = cos_TP.shape[-1]
    cos_T1P, sin_T1P = cos_TP.unsqueeze(1), sin_TP.unsqueeze(1)
    rotated_THC = torch.empty_like(x_THC)
    torch.mul(x_THC[..., :rotating], cos_T1P, out=rotated_THC[..., :rotating])
    rotated_THC[..., rotating:] = x_THC[..., rotating:]
    first, second = _partners(rotated_THC, rotating, interleaved)
    first_x, second_x = _partners(x_THC, rotating, interleaved)
    first_sin, second_sin = _partners(sin_T1P, rotating, interleaved)
    if back:
        first.addcmul_(second_x, second_sin)
        second.addcmul_(first_x, first_sin, value=-1)
    else:
        first.addcmul_(second_x, first_sin, value=-1)
        second.addcmul_(first_x, second_sin)
    return rotated_THC


class _Rotary(Function):
    @staticmethod
    def forward(ctx: Any, x_THC: Tensor, cos_TP: Tensor, sin_TP: Tensor, interleaved: bool) -> Tensor:
        ctx.save_for_backward(cos_TP, sin_TP)
        ctx.interleaved = interleaved
        return _rotate(x_THC, cos_TP, sin_TP, interleaved, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_THC: Tensor) -> tuple[Tensor, None, None, None]:
        cos_TP, sin_TP = ctx.saved_tensors
        return _rotate(grad_THC.contiguous(), cos_TP, sin_TP, ctx.interleaved, back=True), None, None, None


class _NormRotary(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_THC: Tensor,
        cos_TP: Tensor,
        sin_TP: Tensor,
        norm_weight_C: Tensor,
        eps: float,
        interleaved: bool,
    ) -> Tensor:
        scale_TH1 = inverse_rms(x_THC, eps)
        ctx.save_for_backward(x_THC, cos_TP, sin_TP, norm_weight_C, scale_TH1)
        ctx.interleaved = interleaved
        normal_THC = torch.mul(x_THC, scale_TH1).mul_(norm_weight_C)
        return _rotate(normal_THC, cos_TP, sin_TP, interleaved, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_THC: Tensor) -> tuple[Tensor | None, ...]:
        x_THC, cos_TP, sin_TP, norm_weight_C, scale_TH1 = ctx.saved_tensors
        grad_normal_THC = _rotate(grad_THC.contiguous(), cos_TP, sin_TP, ctx.interleaved, back=True)
        grads = rms_norm_backward(grad_normal_THC, x_THC, norm_weight_C, scale_TH1)
        return grads[0], None, None, grads[1], None, None


def rotary(
    x_THC: Tensor,
    cos_TP: Tensor,
    sin_TP: Tensor,
    norm_weight_C: Tensor | None = None,
    eps: float = 1e-6,
    interleaved: bool = False,
) -> Tensor:
    """See ``reference.rotary``. The angles are constants: no gradient reaches them."""
    if norm_weight_C is None:
        return _Rotary.apply(x_THC, cos_TP, sin_TP, interleaved)  # type: ignore[no-any-return, no-untyped-call]
    return _NormRotary.apply(  # type: ignore[no-any-return, no-untyped-call]
        x_THC.contiguous(), cos_TP, sin_TP, norm_weight_C, eps, interleaved
    )


IMPLEMENTATION = Implementation(
    operator="rotary", name="cpu", call=rotary, supports=cpu_float, preference=10, tolerance=2e-6
)
