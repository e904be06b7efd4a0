"""Offers the dispatchers all_to_all and naive."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import PluginInfo, Provider, hookimpl

ALL_TO_ALL: Provider[Any] = Provider(
    slot="dispatcher",
    name="all_to_all",
    factory="xtuner_core.builtin.dispatchers.all_to_all:AllToAll",
    requires=frozenset({"comm.all_to_all"}),
    summary="sends each row to the rank of its expert and back, and nothing else",
)
NAIVE: Provider[Any] = Provider(
    slot="dispatcher",
    name="naive",
    factory="xtuner_core.builtin.dispatchers.naive:Naive",
    requires=frozenset({"comm.collectives"}),
    summary="brings all tokens to every rank and sums the outputs; for few ranks, and to compare with",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="dispatchers that bring tokens to experts on other ranks")


@hookimpl
def xtuner_providers() -> Iterable[Provider[Any]]:
    """Offer the dispatchers."""
    return [ALL_TO_ALL, NAIVE]
