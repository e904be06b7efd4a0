"""Offers the loss focal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xtuner_core.api import LossProvider, PluginInfo, hookimpl


@dataclass(kw_only=True)
class FocalConfig:
    """How much easy tokens are passed over."""

    gamma: float = 2.0
    """Exponent; 0 is cross-entropy."""


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="focal loss (arXiv 1708.02002)")


@hookimpl
def xtuner_losses() -> Iterable[LossProvider[Any]]:
    """Offer the loss."""
    yield LossProvider(
        name="focal",
        factory="stranger_focal.loss:Focal",
        config=FocalConfig,
        summary="cross-entropy times (1 - p) ** gamma",
    )
