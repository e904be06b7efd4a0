"""Rotary position embedding in C (``native/rotary.c``), with the normalisation of heads in the same pass.

Shapes: T tokens, H heads, C channels of a head, P channels that rotate (P <= C).
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from xtuner_core_kernels.native.library import call, native_float32
from xtuner_core_kernels.operator import Implementation


class _Problem(ctypes.Structure):
    """``Rotary`` of ``rotary.c``."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("tokens", "heads", "channels", "rotating", "interleaved")),
        *((name, ctypes.c_long) for name in ("x_stride", "grad_stride")),
        *((name, ctypes.c_void_p) for name in ("x", "cos", "sin", "weight", "scale", "to", "grad", "parts")),
        ("eps", ctypes.c_float),
    ]


class _Setting(NamedTuple):
    eps: float
    interleaved: bool


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _problem(setting: _Setting, x_THC: Tensor, angles: tuple[Tensor, Tensor], *others: Tensor | None) -> Any:
    grad_THC = others[-1]
    strides = (x_THC.stride(0), 0 if grad_THC is None else grad_THC.stride(0))
    addresses = map(_address, (x_THC, *angles, *others, None))
    sizes = (*x_THC.shape, angles[0].shape[-1], setting.interleaved)
    return ctypes.byref(_Problem(*sizes, *strides, *addresses, setting.eps))


def _heads_together(x_THC: Tensor) -> Tensor:
    """The tensor itself where a token's heads lie one after the other, as in a slice of a fused projection."""
    return x_THC if x_THC.stride()[1:] == (x_THC.shape[2], 1) else x_THC.contiguous()


class _Rotary(Function):
    @staticmethod
    def forward(
        ctx: Any, x_THC: Tensor, cos_TP: Tensor, sin_TP: Tensor, weight_C: Tensor | None, setting: _Setting
    ) -> Tensor:
        x_THC, angles = _heads_together(x_THC), (cos_TP.contiguous(), sin_TP.contiguous())
        weight_C = None if weight_C is None else weight_C.contiguous()
        scale_TH = None if weight_C is None else x_THC.new_empty(x_THC.shape[:2])
        turned_THC = x_THC.new_empty(x_THC.shape)
        call("xck_rotary_forward", _problem(setting, x_THC, angles, weight_C, scale_TH, turned_THC, None))
        # Without a weight nothing of x is needed again.
        ctx.save_for_backward(None if weight_C is None else x_THC, *angles, weight_C, scale_TH)
        ctx.setting = setting
        return turned_THC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_THC: Tensor) -> tuple[Tensor | None, ...]:
        x_THC, cos_TP, sin_TP, weight_C, scale_TH = ctx.saved_tensors
        grad_THC = _heads_together(grad_THC)
        grad_x_THC = grad_THC.new_empty(grad_THC.shape)
        grad_weight_C = None if weight_C is None else torch.empty_like(weight_C)
        x_THC = grad_THC if x_THC is None else x_THC
        given = (weight_C, scale_TH, grad_x_THC, grad_THC)
        call("xck_rotary_backward", _problem(ctx.setting, x_THC, (cos_TP, sin_TP), *given), grad_weight_C)
        return grad_x_THC, None, None, grad_weight_C, None


def rotary(
    x_THC: Tensor,
    cos_TP: Tensor,
    sin_TP: Tensor,
    norm_weight_C: Tensor | None = None,
    eps: float = 1e-6,
    interleaved: bool = False,
) -> Tensor:
    """See ``reference.rotary``. The angles are constants: no gradient reaches them."""
    setting = _Setting(float(eps), interleaved)
    return _Rotary.apply(x_THC, cos_TP, sin_TP, norm_weight_C, setting)  # type: ignore[no-any-return, no-untyped-call]


IMPLEMENTATION = Implementation(
    operator="rotary", name="native", call=rotary, supports=native_float32, preference=20, tolerance=2e-6
)
