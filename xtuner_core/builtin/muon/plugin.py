"""Offers the optimizer muon."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import PluginInfo, Provider, hookimpl

MUON: Provider[Any] = Provider(
    slot="optimizer",
    name="muon",
    factory="xtuner_core.builtin.muon.optimizer:build",
    config="xtuner_core.builtin.muon.config:MuonConfig",
    summary="orthogonalised momentum for matrices (arXiv 2502.16982), AdamW for everything else",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="the optimizer Muon", requires_plugins=("kernels",))


@hookimpl
def xtuner_providers() -> Iterable[Provider[Any]]:
    """Offer Muon."""
    return [MUON]
