"""Grouped experts in plain PyTorch: a mixture of SwiGLU networks in which no token is dropped.

Shapes: T tokens, D model width, E experts, K experts chosen for a token, F expert width, R = T * K
routed rows, N rows of one expert.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from xtuner_core_kernels.operator import Implementation
from xtuner_core_kernels.support import any_float
from xtuner_core_kernels.swiglu.reference import swiglu


def experts(
    x_TD: Tensor,
    gate_up_EFD: Tensor,
    down_EDF: Tensor,
    weights_TK: Tensor | None,
    experts_TK: Tensor,
) -> Tensor:
    """``y_t = sum_k weights[t, k] * down_e(swiglu(gate_up_e(x_t)))`` with ``e = experts[t, k]``.

    Args:
        x_TD: ``[T, D]``.
        gate_up_EFD: ``[E, 2 F, D]``, the gate's rows before those of up.
        down_EDF: ``[E, D, F]``.
        weights_TK: ``[T, K]`` in any floating-point dtype, or None for ones.
        experts_TK: int64 ``[T, K]``, each in ``[0, E)``; any skew, and a token may name an expert twice.

    Returns:
        ``[T, D]`` in x's dtype, summed over K in the order of the columns.
    """
    order_R = experts_TK.flatten().argsort(stable=True)
    counts_E = experts_TK.flatten().bincount(minlength=gate_up_EFD.shape[0]).tolist()
    rows_E = torch.split(x_TD[order_R // experts_TK.shape[1]], counts_E)
    y_RD = torch.cat(
        [
            functional.linear(swiglu(functional.linear(x_ND, gate_up_FD)), down_DF)
            for x_ND, gate_up_FD, down_DF in zip(rows_E, gate_up_EFD, down_EDF, strict=True)
        ]
    )
    y_TKD = y_RD[order_R.argsort()].view(*experts_TK.shape, x_TD.shape[1])
    if weights_TK is not None:
        y_TKD = y_TKD * weights_TK.unsqueeze(-1).to(y_TKD.dtype)
    return y_TKD.sum(1)


IMPLEMENTATION = Implementation(operator="experts", name="reference", call=experts, supports=any_float, tolerance=5e-6)
