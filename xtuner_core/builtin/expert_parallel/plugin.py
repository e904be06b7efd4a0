"""Offers expert parallelism."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import Dimension, ParallelismProvider, PluginInfo, hookimpl

EXPERT_PARALLEL: ParallelismProvider[Any] = ParallelismProvider(
    name="expert_parallel",
    factory="xtuner_core.builtin.expert_parallel.strategy:build",
    config="xtuner_core.builtin.expert_parallel.config:ExpertParallelConfig",
    dimensions=(Dimension(name="expert.parallel", size="size"),),
    stage="experts",
    summary="divides the experts of each layer among ranks and sends tokens to them; none is dropped",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="divides the experts of each layer among ranks")


@hookimpl
def xtuner_parallelisms() -> Iterable[ParallelismProvider[Any]]:
    """Offer the strategy."""
    return [EXPERT_PARALLEL]
