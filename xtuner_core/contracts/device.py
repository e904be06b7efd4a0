"""What a device is: the only place where its name, its streams and its memory calls are known."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch


@dataclass(frozen=True, slots=True)
class Probe:
    """What a device's `probe` finds without importing torch."""

    count: int
    """Devices of this kind here; 0 where there is none."""
    reason: str = ""
    """Why there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What a rank finds on its own device."""

    chip: str
    """Name of the chip as its maker writes it."""
    capabilities: frozenset[str]
    """Known words (`xtuner_core.capabilities`) that this chip has."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """Words that it has not, each with the reason."""
    memory_bytes: int
    peak_flops: Mapping[str, float] = field(default_factory=dict)
    """Dense peak of matrix products by dtype name (`bfloat16`), FLOP/s, from the data sheet; empty if unknown."""


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """Bytes on the device (on the host for a CPU)."""

    allocated: int
    peak: int


class Device(Protocol):
    """One opened device of one rank."""

    torch_device: torch.device
    backend: str
    """Collective backend of torch.distributed (`gloo`, `nccl`, `hccl`)."""
    deterministic: bool
    """Whether runs on it are deterministic unless the configuration says otherwise."""

    def facts(self) -> DeviceFacts:
        """Chip, capabilities, memory and peak rates."""

    def synchronize(self) -> None:
        """Wait for all work queued on the device."""

    def memory(self) -> MemoryFigures:
        """Bytes in use and at the peak since the last reset."""

    def reset_peak(self) -> None:
        """Start the peak anew."""

    def seed(self, seed: int) -> None:
        """Seed the device's random generator."""

    def random_state(self) -> Any:
        """State of the device's random generator, as tensors and plain data."""

    def set_random_state(self, state: Any) -> None:
        """Restore what `random_state` returned."""

    def close(self) -> None:
        """Give back what `open` took; the process may open a device again."""


class MemoryRecorder(Protocol):
    """What a device with the capability `memory.snapshot` can do beside the rest."""

    def record_memory(self, file: Path) -> AbstractContextManager[None]:
        """Record every allocation in the block, and write it to `file` in the form that the device's tools read."""


class HostCopy(Protocol):
    """A tensor that was copied from the device to host memory."""

    def start(self) -> None:
        """Begin to bring it back, beside the device's other work; once begun, nothing."""

    def tensor(self) -> torch.Tensor:
        """The tensor on the device, with its shape, strides and bits: work queued from now on finds it there.

        The device's memory for it goes with the last reference to what is returned.
        """


@runtime_checkable
class Offloading(Protocol):
    """What a device with the capability `memory.offload` can do beside the rest."""

    def to_host(self, tensor: torch.Tensor) -> HostCopy:
        """Copy a tensor to host memory after all work queued so far, and beside what follows.

        The tensor may be dropped at once; it must not be overwritten.
        """


class DeviceFactory(Protocol):
    """What a device provider's `factory` names."""

    def __call__(self, config: Any, *, local_rank: int) -> Device:
        """Open the device.

        :raises RunError: it is not there, or its software is missing; says what to install.
        """
