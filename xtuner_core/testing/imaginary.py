"""A plugin to pass as an object: the accelerator `imaginary`, which is the processor under a name of its own.

It serves to show that a device's name leaks nowhere: what runs on it runs with `cpu` inactive or not picked.

    host = Host(objects={"imaginary": xtuner_core.testing.imaginary})
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xtuner_core.api import DeviceProvider, Lack, PluginInfo, hookimpl

PROVIDES = frozenset({"dtype.fp64", "dtype.fp32", "dtype.bf16", "comm.collectives", "imaginary.unicorns"})
LACKS = {"dtype.fp16": Lack(reason="unicorns do not count in halves", fix="choose precision=bf16")}


@dataclass(frozen=True, slots=True)
class Found:
    """What the probe finds."""

    count: int
    reason: str


def probe() -> Found:
    """There is one for everybody who believes in it."""
    return Found(1, "")


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(
        contract="1.0",
        summary="an accelerator that is not there",
        capabilities={"imaginary.unicorns": "draws its own carriage"},
    )


@hookimpl
def xtuner_devices() -> Iterable[DeviceProvider[Any]]:
    """Offer the device."""
    yield DeviceProvider(
        name="imaginary",
        factory="xtuner_core.testing.imaginary_device:ImaginaryDevice",
        probe="xtuner_core.testing.imaginary:probe",
        accelerator=True,
        precision="fp32",
        provides=PROVIDES,
        lacks=LACKS,
        summary="the processor under another name",
    )
