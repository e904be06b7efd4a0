"""Attention within packed documents in C (``native/attention*.c``), by tiles of queries; nothing of the scores is kept.

Of each row the highest score and the sum stay apart, for their combination into one logarithm would round where scores
are large; from them the backward pass computes the exponentials again.

Shapes: T tokens, H query heads, G key-value heads, C channels of queries and keys, V channels of values.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from xtuner_core_kernels.native.library import call, native_float32
from xtuner_core_kernels.operator import Implementation, Use


class _Problem(ctypes.Structure):
    """``Attention`` of ``attention.h``."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("documents", "heads", "groups", "channels", "values", "causal", "window")),
        *((name, ctypes.c_void_p) for name in ("start", "q", "k", "v")),
        *((name, ctypes.c_long) for name in ("q_stride", "k_stride", "v_stride")),
        *((name, ctypes.c_void_p) for name in ("output", "highest", "inverse")),
        ("scale", ctypes.c_float),
    ]


class _Setting(NamedTuple):
    start_B: Tensor  # int64 [B + 1]
    scale: float
    causal: bool
    window: int


def _problem(setting: _Setting, q_THC: Tensor, k_TGC: Tensor, v_TGV: Tensor, *results: Tensor) -> Any:
    inputs = (q_THC, k_TGC, v_TGV)
    return ctypes.byref(
        _Problem(
            len(setting.start_B) - 1,
            *q_THC.shape[1:2],
            *k_TGC.shape[1:],
            v_TGV.shape[2],
            setting.causal,
            setting.window,
            setting.start_B.data_ptr(),
            *(x.data_ptr() for x in inputs),
            *(x.stride(0) for x in inputs),
            *(x.data_ptr() for x in results),
            setting.scale,
        )
    )


def _heads_together(x_THC: Tensor) -> Tensor:
    """The tensor itself where a token's heads lie one after the other, as in a slice of a fused projection."""
    return x_THC if x_THC.stride()[1:] == (x_THC.shape[2], 1) else x_THC.contiguous()


class _Attention(Function):
    @staticmethod
    def forward(ctx: Any, q_THC: Tensor, k_TGC: Tensor, v_TGV: Tensor, setting: _Setting) -> Tensor:
        inputs = [_heads_together(x) for x in (q_THC, k_TGC, v_TGV)]
        output_THV = q_THC.new_empty(*q_THC.shape[:2], v_TGV.shape[2])
        highest_TH, inverse_TH = q_THC.new_empty(2, *q_THC.shape[:2])
        call("xck_attention_forward", _problem(setting, *inputs, output_THV, highest_TH, inverse_TH))
        ctx.save_for_backward(*inputs, output_THV, highest_TH, inverse_TH)
        ctx.setting = setting
        return output_THV

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_THV: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        saved = ctx.saved_tensors
        q_THC, k_TGC, v_TGV = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in saved[:3])
        call("xck_attention_backward", _problem(ctx.setting, *saved), grad_THV.contiguous(), q_THC, k_TGC, v_TGV)
        return q_THC, k_TGC, v_TGV, None


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
    start_B = torch.tensor([*accumulate(lengths, initial=0)], dtype=torch.int64)
    setting = _Setting(start_B, float(scale), causal, window or 0)
    return _Attention.apply(q_THC, k_TGC, v_TGV, setting)  # type: ignore[no-any-return, no-untyped-call]


def supports(use: Use) -> str | None:
    """float32 without sinks; others are the module ``cpu``'s or the reference's."""
    if use.option("sinks", False):
        return "has no sinks in the softmax's denominator"
    return native_float32(use)


IMPLEMENTATION = Implementation(
    operator="attention", name="native", call=attention, supports=supports, preference=20, tolerance=5e-6
)
