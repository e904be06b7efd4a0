"""SwiGLU in plain PyTorch (Shazeer 2020, arXiv 2002.05202, section 2), and the clamped form of gpt-oss.

Shapes: F width; ... any leading dims.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from xtuner_core_kernels.operator import Implementation
from xtuner_core_kernels.support import any_float

CLAMPED_SLOPE = 1.702


def swiglu(gate_up: Tensor, limit: float | None = None) -> Tensor:
    """``silu(gate) * up``, the gate being the first half of the last dim and up the second.

    Args:
        gate_up: ``[..., 2 F]``.
        limit: where given, gpt-oss's form (2025, arXiv 2508.10925): the gate is clamped from above and up on both
            sides, and the result is ``gate * sigmoid(1.702 * gate) * (up + 1)``.

    Returns:
        ``[..., F]`` in the input's dtype.
    """
    gate, up = gate_up.chunk(2, dim=-1)
    if limit is None:
        return functional.silu(gate) * up
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return gate * torch.sigmoid(CLAMPED_SLOPE * gate) * (up + 1)


IMPLEMENTATION = Implementation(operator="swiglu", name="reference", call=swiglu, supports=any_float, tolerance=2e-6)
