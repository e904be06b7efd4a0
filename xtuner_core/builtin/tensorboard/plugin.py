"""Offers the observer tensorboard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import PluginInfo, Provider, hookimpl

TENSORBOARD: Provider[Any] = Provider(
    slot="observer",
    name="tensorboard",
    factory="xtuner_core.builtin.tensorboard.observer:build",
    config="xtuner_core.builtin.tensorboard.config:TensorBoardConfig",
    summary="curves for TensorBoard",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="curves for TensorBoard")


@hookimpl
def xtuner_providers() -> Iterable[Provider[Any]]:
    """Offer the observer."""
    return [TENSORBOARD]
