"""Offers the schedules cosine and constant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import PluginInfo, Provider, hookimpl

COSINE: Provider[Any] = Provider(
    slot="schedule",
    name="cosine",
    factory="xtuner_core.builtin.cosine.schedule:cosine",
    config="xtuner_core.builtin.cosine.config:CosineConfig",
    summary="linear warm-up, then half a cosine down to a fraction (arXiv 1608.03983)",
)
CONSTANT: Provider[Any] = Provider(
    slot="schedule",
    name="constant",
    factory="xtuner_core.builtin.cosine.schedule:constant",
    config="xtuner_core.builtin.cosine.config:ConstantConfig",
    summary="linear warm-up, then constant",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="learning-rate schedules with a warm-up")


@hookimpl
def xtuner_providers() -> Iterable[Provider[Any]]:
    """Offer both schedules."""
    return [COSINE, CONSTANT]
