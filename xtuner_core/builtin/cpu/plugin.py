"""Offers the device cpu."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import DeviceProvider, Lack, PluginInfo, hookimpl

CPU: DeviceProvider[Any] = DeviceProvider(
    name="cpu",
    factory="xtuner_core.builtin.cpu.device:open_device",
    config="xtuner_core.builtin.cpu.config:CpuConfig",
    probe="xtuner_core.builtin.cpu.probe:probe",
    accelerator=False,
    precision="fp32",
    provides=frozenset({"dtype.fp64", "dtype.fp32", "dtype.bf16", "dtype.fp16", "comm.collectives", "comm.all_to_all"}),
    lacks={
        "dtype.fp8": Lack(reason="PyTorch multiplies no 8-bit floats on a CPU", fix="choose precision=fp32"),
        "device.streams": Lack(reason="a CPU has no work queues beside the program", fix="choose an accelerator"),
        "memory.offload": Lack(reason="its memory is the host's", fix="set no offload, or choose an accelerator"),
        "device.pinned_memory": Lack(reason="host memory is all that a CPU has", fix="choose an accelerator"),
    },
    summary="the processor; deterministic, float32",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="runs on the processor")


@hookimpl
def xtuner_devices() -> Iterable[DeviceProvider[Any]]:
    """Offer the processor."""
    return [CPU]
