"""Offers the parallelism rewind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xtuner_core.api import ParallelismProvider, PluginInfo, hookimpl


@dataclass(kw_only=True)
class RewindConfig:
    """Which modules are computed again."""

    role: str = "norm"
    """Role of the modules."""


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="memory for time")


@hookimpl
def xtuner_parallelisms() -> Iterable[ParallelismProvider[Any]]:
    """Offer the strategy."""
    yield ParallelismProvider(
        name="rewind",
        factory="stranger_rewind.strategy:Rewind",
        config=RewindConfig,
        stage="recomputation",
        summary="keeps the inputs of the modules of a role and computes them again in the backward pass",
    )
