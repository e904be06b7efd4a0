"""Offers the device cuda."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import DeviceProvider, PluginInfo, hookimpl

CUDA: DeviceProvider[Any] = DeviceProvider(
    name="cuda",
    factory="xtuner_core.builtin.cuda.device:open_device",
    probe="xtuner_core.builtin.cuda.probe:probe",
    precision="bf16",
    provides=frozenset(
        {
            "dtype.fp64",
            "dtype.fp32",
            "dtype.bf16",
            "dtype.fp16",
            "dtype.fp8",
            "comm.collectives",
            "comm.all_to_all",
            "device.streams",
            "device.pinned_memory",
            "memory.offload",
            "memory.snapshot",
        }
    ),
    summary="NVIDIA GPUs through torch.cuda; bfloat16",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="runs on NVIDIA GPUs")


@hookimpl
def xtuner_devices() -> Iterable[DeviceProvider[Any]]:
    """Offer NVIDIA GPUs."""
    return [CUDA]
