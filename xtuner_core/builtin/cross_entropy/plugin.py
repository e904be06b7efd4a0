"""Offers the loss cross_entropy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import LossProvider, PluginInfo, hookimpl

CROSS_ENTROPY: LossProvider[Any] = LossProvider(
    name="cross_entropy",
    factory="xtuner_core.builtin.cross_entropy.loss:build",
    config="xtuner_core.builtin.cross_entropy.config:CrossEntropyConfig",
    summary="weighted negative log-likelihood, a mean over tokens or over documents",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="the loss of pre-training and supervised fine-tuning")


@hookimpl
def xtuner_losses() -> Iterable[LossProvider[Any]]:
    """Offer the loss."""
    return [CROSS_ENTROPY]
