"""Offers the dataset hub."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import DatasetProvider, PluginInfo, Provider, hookimpl

HUB: DatasetProvider[Any] = DatasetProvider(
    name="hub",
    factory="xtuner_core.builtin.hub.dataset:HubCorpus",
    config="xtuner_core.builtin.hub.config:HubConfig",
    suffixes=(".arrow",),
    summary="a dataset of the Hugging Face Hub by name, or of the library `datasets` in a folder",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="datasets of the library `datasets`")


@hookimpl
def xtuner_providers() -> Iterable[Provider[Any]]:
    """Offer the dataset."""
    return [HUB]
