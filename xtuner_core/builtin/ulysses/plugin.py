"""Offers sequence parallelism."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import Dimension, ParallelismProvider, PluginInfo, hookimpl

ULYSSES: ParallelismProvider[Any] = ParallelismProvider(
    name="ulysses",
    factory="xtuner_core.builtin.ulysses.strategy:Ulysses",
    config="xtuner_core.builtin.ulysses.config:UlyssesConfig",
    dimensions=(Dimension(name="dense.sequence", size="size", work="tokens"),),
    stage="sequence",
    requires=frozenset({"comm.all_to_all"}),
    summary="spreads the tokens of each pack over ranks, which trade tokens for heads in attention",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="spreads the tokens of each pack over ranks")


@hookimpl
def xtuner_parallelisms() -> Iterable[ParallelismProvider[Any]]:
    """Offer the strategy."""
    return [ULYSSES]
