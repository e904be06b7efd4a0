"""Rotary position embedding in plain PyTorch (Su et al. 2021, arXiv 2104.09864, section 3.4).

Shapes: T tokens, H heads, C channels of a head, P channels that rotate (P <= C).
"""

from __future__ import annotations

import torch
from torch import Tensor

from xtuner_core_kernels.operator import Implementation
from xtuner_core_kernels.rms_norm.reference import rms_norm
from xtuner_core_kernels.support import any_float


def rotary(
    x_THC: Tensor,
    cos_TP: Tensor,
    sin_TP: Tensor,
    norm_weight_C: Tensor | None = None,
    eps: float = 1e-6,
    interleaved: bool = False,
) -> Tensor:
    """Rotate the first P channels of each head by its token's angles; the others pass through.

    Args:
        x_THC: queries or keys ``[T, H, C]``.
        cos_TP: ``[T, P]`` in x's dtype. Half-split, channel i pairs with i + P/2 and the angles stand twice, one
            half after the other; interleaved, channel 2i pairs with 2i + 1 and each angle stands twice in a row.
        sin_TP: as ``cos_TP``.
        norm_weight_C: where given, each head is RMS-normalised over C with this weight first (QK-norm).
        eps: of that normalisation.
        interleaved: which channels form a pair.

    Returns:
        ``[T, H, C]`` in x's dtype.
    """
    if norm_weight_C is not None:
        x_THC = rms_norm(x_THC, norm_weight_C, eps)
    rotating, passing = torch.split(x_THC, [cos_TP.shape[-1], x_THC.shape[-1] - cos_TP.shape[-1]], dim=-1)
    quarter_turn = _turn_pairs(rotating) if interleaved else _turn_halves(rotating)
    rotated = rotating * cos_TP.unsqueeze(1) + quarter_turn * sin_TP.unsqueeze(1)
    return torch.cat((rotated, passing), dim=-1)


def _turn_halves(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def _turn_pairs(x: Tensor) -> Tensor:
    return torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)


IMPLEMENTATION = Implementation(operator="rotary", name="reference", call=rotary, supports=any_float, tolerance=2e-6)
