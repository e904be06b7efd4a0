"""Offers the dataset ledger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xtuner_core.api import DatasetProvider, PluginInfo, Provider, hookimpl


@dataclass(kw_only=True)
class LedgerConfig:
    """Which ledger is read."""

    path: str = "???"
    """The file; `dataset=FILE` sets it."""
    held_out_fraction: float = 0.0
    """Share of the lines that are held out."""
    titles: bool = True
    """Whether a text begins with its title."""


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="ledgers as datasets")


@hookimpl
def xtuner_providers() -> Iterable[Provider[Any]]:
    """Offer the dataset."""
    yield DatasetProvider(
        name="ledger",
        factory="stranger_ledger.dataset:Ledger",
        config=LedgerConfig,
        suffixes=(".ledger",),
        summary="a title, a bar and a text on each line",
    )
