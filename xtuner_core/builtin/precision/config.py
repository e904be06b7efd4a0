"""Configuration of the precisions fp32 and bf16: their four dtypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(kw_only=True)
class Fp32Config:
    """Everything in float32."""

    parameter: Literal["float64", "float32", "bfloat16"] = "float32"
    """What the optimizer updates; master weights where it differs from `compute`."""
    compute: Literal["float64", "float32", "bfloat16"] = "float32"
    """What forward and backward work in."""
    reduction: Literal["float64", "float32", "bfloat16"] = "float32"
    """What gradients are added up in."""
    state: Literal["float64", "float32", "bfloat16"] = "float32"
    """What the optimizer keeps its moments in."""


@dataclass(kw_only=True)
class Bf16Config:
    """Computation in bfloat16, everything that accumulates in float32."""

    parameter: Literal["float64", "float32", "bfloat16"] = "float32"
    """What the optimizer updates; master weights where it differs from `compute`."""
    compute: Literal["float64", "float32", "bfloat16"] = "bfloat16"
    """What forward and backward work in."""
    reduction: Literal["float64", "float32", "bfloat16"] = "float32"
    """What gradients are added up in."""
    state: Literal["float64", "float32", "bfloat16"] = "float32"
    """What the optimizer keeps its moments in."""
