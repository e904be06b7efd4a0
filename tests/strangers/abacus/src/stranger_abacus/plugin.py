"""Offers the device abacus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import DeviceProvider, Lack, PluginInfo, hookimpl


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(
        contract="1.0",
        summary="the processor under another name",
        capabilities={"abacus.beads": "counts with beads"},
    )


@hookimpl
def xtuner_devices() -> Iterable[DeviceProvider[Any]]:
    """Offer the device."""
    yield DeviceProvider(
        name="abacus",
        factory="stranger_abacus.device:Abacus",
        probe="stranger_abacus.probe:probe",
        accelerator=False,
        precision="fp32",
        provides=frozenset({"dtype.fp32", "abacus.beads"}),
        lacks={"dtype.bf16": Lack(reason="beads have no exponent", fix="choose precision=fp32")},
        summary="ten wires of ten beads",
    )
