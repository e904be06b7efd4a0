"""Offers the schedules constant, cosine, linear and wsd."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import PluginInfo, Provider, hookimpl

_SUMMARIES = {
    "constant": "linear warm-up, then constant",
    "cosine": "linear warm-up, then half a cosine down to a fraction (arXiv 1608.03983)",
    "linear": "linear warm-up, then linear down to a fraction",
    "wsd": "linear warm-up, stable, decay over the last steps (arXiv 2404.06395, 2405.18392)",
}


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="learning-rate schedules with a warm-up")


@hookimpl
def xtuner_providers() -> Iterable[Provider[Any]]:
    """Offer the schedules."""
    return [_schedule(name, summary) for name, summary in _SUMMARIES.items()]


def _schedule(name: str, summary: str) -> Provider[Any]:
    package = "xtuner_core.builtin.schedules"
    return Provider(
        slot="schedule",
        name=name,
        factory=f"{package}.closed_forms:{name}",
        config=f"{package}.config:{name.capitalize()}Config",
        summary=summary,
    )
