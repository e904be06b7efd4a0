"""Offers the strategy recompute."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from xtuner_core.api import ParallelismProvider, PluginInfo, Problem, hookimpl
from xtuner_core.builtin.recompute.check import offloads_refused

if TYPE_CHECKING:
    from xtuner_core.contracts.device import DeviceFacts
    from xtuner_core.plan import Plan

RECOMPUTE: ParallelismProvider[Any] = ParallelismProvider(
    name="recompute",
    factory="xtuner_core.builtin.recompute.strategy:Recompute",
    config="xtuner_core.builtin.recompute.config:RecomputeConfig",
    stage="recomputation",
    summary="computes modules of a role again in the backward pass instead of keeping what they computed",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="recomputation by role and layer (arXiv 1604.06174)")


@hookimpl
def xtuner_parallelisms() -> Iterable[ParallelismProvider[Any]]:
    """Offer the strategy."""
    return [RECOMPUTE]


@hookimpl
def xtuner_check(plan: Plan, facts: DeviceFacts | None) -> Iterable[Problem]:
    """Refuse an offload that the device cannot do."""
    return offloads_refused(plan, facts)
