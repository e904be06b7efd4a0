"""Operators: what a module asks of them (`Use`), what answers (`Implementation`), and the table that binds both.

The two records live in `xtuner_core_kernels`, which knows nothing of this package; plugins take them from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from xtuner_core_kernels.operator import Implementation, Use


@dataclass(frozen=True, slots=True)
class OperatorTable:
    """The implementation bound to each use of a run; frozen before the first step."""

    bound: Mapping[Use, Implementation]

    def __getitem__(self, use: Use) -> Callable[..., Any]:
        return self.bound[use].call


@runtime_checkable
class OperatorUser(Protocol):
    """A module or component that calls operators (`xtuner_core.nn.OperatorModule` does the bookkeeping)."""

    def uses(self, *, device: str, dtype: torch.dtype) -> Mapping[str, Use]:
        """What it will call, from its configuration alone, by a name of its own."""

    def bind(self, table: OperatorTable, *, device: str, dtype: torch.dtype) -> None:
        """Keep the implementations of its uses."""


__all__ = ["Implementation", "OperatorTable", "OperatorUser", "Use"]
