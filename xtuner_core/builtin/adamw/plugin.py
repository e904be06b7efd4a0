"""Offers the optimizer adamw."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import PluginInfo, Provider, hookimpl

ADAMW: Provider[Any] = Provider(
    slot="optimizer",
    name="adamw",
    factory="xtuner_core.builtin.adamw.optimizer:build",
    config="xtuner_core.builtin.adamw.config:AdamWConfig",
    summary="Adam with decoupled weight decay (arXiv 1711.05101)",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="the optimizer AdamW", requires_plugins=("kernels",))


@hookimpl
def xtuner_providers() -> Iterable[Provider[Any]]:
    """Offer AdamW."""
    return [ADAMW]
