"""RMS normalisation in plain PyTorch (Zhang and Sennrich 2019, arXiv 1910.07467, section 4).

Shapes: D channels; ... any leading dims.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xtuner_core_kernels.operator import Implementation
from xtuner_core_kernels.support import any_float, statistics_dtype


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """``weight * x / sqrt(mean(x^2) + eps)`` over the last dim.

    Args:
        x: ``[..., D]``, any floating-point dtype.
        weight_D: ``[D]``.
        eps: added to the mean square.

    Returns:
        ``[..., D]``. Statistics are float32 at least; the normalised value is rounded to x's dtype before the
        weight multiplies it, as Llama and Qwen do.
    """
    exact = x.to(statistics_dtype(x.dtype))
    scale = torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps)
    return weight_D * (exact * scale).to(x.dtype)


IMPLEMENTATION = Implementation(
    operator="rms_norm", name="reference", call=rms_norm, supports=any_float, tolerance=2e-6
)
