"""What a precision is: four dtypes, and a replacement of modules by role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionPolicy:
    """Dtypes of a run; the data strategy applies them, or the engine where there is none."""

    parameter: torch.dtype
    """What the optimizer updates; where it differs from `compute` these are master weights."""
    compute: torch.dtype
    """What forward and backward work in."""
    reduction: torch.dtype
    """What gradients are added up in, over micro-batches and ranks."""
    state: torch.dtype
    """What the optimizer keeps its moments in."""


class Precision(Protocol):
    """A policy and, where the format needs them, other modules."""

    policy: PrecisionPolicy

    def prepare(self, model: nn.Module) -> nn.Module:
        """Replace modules by role, on the meta device; the plain precisions return the model as it is."""


class PrecisionFactory(Protocol):
    """What a precision provider's `factory` names."""

    def __call__(self, config: Any) -> Precision:
        """Build the precision of `config`."""
