"""Questions that several implementations answer alike: which dtypes, which device, how precise inside."""

from __future__ import annotations

import torch

from xtuner_core_kernels.operator import Use

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums and exponentials are taken: float64 stays, everything shorter becomes float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def any_float(use: Use) -> str | None:
    """What a reference supports: any device, any floating-point dtype."""
    if use.dtype in FLOATS:
        return None
    return f"computes in {', '.join(str(dtype) for dtype in FLOATS)}, not in {use.dtype}"


def cpu_float(use: Use) -> str | None:
    """What most CPU implementations support: CPU tensors in float32 or float64."""
    if use.device != "cpu":
        return f"computes on cpu, not on {use.device}"
    if use.dtype not in (torch.float32, torch.float64):
        return f"computes in float32 and float64, not in {use.dtype}"
    return None
