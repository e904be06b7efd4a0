"""Offers the launchers local and torchrun."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from xtuner_core.api import LauncherProvider, PluginInfo, Problem, Provider, hookimpl
from xtuner_core.builtin.launchers.environment import started_by_torchrun

if TYPE_CHECKING:
    from xtuner_core.contracts.device import DeviceFacts
    from xtuner_core.plan import Plan

_PACKAGE = "xtuner_core.builtin.launchers"

LOCAL: LauncherProvider[Any] = LauncherProvider(
    name="local",
    factory=f"{_PACKAGE}.local:build",
    config=f"{_PACKAGE}.config:LocalConfig",
    world=f"{_PACKAGE}.config:local_world",
    summary="starts ranks on this host, watches them, and starts them again after a failure",
)
TORCHRUN: LauncherProvider[Any] = LauncherProvider(
    name="torchrun",
    factory=f"{_PACKAGE}.torchrun:build",
    world=f"{_PACKAGE}.config:torchrun_world",
    detect=f"{_PACKAGE}.environment:started_by_torchrun",
    summary="the ranks that torchrun has started, on one host or many",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="starts the ranks of a run, or finds that they have been started")


@hookimpl
def xtuner_providers() -> Iterable[Provider[Any]]:
    """Offer the launchers."""
    return [LOCAL, TORCHRUN]


@hookimpl
def xtuner_check(plan: Plan, facts: DeviceFacts | None) -> Iterable[Problem]:
    """Refuse a launcher that cannot be where this process is."""
    del facts
    pick = plan.pick("launcher")
    if pick is None or pick.plugin != "launchers":
        return []
    started = started_by_torchrun()
    if pick.name == "local" and started:
        message = "launcher=local would have each rank that torchrun started start ranks of its own"
        fix = "take launcher (or --nproc) out, or start the command without torchrun"
        return [Problem(message=message, fix=fix, key="launcher", plugins=("launchers",))]
    return []
