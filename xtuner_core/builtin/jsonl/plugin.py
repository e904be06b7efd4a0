"""Offers the observer jsonl."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import PluginInfo, Provider, hookimpl

JSONL: Provider[Any] = Provider(
    slot="observer",
    name="jsonl",
    factory="xtuner_core.builtin.jsonl.observer:build",
    summary="metrics.jsonl in the run's folder, one line a step",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="writes every step's metrics as a line of JSON")


@hookimpl
def xtuner_providers() -> Iterable[Provider[Any]]:
    """Offer the observer."""
    return [JSONL]
