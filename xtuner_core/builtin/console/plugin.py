"""Offers the observer console."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import PluginInfo, Provider, hookimpl

CONSOLE: Provider[Any] = Provider(
    slot="observer",
    name="console",
    factory="xtuner_core.builtin.console.observer:build",
    config="xtuner_core.builtin.console.config:ConsoleConfig",
    summary="a progress bar on a terminal, structured lines elsewhere, and a summary at the end",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="tells a person or a log how the run goes")


@hookimpl
def xtuner_providers() -> Iterable[Provider[Any]]:
    """Offer the observer."""
    return [CONSOLE]
