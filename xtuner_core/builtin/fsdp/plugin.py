"""Offers the parallelism fsdp."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import ParallelismProvider, PluginInfo, hookimpl
from xtuner_core.records import Dimension

FSDP: ParallelismProvider[Any] = ParallelismProvider(
    name="fsdp",
    factory="xtuner_core.builtin.fsdp.strategy:build",
    config="xtuner_core.builtin.fsdp.config:FsdpConfig",
    dimensions=(
        Dimension(name="replicate", size="replicate"),
        Dimension(name="dense.shard", size="shard"),
        Dimension(name="expert.shard", size="expert_shard"),
    ),
    stage="data",
    requires=frozenset({"comm.collectives"}),
    summary="shards parameters, gradients and optimizer states over ranks, layer by layer (FSDP2, HSDP)",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="fully sharded data parallelism")


@hookimpl
def xtuner_parallelisms() -> Iterable[ParallelismProvider[Any]]:
    """Offer the strategy."""
    return [FSDP]
