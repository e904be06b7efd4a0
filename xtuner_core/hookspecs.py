"""The whole contract between the core and its plugins.

A plugin is a module that implements some of these hooks with `xtuner_core.api.hookimpl`. Hooks are called while a
run is wired, never in the hot loop. They return records (`xtuner_core.records`); what happens is the core's doing.
A hook's implementation takes the arguments that it wants, by name, and gives none of them a default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from xtuner_core.contracts.device import DeviceFacts
    from xtuner_core.plan import Plan
    from xtuner_core.records import (
        AlgorithmProvider,
        Command,
        DeviceProvider,
        Hint,
        LossProvider,
        ModelProvider,
        ParallelismProvider,
        Patch,
        PluginInfo,
        Problem,
        Provider,
    )

hookspec = pluggy.HookspecMarker("xtuner_core")
hookimpl = pluggy.HookimplMarker("xtuner_core")

CONTRACT = (1, 0)
"""Version of this file and of `contracts/`. A plugin of the same major version and at most one minor version
behind works; see `docs/reference/contract-policy.md`."""

# ── Offer: once a process, when the plugin is activated. Import no torch. ──────────────────────────────────────


@hookspec
def xtuner_plugin() -> PluginInfo:  # type: ignore[empty-body]
    """Say what this plugin is. The one hook that every plugin implements."""


@hookspec
def xtuner_models() -> Iterable[ModelProvider[Any]]:  # type: ignore[empty-body]
    """Offer model families."""


@hookspec
def xtuner_parallelisms() -> Iterable[ParallelismProvider[Any]]:  # type: ignore[empty-body]
    """Offer parallelism strategies."""


@hookspec
def xtuner_devices() -> Iterable[DeviceProvider[Any]]:  # type: ignore[empty-body]
    """Offer kinds of device."""


@hookspec
def xtuner_losses() -> Iterable[LossProvider[Any]]:  # type: ignore[empty-body]
    """Offer losses."""


@hookspec
def xtuner_algorithms() -> Iterable[AlgorithmProvider[Any]]:  # type: ignore[empty-body]
    """Offer algorithms."""


@hookspec
def xtuner_providers() -> Iterable[Provider[Any]]:  # type: ignore[empty-body]
    """Offer anything of the lesser slots (`xtuner_core.records.SLOTS`)."""


@hookspec
def xtuner_commands() -> Iterable[Command]:  # type: ignore[empty-body]
    """Add commands to the command line."""


# ── Wire: once a run. ───────────────────────────────────────────────────────────────────────────────────────────


@hookspec
def xtuner_configure(config: Mapping[str, Any]) -> Iterable[Patch]:  # type: ignore[empty-body]
    """Set values that the user left to the plugin, in the launcher.

    :param config: the configuration as defaults, recipe and command line make it; read only.
    :return: patches, which count more than the recipe and less than the command line. None may change a pick.
    """


@hookspec
def xtuner_check(plan: Plan, facts: DeviceFacts | None) -> Iterable[Problem]:  # type: ignore[empty-body]
    """Refuse a run that cannot work.

    :param plan: the frozen plan.
    :param facts: None in the launcher; on each rank, what its device found.
    """


# ── Fail: each implementation on its own; one that raises is passed over. ──────────────────────────────────────


@hookspec
def xtuner_explain(error: BaseException, plan: Plan | None) -> Iterable[Hint]:  # type: ignore[empty-body]
    """Add a hint to an error that this plugin recognises."""
